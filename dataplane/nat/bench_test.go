package nat

import (
	"fmt"
	"testing"
)

// spread has 2^16 hashes to go through in turn.
func spread(seed uint64) []uint64 {
	hashes, rng := make([]uint64, 1<<16), random(seed)
	for i := range hashes {
		hashes[i] = rng.Uint64()
	}
	return hashes
}

func BenchmarkOwner(b *testing.B) {
	for _, slots := range []int{1, MaxAddresses} {
		b.Run(fmt.Sprintf("addresses=%d", slots), func(b *testing.B) {
			space, hashes := newSpace(b, slots), spread(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h := hashes[i%len(hashes)]
				space.Owner(uint16(h>>32*uint64(slots)>>32), uint16(h))
			}
		})
	}
}

// BenchmarkClaim is a claim and its release, and one that finds all 1008 blocks
// taken.
func BenchmarkClaim(b *testing.B) {
	b.Run("free", func(b *testing.B) {
		space := newSpace(b, 1)
		for b.Loop() {
			block, _ := space.Claim(0, 1, 1024, 65535, 500)
			space.Release(0, block)
		}
	})
	b.Run("none", func(b *testing.B) {
		space := newSpace(b, 1)
		for range blocksPerAddress {
			space.Claim(0, 1, 1024, 65535, 16)
		}
		for b.Loop() {
			space.Claim(0, 1, 1024, 65535, 500)
		}
	})
}

// BenchmarkPorts is a worker that owns this many blocks of an address.
func BenchmarkPorts(b *testing.B) {
	for _, blocks := range []int{1, 32, 1008} {
		r := Range{0, 1024, uint16(1024 + blocks*BlockPorts - 1)}
		p, hashes := NewPorts(newSpace(b, 1), 0), spread(2)
		taken := map[uint16]bool{}
		for i := 0; i < 4*len(hashes); i++ {
			place(p, r, hashes[i%len(hashes)]+uint64(i), used(taken))
		}
		if n, _ := p.InUse(); n != blocks {
			b.Fatalf("%d blocks, want %d", n, blocks)
		}
		name := func(s string) string { return fmt.Sprintf("blocks=%d/%s", blocks, s) }
		b.Run(name("search-next"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var s Search
				p.Begin(&s, 0, hashes[i%len(hashes)])
				p.Next(&s)
			}
		})
		b.Run(name("128-candidates"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				var s Search
				p.Begin(&s, 0, hashes[i%len(hashes)])
				for _, ok := p.Next(&s); ok; {
					_, ok = p.Next(&s)
				}
			}
		})
		b.Run(name("take-free"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				port := r.Lo + uint16(hashes[i%len(hashes)]%uint64(blocks*BlockPorts))
				p.Take(0, port)
				p.Free(0, port)
			}
		})
	}
}

func BenchmarkIndex(b *testing.B) {
	for _, entries := range []int{1 << 10, 1 << 20} {
		x := NewIndex(2 * entries) // a quarter full, as in a flow table half full
		hashes, absent := make([]uint64, entries), spread(4)
		rng := random(3)
		for i := range hashes {
			hashes[i] = rng.Uint64()
			x.Insert(hashes[i], uint32(i))
		}
		name := func(s string) string { return fmt.Sprintf("entries=%d/%s", entries, s) }
		b.Run(name("hit"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Lookup(hashes[i%len(hashes)], 0)
			}
		})
		b.Run(name("hit-prefetched"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := i % len(hashes)
				if at%64 == 0 {
					x.Ahead(hashes[at : at+64])
				}
				x.Lookup(hashes[at], 0)
			}
		})
		b.Run(name("miss"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Lookup(absent[i%len(absent)], 0)
			}
		})
		b.Run(name("insert-remove"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Insert(absent[i%len(absent)], 1)
				x.Remove(absent[i%len(absent)], 1)
			}
		})
	}
}

func BenchmarkStations(b *testing.B) {
	for _, n := range []int{2, 60000} {
		s := NewStations()
		for i := range n {
			intern(b, s, station(i))
		}
		other := station(n)
		name := func(what string) string { return fmt.Sprintf("stations=%d/%s", n, what) }
		b.Run(name("sends"), func(b *testing.B) {
			b.ReportAllocs()
			frames := make([][]byte, n)
			for i := range frames {
				frames[i] = frameOf(s.At(uint16(i)))
			}
			for i := 0; b.Loop(); i++ {
				st := s.At(uint16(i % n))
				s.Sends(uint16(i%n), SourceOf(frames[i%n]), st.VLAN, st.Tagged, st.Interface)
			}
		})
		b.Run(name("intern-release-known"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				st := station(i * 7919 % n)
				id, _ := s.Intern(&st)
				s.Release(id)
			}
		})
		b.Run(name("intern-release-new"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				id, _ := s.Intern(&other)
				s.Release(id)
			}
		})
	}
}
