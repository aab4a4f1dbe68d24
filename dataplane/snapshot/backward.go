package snapshot

// backward tells most packets that go to a service from those that may go back to
// a client, by the destination alone and from a few cache lines: a Bloom filter
// of one hash (Bloom, Space/Time Trade-offs in Hash Coding with Allowable Errors,
// 1970).
type backward [backwardBits / 64]uint64

const backwardBits = 1 << 14

// newBackward returns the filter of a snapshot, or nil if there is nothing in it.
func newBackward(s *Snapshot) *backward {
	if s.HasAnswers() {
		b := new(backward) // they go to clients, which may have any address
		for i := range b {
			b[i] = ^uint64(0)
		}
		return b
	}
	if len(s.SNAT4)+len(s.SNAT6) == 0 {
		return nil
	}
	b := new(backward)
	for _, addrs := range [][]SNAT{s.SNAT4, s.SNAT6} {
		for i := range addrs {
			bit := hashAddr(&addrs[i].Addr) % backwardBits
			b[bit/64] |= 1 << (bit % 64)
		}
	}
	return b
}

func (b *backward) may(addr *[16]byte) bool {
	bit := hashAddr(addr) % backwardBits
	return b[bit/64]>>(bit%64)&1 != 0
}
