package acl

import (
	"cmp"
	"net/netip"
)

// span is the addresses of a prefix, from first to last.
type span struct {
	first, last address
	allow       bool
}

// spanOf returns the span of a prefix, where IPv4 is IPv4-mapped.
func spanOf(p netip.Prefix, allow bool) span {
	length, as16 := p.Bits(), p.Addr().As16()
	if p.Addr().Is4() {
		length += 96
	}
	// Shifts by 64 leave nothing.
	first, host := addressOf(&as16), address{^uint64(0) >> min(length, 64), ^uint64(0) >> max(length-64, 0)}
	return span{
		first: address{first.hi &^ host.hi, first.lo &^ host.lo},
		last:  address{first.hi | host.hi, first.lo | host.lo},
		allow: allow,
	}
}

func (a address) compare(b address) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
}

// next returns the address after a; ok is false after the last one.
func (a address) next() (n address, ok bool) {
	n = address{a.hi, a.lo + 1}
	if n.lo == 0 {
		n.hi++
	}
	return n, n != address{}
}

// builder goes through all addresses once, from the first to the last.
type builder struct {
	edges   []address
	outside bool
	open    []span // those that the current address is in, each inside the one before
}

// edge notes that from at on the answer is allow. A later answer for the same
// address replaces it, and what changes nothing leaves no edge.
func (b *builder) edge(at address, allow bool) {
	if n := len(b.edges); n > 0 && b.edges[n-1] == at {
		b.edges = b.edges[:n-1]
	}
	if before := b.outside != (len(b.edges)&1 == 1); before != allow {
		b.edges = append(b.edges, at)
	}
}

// close ends the innermost open span: what is around it counts again.
func (b *builder) close() {
	n := len(b.open) - 1
	at, ok := b.open[n].last.next()
	b.open = b.open[:n]
	if !ok {
		return
	}
	if n == 0 {
		b.edge(at, b.outside)
	} else {
		b.edge(at, b.open[n-1].allow)
	}
}

// closeBefore ends the spans that do not reach at.
func (b *builder) closeBefore(at address) {
	for n := len(b.open); n > 0 && b.open[n-1].last.compare(at) < 0; n-- {
		b.close()
	}
}

// closeAll ends all spans.
func (b *builder) closeAll() {
	for len(b.open) > 0 {
		b.close()
	}
}
