package nexthop

import "net/netip"

// kernel is the part of rtnetlink(7) that a Tracker needs. One goroutine calls
// Receive, and one other everything else.
type kernel interface {
	// Links returns every interface.
	Links() ([]link, error)

	// Neighbours returns every ARP and NDP entry.
	Neighbours() ([]neighbour, error)

	// Addresses returns the machine's own addresses, in no order.
	Addresses() ([]ownAddress, error)

	// Route looks an address up as if the machine itself would send to it.
	// The error wraps the kernel's errno when there is no way.
	Route(netip.Addr) (route, error)

	// Source returns the machine's own address that it uses towards a
	// neighbour. The error wraps the kernel's errno when there is none.
	Source(neighKey) (netip.Addr, error)

	// Probe makes the kernel check a neighbour the way it would if it had a
	// packet for it: an unknown one is looked for, a stale one is asked
	// whether it is still there. It must not be called for a permanent
	// entry, which would lose its permanence.
	Probe(neighKey) error

	// Verify makes the kernel ask a usable neighbour at once, and give it up
	// if there is no answer, even if it would trust it for longer. Like
	// Probe, it must not be called for a permanent entry.
	Verify(neighbour) error

	// Receive waits for changes. All that happened since the kernel was
	// opened is reported, until it returns an error, which is final: the
	// socket is closed, or notifications were lost.
	Receive() ([]event, error)

	// Close frees the sockets and ends a Receive. It may be called twice.
	Close()
}

// link is a network interface.
type link struct {
	index    int
	name     string
	mac      MAC
	mtu      int
	up       bool // switched on, and with carrier
	ethernet bool

	vlan   uint16 // 802.1Q VLAN ID; 0 if it is no VLAN interface
	parent int    // of a VLAN interface: what it is on; 0 if that cannot be used
}

// ownAddress is an address of the machine itself, with the length of the prefix
// that is on the link.
type ownAddress struct {
	prefix  netip.Prefix
	ifindex int
}

// neighKey names an entry of the neighbour table.
type neighKey struct {
	ifindex int
	addr    netip.Addr
}

// neighbour is an entry of the neighbour table.
type neighbour struct {
	neighKey
	mac    MAC
	fact   fact
	router bool // it says that it is one, RFC 4861 section 7.2.5
}

// fact is what the kernel knows about a neighbour: the states of its Neighbour
// Unreachability Detection (linux/neighbour.h, RFC 4861 section 7.3.2), put
// together by what they mean to somebody who forwards.
type fact uint8

const (
	unknown fact = iota // NONE, INCOMPLETE, or no entry: there is no MAC yet
	fresh               // REACHABLE, or DELAY and PROBE: good, or being verified
	stale               // STALE: good, and nobody is going to verify it
	failed              // FAILED: did not answer
	fixed               // PERMANENT, NOARP: good for ever
)

// usable says whether the entry's MAC can be sent to.
func (f fact) usable() bool { return f == fresh || f == stale || f == fixed }

// route is the kernel's answer to one lookup.
type route struct {
	kind    int // RTN_UNICAST and so on, linux/rtnetlink.h
	ifindex int
	gateway netip.Addr // invalid when the destination is on the link; may be of the other family
	source  netip.Addr
	mtu     int  // 0 if the route does not set one
	encap   bool // the route puts packets into something (MPLS, SRv6)
}

// event is one change. Exactly one of the groups of fields is meaningful.
type event struct {
	kind      eventKind
	link      link         // linkChanged; of linkGone, only the index
	neighbour neighbour    // neighbourChanged; one that is gone is unknown
	prefix    netip.Prefix // routeChanged: the destinations it may concern
}

type eventKind uint8

const (
	linkChanged eventKind = iota
	linkGone
	neighbourChanged
	routeChanged
	anyRouteChanged // an address, a rule, a nexthop object: any lookup may differ now, and the own addresses
)
