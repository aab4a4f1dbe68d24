package snapshot

// backward tells most packets that go to a service from those that may go back to
// a client: by the destination, which is a SNAT address, or where the client's
// address is left as it is, by the source, which is a backend. Each is a Bloom
// filter of one hash (Bloom, Space/Time Trade-offs in Hash Coding with Allowable
// Errors, 1970), of a few cache lines.
type backward struct{ snat, backends addressFilter }

// addBackward shares the filters of the snapshot before, if they are still right.
func (s *Snapshot) addBackward(before *Snapshot) {
	if before != nil && s.keepers == before.keepers && same(s.vips.snat, before.vips.snat) {
		s.backward = before.backward
		return
	}
	s.backward = newBackward(s)
}

// newBackward returns the filters of a snapshot, or nil without NAT.
func newBackward(s *Snapshot) *backward {
	if s.keepers.empty() && len(s.SNAT4)+len(s.SNAT6) == 0 {
		return nil
	}
	b := new(backward)
	for _, addrs := range [][]SNAT{s.SNAT4, s.SNAT6} {
		for i := range addrs {
			b.snat.add(&addrs[i].Addr)
		}
	}
	for i := range s.keepers.heads {
		if h := &s.keepers.heads[i]; h.slot != 0 {
			b.backends.add(&h.addr)
		}
	}
	return b
}

func (b *backward) may(src, dst *[16]byte) bool {
	return b.snat.mayHave(dst) || b.backends.mayHave(src)
}

const filterBits = 1 << 13

type addressFilter [filterBits / 64]uint64

func (f *addressFilter) add(addr *[16]byte) {
	bit := hashAddr(addr) % filterBits
	f[bit/64] |= 1 << (bit % 64)
}

func (f *addressFilter) mayHave(addr *[16]byte) bool {
	bit := hashAddr(addr) % filterBits
	return f[bit/64]>>(bit%64)&1 != 0
}
