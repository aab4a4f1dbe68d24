// Package announce is what all ways of announcing a VIP have in common.
//
// The problem it solves: who decides that an address can be served must not know
// how the network is told, be it by ARP and NDP (package l2), by BGP (package
// bgp), or by something that does not exist yet. So a set of addresses is all
// that an Announcer is given, again and again, and each makes the network agree
// with the latest. What is particular to a pool of addresses on one way
// (interfaces, communities) is that Announcer's own configuration.
package announce

import (
	"context"
	"net/netip"
	"time"

	"weir/dataplane/packet"
)

// Advertisement is an address that this node can serve right now.
type Advertisement struct {
	Address netip.Addr
	Pool    string // that the address is from; empty for none
}

// Announcer tells a network where addresses are. Its methods may be called from
// any goroutine.
type Announcer interface {
	// Name is the word for it in the configuration: "l2", "bgp".
	Name() string

	// Set makes ads the whole of what is to be announced. It keeps the slice, and
	// does not wait for the network. An address that is not in it any more is
	// withdrawn at once.
	Set(ads []Advertisement)

	// Status says what has become of each announcement, sorted by address and
	// then by where it goes to.
	Status() []Status

	// Changes signals that Status, or what else the announcer has to say,
	// differs from before. It has a capacity of one.
	Changes() <-chan struct{}

	// Run announces until ctx ends. It is called once.
	Run(ctx context.Context) error

	// Leave gives up all announcements in good order, such that neighbours use
	// another node before this one stops to forward. It returns when that is
	// done, or with ctx's error. Run goes on, but announces nothing any more,
	// whatever is Set.
	Leave(ctx context.Context) error
}

// State is what has become of an announcement.
type State string

// The states.
const (
	Announced State = "announced" // the neighbour or the link has been told
	Probing   State = "probing"   // asking whether somebody else has the address
	Standby   State = "standby"   // another node announces it
	Conflict  State = "conflict"  // a foreign station has the address
	Down      State = "down"      // the link or the session to tell it by is down
)

// Status is one announcement to one neighbour or on one link.
type Status struct {
	Address  netip.Prefix // an aggregate, where more than the address is announced
	Protocol string       // arp, ndp, bgp
	To       string       // the interface or the peer
	State    State
	Owner    string    // the node, or the MAC address, that has it, if that is not this node
	Since    time.Time // when State was reached
	Sent     uint64    // announcements sent
	Last     time.Time // when the last one was; zero for never
	Err      string    // why it is not as it should be; empty if it is
}

// Stance is how the workers behave on links for an address.
type Stance struct {
	// Answers says that this node answers ARP and NDP for the address.
	Answers bool

	// Members are the nodes that new flows to the address are spread over, this
	// one among them, in the same order on every node. Without any, this node
	// forwards all it gets.
	Members []Member
}

// Member is a node that takes packets for an address from this one.
type Member struct {
	Node      string
	Self      bool
	Interface string     // of this node, by which the member is reached
	MAC       packet.MAC // the member's, on that link
}
