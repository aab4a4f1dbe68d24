// Package acl says whether a source address may use a service.
//
// The problem it solves: an access list is written as prefixes inside each
// other, where the longest that matches decides, and may well have a hundred
// thousand of them; but it is asked for each new flow. So the nesting is
// resolved once, when the list is built: what is left are the addresses at
// which the answer changes, in order, and a question is one binary search.
package acl

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// List is an access list. It never changes, so any number of goroutines may
// ask it. The nil List lets everybody in.
type List struct {
	// edges are the addresses at which the answer changes, in ascending order.
	// Before the first one it is outside.
	edges   []address
	outside bool
}

// address is a 128-bit address as a number. IPv4 addresses are IPv4-mapped (RFC
// 4291 section 2.5.5.2), as everywhere in the dataplane.
type address struct{ hi, lo uint64 }

func addressOf(a *[16]byte) address {
	return address{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// notBefore returns all ones if a >= b, else 0: a mask, so that the search needs
// no branch that the processor would guess wrong half of the time.
func (a address) notBefore(b address) int {
	_, borrow := bits.Sub64(a.lo, b.lo, 0)
	_, borrow = bits.Sub64(a.hi, b.hi, borrow)
	return int(borrow) - 1
}

// Allows reports whether a source address may pass. IPv4 addresses are
// IPv4-mapped.
func (l *List) Allows(addr *[16]byte) bool {
	if l == nil {
		return true
	}
	at := addressOf(addr)
	// passed is how many edges are known to be at or before the address; the
	// last one that is, if there are more, is among the n after them.
	passed, n := 0, len(l.edges)
	for n > 0 {
		half := (n + 1) / 2
		passed += half & at.notBefore(l.edges[passed+half-1])
		n -= half
	}
	return l.outside != (passed&1 == 1)
}

// New returns the list of these prefixes. The longest prefix that an address is
// in decides; if the same one is in both, it denies. An address in none is
// allowed if there is nothing in allow, else denied. Without any prefix the
// list is nil.
//
// IPv6 prefixes say nothing about IPv4 addresses, ::/0 included. A prefix of
// IPv4-mapped addresses is one of IPv4. All prefixes must be valid; bits beyond
// their length do not count.
func New(allow, deny []netip.Prefix) *List {
	if len(allow)+len(deny) == 0 {
		return nil
	}
	b := builder{outside: len(allow) == 0}
	spans := make([]span, 0, 1+len(allow)+len(deny))
	// IPv4 as a whole hides the IPv6 prefixes it is in.
	spans = append(spans, spanOf(netip.MustParsePrefix("0.0.0.0/0"), b.outside))
	for _, p := range allow {
		spans = append(spans, spanOf(p, true))
	}
	for _, p := range deny {
		spans = append(spans, spanOf(p, false))
	}
	// Outer ones before inner ones; of equal ones, the last wins.
	slices.SortStableFunc(spans, func(x, y span) int {
		return cmp.Or(x.first.compare(y.first), y.last.compare(x.last))
	})
	for _, s := range spans {
		b.closeBefore(s.first)
		b.open = append(b.open, s)
		b.edge(s.first, s.allow)
	}
	b.closeAll()
	return &List{edges: slices.Clip(b.edges), outside: b.outside}
}
