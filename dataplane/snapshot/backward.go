package snapshot

import "math/bits"

// backward tells most packets that go to a service from those that may go back to
// a client: by the destination, which is a SNAT address, or where the client's
// address is left as it is, by the source, which is a backend. Each is a Bloom
// filter of one hash (Bloom, Space/Time Trade-offs in Hash Coding with Allowable
// Errors, 1970), of a few cache lines where there are few addresses. Whom it takes for
// one that goes back costs a look-up more, and nothing else.
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
	b := &backward{
		snat:     newAddressFilter(len(s.SNAT4) + len(s.SNAT6)),
		backends: newAddressFilter(len(s.keepers.heads)),
	}
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

// An addressFilter has 16 bits at least for each address, so that it takes one of 16
// others for one of them at most; and as many as make one of a few useful.
const (
	filterBitsEach  = 16
	filterBitsLeast = 1 << 13
)

type addressFilter []uint64 // a power of two of them

func newAddressFilter(addresses int) addressFilter {
	return make(addressFilter, max(filterBitsLeast, 1<<bits.Len(uint(filterBitsEach*addresses)))/64)
}

func (f addressFilter) add(addr *[16]byte) {
	word, bit := f.place(addr)
	f[word] |= bit
}

func (f addressFilter) mayHave(addr *[16]byte) bool {
	word, bit := f.place(addr)
	return f[word]&bit != 0
}

func (f addressFilter) place(addr *[16]byte) (word, bit uint64) {
	hash := hashAddr(addr)
	return hash >> 6 & uint64(len(f)-1), 1 << (hash & 63)
}
