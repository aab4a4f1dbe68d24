// Package nexthop answers, for each backend address, the question weir has to
// put to the kernel because its own frames never pass there: out of which
// interface, with which tag, from and to which MAC.
//
// The kernel's routing and neighbour tables are the only truth; nothing here
// decides about a route. The difficulty is to notice. Answers change when a
// cable is pulled, a route moves, or a server fails over with a gratuitous
// ARP; and a neighbour entry that carries no kernel traffic is never confirmed
// by anyone, so a server that vanished would stay "known" for ever. A Tracker
// follows the kernel's notifications, keeps asking it to probe, and polls the
// neighbours in use itself, so that the kernel hears of a change within a second.
package nexthop

import (
	"fmt"
	"net/netip"
)

// State says whether frames can be sent to a backend.
type State uint8

const (
	Unresolved  State = iota // the kernel has been asked to find the MAC; no answer yet
	Resolved                 // the Hop is complete and may be used
	Unreachable              // there is no way; Hop.Reason says why
)

// String returns the state as one lower-case word.
func (s State) String() string {
	switch s {
	case Unresolved:
		return "unresolved"
	case Resolved:
		return "resolved"
	case Unreachable:
		return "unreachable"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MAC is an Ethernet address. Being an array, it compares with ==.
type MAC [6]byte

// String returns the address as "02:00:00:00:00:01".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Hop is how to reach one backend. It is a plain value: two hops are the same
// exactly when they compare equal with ==. Only a Resolved hop has a DstMAC;
// the other fields are filled in as far as they are known.
type Hop struct {
	Addr   netip.Addr // the backend
	State  State
	Reason string // why it is not Resolved, in words; empty when it is
	Silent bool   // it is Unreachable because it, or its gateway, does not answer ARP or NDP

	Ifindex   int    // the interface frames leave by: of a VLAN interface, the parent
	Interface string // its name
	VLAN      uint16 // 802.1Q VLAN ID to tag frames with; 0 for untagged
	SrcMAC    MAC    // of the route's interface
	DstMAC    MAC    // of the backend, or of Gateway if there is one

	Gateway netip.Addr // next router, without zone; invalid when the backend is on the link
	Source  netip.Addr // the kernel's preferred source address towards the backend
	MTU     int        // in bytes of IP packet: the route's if it sets one, else the link's
}

// Address is one of the machine's own addresses.
type Address struct {
	Prefix    netip.Prefix // the address itself, not masked, and the prefix that is on the link
	Interface string       // that has it: of a VLAN interface, the parent; empty if that is not known
}
