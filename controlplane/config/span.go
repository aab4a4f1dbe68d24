package config

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// span is addresses of one family that follow each other: a prefix, a range or
// a single address. Its zero value is none.
type span struct {
	text   string // as written
	lo, hi netip.Addr

	// Of SNAT addresses: where they stand, and whose they are; without a name,
	// they are this node's.
	path, node string
}

const wantSpan = `a prefix, a range or an address, as 10.0.0.240/30, 10.0.0.240-10.0.0.243 or (always in quotes) "fd00::f0/126"`

func parseSpan(text string) (span, string) {
	if strings.Contains(text, "/") {
		p, problem := parsePrefix(text)
		if problem != "" {
			return span{}, problem
		}
		return span{text: text, lo: p.Addr(), hi: last(p)}, ""
	}
	first, end, isRange := strings.Cut(text, "-")
	if !isRange {
		end = first
	}
	lo, err := netip.ParseAddr(first)
	hi, err2 := netip.ParseAddr(end)
	switch {
	case err != nil || err2 != nil || lo.Zone() != "" || hi.Zone() != "":
		return span{}, fmt.Sprintf("%s is not %s", quote(text), wantSpan)
	case lo.BitLen() != hi.BitLen():
		return span{}, fmt.Sprintf("%s is a range from one address family to the other; want both ends of one", quote(text))
	case hi.Less(lo):
		return span{}, fmt.Sprintf("%s ends before it begins; want %s-%s", quote(text), hi, lo)
	}
	return span{text: text, lo: lo, hi: hi}, ""
}

// size returns how many addresses s has, or MaxSNAT+1 if it has more than that.
func (s span) size() int {
	if !s.lo.IsValid() {
		return 0
	}
	lo, hi := s.lo.As16(), s.hi.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(hi[8:]), binary.BigEndian.Uint64(lo[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(hi[:8]), binary.BigEndian.Uint64(lo[:8]), borrow)
	if high > 0 || low >= MaxSNAT {
		return MaxSNAT + 1
	}
	return int(low) + 1
}

// all yields the addresses of s in order, or none if they are more than MaxSNAT.
func (s span) all() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		n := s.size()
		if n > MaxSNAT {
			return
		}
		for a := s.lo; n > 0 && yield(a); n-- {
			a = a.Next()
		}
	}
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	b := a.AsSlice()
	for bit := p.Bits(); bit < a.BitLen(); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(b)
	return end
}

// maxAllSNAT is how many SNAT addresses all nodes together can have.
const maxAllSNAT = 16 * MaxSNAT

// ours says whether the SNAT addresses s are this node's.
func (c *Config) ours(s span) bool { return s.node == "" || s.node == c.Node }

// tooManySNAT says whether the file has more SNAT addresses than are looked at.
func (c *Config) tooManySNAT() bool {
	all, of := 0, make(map[string]int)
	for _, s := range c.snat {
		all += s.size()
		of[s.node] += s.size()
		if all > maxAllSNAT || of[s.node]+len(c.NAT.Shared.Addresses) > MaxSNAT {
			return true
		}
	}
	return len(c.NAT.Shared.Addresses) > MaxSNAT
}

// expandSNAT fills in NAT.Addresses, unless they are too many.
func (c *Config) expandSNAT() {
	if c.tooManySNAT() {
		return
	}
	for _, s := range c.snat {
		if c.ours(s) {
			c.NAT.Addresses = slices.AppendSeq(c.NAT.Addresses, s.all())
		}
	}
}
