// Package ipam gives services addresses from pools.
//
// The problem it solves: whoever adds a service does not want to look for a free
// address, and must not find out later that two services got the same one, that
// a restart has moved a VIP that clients have in their caches, or that a second
// node has decided differently. So Allocate is a function of the pools, of what
// services ask for and of what they have, and of nothing else: not of the order
// in the file, not of the time, not of the node. It keeps no state, opens no
// file and knows no network; Store keeps the result over a restart, and Merge
// makes one of what several nodes have.
//
// # Who gets what
//
// The rules are those that people know from MetalLB's pools:
//
//   - A service that lists its addresses has these, be they in a pool or not.
//     They are taken before any other is given.
//   - A service that names a pool gets an address of each of its families there.
//   - Any other gets them from the pools with AutoAssign whose Selector its labels
//     match: the lowest Priority first, 0 last; among equals those with a Selector
//     first, then by name. All of its families come from one pool if any pool has
//     them all, else each from the first that has it.
//
// What a service has it keeps, while it asks for the pool that the address is in
// or that pool may give it one by itself. Only then are new addresses given. A
// pool may change its name, or be split, and nothing moves. AvoidBuggy is about
// new addresses: one in use is kept.
//
// # Sharing
//
// Services with the same Share key and no port in common get one address. Of those
// that have a port in common, all but one get another: a key says that services
// may share, not that they must. Listed addresses need no key, as whoever lists
// one twice means it, but a port that two services have there is an error. A
// service with a key joins a listed address only if that service has the key, too,
// and the address is in a pool that it might get one from.
//
// # Which address
//
// A service without an address prefers the one at position H mod N of the N
// addresses of the pool and family, in ascending order and without regard to how
// ranges are written; H is the first 16 bytes, big-endian, of the SHA-256 of
//
//	pool name, 0, "service", 0, service name     or     pool name, 0, "share", 0, share key
//
// This must never change, or nodes of different versions would differ. First,
// every service whose preferred address is free gets it; if several prefer the
// same, the first by name. Then the others get the next free one, in the order of
// their names, and after the last address of the pool comes the first. So a file
// gives the same addresses on every node and after the loss of all state, and a
// service more or less moves another only where two prefer the same address.
//
// # Clusters
//
// Each node publishes its Allocations, takes of the others' what is Valid here,
// and allocates again with its own and theirs together, as they are or merged: as
// they are is better, since a service that loses one keeps another that it has.
// What comes of it is a function of that set, so all nodes come to the same. Of
// two services that have got one address at both ends of a partition, the one that
// has it for longer keeps it. A node that starts does well to hear the others
// before it gives addresses.
package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Family is a version of the internet protocol.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns IPv4 or IPv6.
func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Range is the addresses From to To, both included, of one family.
type Range struct{ From, To netip.Addr }

// String returns the range as FROM-TO, and a single address as that.
func (r Range) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + "-" + r.To.String()
}

func (r Range) has(a netip.Addr) bool { return !a.Less(r.From) && !r.To.Less(a) }

// Pool is addresses to give to services.
type Pool struct {
	Name       string
	Ranges     []Range // those of one pool may touch and overlap
	AutoAssign bool    // services that name no pool may get an address here
	AvoidBuggy bool    // give no IPv4 address that ends in .0 or .255
	Priority   int     // among pools that might give an address; lower first, 0 last

	// Selector is the labels that a service needs to get an address by
	// AutoAssign; it is nothing to one that names the pool.
	Selector map[string]string
}

// Port is a protocol, by its IANA number, and a range of its ports.
type Port struct {
	Proto  uint8
	Lo, Hi uint16 // both included
}

// String returns the port as the configuration has it.
func (p Port) String() string {
	name := strconv.Itoa(int(p.Proto))
	switch p.Proto {
	case 6:
		name = "tcp"
	case 17:
		name = "udp"
	}
	if p.Lo == p.Hi {
		return fmt.Sprintf("%s/%d", name, p.Lo)
	}
	return fmt.Sprintf("%s/%d-%d", name, p.Lo, p.Hi)
}

// Request is what a service asks for.
type Request struct {
	Service   string       // unique
	Addresses []netip.Addr // that it lists; if there are any, nothing is allocated
	Pool      string       // that it names; empty: any that gives addresses by itself
	Families  []Family     // of which it needs an address each
	Labels    map[string]string
	Share     string // key of services that may have one address; empty: none
	Ports     []Port
}

func (r *Request) explicit() bool { return len(r.Addresses) > 0 }

// Allocation is an address that was given to a service.
type Allocation struct {
	Service string     `json:"service"`
	Pool    string     `json:"pool"`
	Address netip.Addr `json:"address"`
	Since   time.Time  `json:"since"` // UTC
}

// Result is who has which addresses.
type Result struct {
	Allocations []Allocation            // of services that list no addresses; by service, IPv4 first
	Addresses   map[string][]netip.Addr // of every service that has any, listed ones as they are listed
	Usage       []Usage                 // by name of the pool
	Moved       []Move                  // by service, IPv4 first
}

// Move is an allocation that a service had and could not keep, though it still
// asks for an address of this family.
type Move struct {
	Service string
	From    Allocation
	To      netip.Addr // not valid if there is no other
	Reason  string
}

// byServiceAndFamily is the order of lists.
func byServiceAndFamily(a, b Allocation) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(FamilyOf(a.Address), FamilyOf(b.Address)))
}
