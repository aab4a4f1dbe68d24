package fragment

import "math/bits"

const (
	unit        = 8      // what fragment offsets count, in bytes (RFC 791 section 3.1)
	maxDatagram = 0xffff // no fragment may end behind it
)

// seen marks which units of a datagram have come: 1 KiB for the largest.
type seen [(maxDatagram + 1) / unit / 64]uint64

// count returns how many of the units from to end-1, at least one, have come.
func (s *seen) count(from, end int) (n int) {
	for w := from / 64; w <= (end-1)/64; w++ {
		n += bits.OnesCount64(s[w] & mask(w, from, end))
	}
	return n
}

// mark notes that the units from to end-1, at least one, have come.
func (s *seen) mark(from, end int) {
	for w := from / 64; w <= (end-1)/64; w++ {
		s[w] |= mask(w, from, end)
	}
}

// mask returns the bits of word w that stand for units from to end-1.
func mask(w, from, end int) uint64 {
	m := ^uint64(0)
	if w == from/64 {
		m <<= from % 64
	}
	if w == (end-1)/64 {
		m &= ^uint64(0) >> (63 - (end-1)%64)
	}
	return m
}
