package config

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// Pool is addresses that services can get.
type Pool struct {
	Name          string // unique; [a-z0-9-], at most 63 bytes
	Ranges        []Range
	Announce      []Announce        // how the network is told of its addresses; default AnnounceL2; empty: not at all
	AutoAssign    bool              // services that name no pool may get an address of this one; default true
	AvoidBuggyIPs bool              // IPv4 addresses that end in .0 or .255 are not given away
	Priority      int               // lower ones first, 0 last; 0..1000000
	Selector      map[string]string // labels that a service has to have for AutoAssign; empty: none
	L2            PoolL2
	BGP           PoolBGP
}

// PoolL2 is how the addresses of a pool are announced with AnnounceL2.
type PoolL2 struct {
	Interfaces []string // on these only; empty: on all
	AllActive  bool     // the node that answers for an address spreads new flows over all nodes
}

// PoolBGP is how the addresses of a pool are announced with AnnounceBGP.
type PoolBGP struct {
	Communities  []string // canonical: "65000:100" (RFC 1997) or "65000:1:2" (RFC 8092)
	LocalPref    *uint32  // nil: none; to internal peers only
	MED          *uint32  // nil: none
	Aggregation  int      // length of the IPv4 prefix that is announced, 1..32; default 32
	Aggregation6 int      // the same of IPv6, 1..128; default 128
	Peers        []string // names; empty: all
}

// Announce is a way to tell the network where an address is.
type Announce string

// The ways.
const (
	AnnounceL2  Announce = "l2"  // ARP and NDP
	AnnounceBGP Announce = "bgp" // routes, RFC 4271
)

// Family is an IP version.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// FamilyOf returns the family of a valid address that is not IPv4-mapped.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Range is addresses of one family, From and To included; a prefix is one, with
// all of its addresses.
type Range struct{ From, To netip.Addr }

// Contains says whether a is one of the addresses of r.
func (r Range) Contains(a netip.Addr) bool {
	return r.From.IsValid() && r.From.BitLen() == a.BitLen() && !a.Less(r.From) && !r.To.Less(a)
}

// String returns r as a configuration could have it: an address, a prefix, or
// FIRST-LAST.
func (r Range) String() string {
	if !r.From.IsValid() || r.From == r.To {
		return r.From.String()
	}
	if p := netip.PrefixFrom(r.From, common(r.From, r.To)); p.Masked() == p && last(p) == r.To {
		return p.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// common returns how many leading bits a and b, of one family, have in common.
func common(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	n := bits.LeadingZeros64(binary.BigEndian.Uint64(x[:8]) ^ binary.BigEndian.Uint64(y[:8]))
	if n == 64 {
		n += bits.LeadingZeros64(binary.BigEndian.Uint64(x[8:]) ^ binary.BigEndian.Uint64(y[8:]))
	}
	return n - (128 - a.BitLen())
}

// PoolOf returns the pool that a is in, or nil if it is in none.
func (c *Config) PoolOf(a netip.Addr) *Pool {
	for i := range c.Pools {
		if slices.ContainsFunc(c.Pools[i].Ranges, func(r Range) bool { return r.Contains(a) }) {
			return &c.Pools[i]
		}
	}
	return nil
}

// selects says whether a service with these labels gets addresses of p without
// naming it.
func (p *Pool) selects(labels map[string]string) bool {
	if !p.AutoAssign {
		return false
	}
	for k, want := range p.Selector {
		if got, ok := labels[k]; !ok || got != want {
			return false
		}
	}
	return true
}

// offers says whether p has an address of a family that it may give away.
func (p *Pool) offers(f Family) bool {
	return slices.ContainsFunc(p.Ranges, func(r Range) bool {
		switch {
		case !r.From.IsValid() || FamilyOf(r.From) != f:
			return false
		case !p.AvoidBuggyIPs || !buggy(r.From) || !buggy(r.To):
			return true
		}
		// Of three in a row, .255 and .0 can be two.
		next := r.From.Next()
		return next != r.To && r.From != r.To
	})
}

// buggy says whether a is an address that AvoidBuggyIPs avoids.
func buggy(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	b := a.As4()[3]
	return b == 0 || b == 255
}
