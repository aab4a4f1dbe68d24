package flow

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"weir/dataplane/packet"
)

func tuple4(src, dst uint32, sport, dport uint16, proto uint8) packet.Tuple {
	var s, d [4]byte
	binary.BigEndian.PutUint32(s[:], src)
	binary.BigEndian.PutUint32(d[:], dst)
	return packet.Tuple{Src: packet.Mapped(s), Dst: packet.Mapped(d), SrcPort: sport, DstPort: dport, Proto: proto}
}

const (
	testClient = 0xc6336401 // 198.51.100.1
	testVIP    = 0xcb00710a // 203.0.113.10
)

// testHashes are the hashes under test: the one that picks backends, and that
// of a few tables.
func testHashes() map[string]func(*packet.Tuple) uint64 {
	r := rand.New(rand.NewPCG(3, 4))
	hashes := map[string]func(*packet.Tuple) uint64{"stable": HashStable}
	for _, name := range []string{"table 1", "table 2", "table 3"} {
		var table Table
		for i := range table.keys {
			table.keys[i] = r.Uint64()
		}
		hashes[name] = table.Hash
	}
	return hashes
}

// flipBit flips bit n of the 37 bytes of a tuple.
func flipBit(k packet.Tuple, n int) packet.Tuple {
	switch bit := byte(1) << (n % 8); {
	case n < 128:
		k.Src[n/8] ^= bit
	case n < 256:
		k.Dst[n/8-16] ^= bit
	case n < 272:
		k.SrcPort ^= 1 << (n - 256)
	case n < 288:
		k.DstPort ^= 1 << (n - 272)
	default:
		k.Proto ^= 1 << (n - 288)
	}
	return k
}

// Every bit of the input changes every bit of the hash in half of all cases.
func TestHashAvalanche(t *testing.T) {
	const (
		inputs  = 296
		samples = 2048
		margin  = 0.08 // more than seven standard deviations
	)
	r := rand.New(rand.NewPCG(5, 6))
	for name, hash := range testHashes() {
		for _, structured := range []bool{true, false} {
			var flips [inputs][64]int
			for n := range samples {
				k := tuple4(testClient, testVIP, uint16(1024+n), 80, packet.ProtoTCP)
				if !structured {
					for i := range 16 {
						k.Src[i], k.Dst[i] = byte(r.Uint32()), byte(r.Uint32())
					}
					k.SrcPort, k.DstPort, k.Proto = uint16(r.Uint32()), uint16(r.Uint32()), byte(r.Uint32())
				}
				h := hash(&k)
				for in := range inputs {
					other := flipBit(k, in)
					diff := h ^ hash(&other)
					for out := range 64 {
						flips[in][out] += int(diff >> out & 1)
					}
				}
			}
			for in := range inputs {
				for out := range 64 {
					if p := float64(flips[in][out]) / samples; math.Abs(p-0.5) > margin {
						t.Fatalf("%s, structured %v: input bit %d changes output bit %d in %.2f of all cases", name, structured, in, out, p)
					}
				}
			}
		}
	}
}

// patterns are tuples as real traffic has them: close to each other.
func patterns() map[string]func(i uint32) packet.Tuple {
	return map[string]func(i uint32) packet.Tuple{
		"source ports": func(i uint32) packet.Tuple {
			return tuple4(testClient+i>>16, testVIP, uint16(i), 80, packet.ProtoTCP)
		},
		"source ports, even ones": func(i uint32) packet.Tuple {
			return tuple4(testClient+i>>15, testVIP, uint16(i)<<1, 443, packet.ProtoTCP)
		},
		"IPv4 sources": func(i uint32) packet.Tuple {
			return tuple4(testClient+i, testVIP, 12345, 80, packet.ProtoTCP)
		},
		"IPv4 networks": func(i uint32) packet.Tuple {
			return tuple4(1+i<<8, testVIP, 12345, 80, packet.ProtoTCP)
		},
		"IPv6 hosts": func(i uint32) packet.Tuple {
			k := packet.Tuple{Src: [16]byte{0x20, 1, 0xd, 0xb8}, Dst: [16]byte{0x20, 1, 0xd, 0xb8, 1}, SrcPort: 12345, DstPort: 80, Proto: packet.ProtoTCP}
			binary.BigEndian.PutUint32(k.Src[12:], i)
			return k
		},
		"IPv6 networks": func(i uint32) packet.Tuple {
			k := packet.Tuple{Src: [16]byte{0x20, 1, 0xd, 0xb8}, Dst: [16]byte{0x20, 1, 0xd, 0xb8, 1}, SrcPort: 12345, DstPort: 80, Proto: packet.ProtoUDP}
			binary.BigEndian.PutUint32(k.Src[3:], i)
			return k
		},
	}
}

// hashAll returns the hashes of the first samples tuples of a pattern.
func hashAll(tuple func(i uint32) packet.Tuple, hash func(*packet.Tuple) uint64) []uint64 {
	hashes := make([]uint64, 1<<17)
	for i := range hashes {
		k := tuple(uint32(i))
		hashes[i] = hash(&k)
	}
	return hashes
}

// place is a use of a hash.
type place struct {
	name    string
	buckets int
	of      func(hash uint64) uint64
}

func places() []place {
	return []place{
		{"64 sets", 64, func(h uint64) uint64 { return h & 63 }},
		{"16384 sets", 16384, func(h uint64) uint64 { return h & 16383 }},
		{"tags", 32768, func(h uint64) uint64 { return tagOf(h) &^ (1 << 15) }},
		{"251 slots", 251, func(h uint64) uint64 { return h % 251 }},
		{"65537 slots", 65537, func(h uint64) uint64 { return h % 65537 }},
		{"655373 slots", 655373, func(h uint64) uint64 { return h % 655373 }},
	}
}

// spread returns how far the number of hashes per bucket is from chance, in
// standard deviations: above 0 too uneven, below 0 too even. The sum of squares
// is chi-squared distributed.
func (p *place) spread(hashes []uint64) float64 {
	counts := make([]uint32, p.buckets)
	for _, h := range hashes {
		counts[p.of(h)]++
	}
	mean, chi := float64(len(hashes))/float64(p.buckets), 0.0
	for _, n := range counts {
		chi += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	freedom := float64(p.buckets - 1)
	return (chi - freedom) / math.Sqrt(2*freedom)
}

const spreadLimit = 6.0

func TestHashSpread(t *testing.T) {
	for name, hash := range testHashes() {
		for pattern, tuple := range patterns() {
			hashes := hashAll(tuple, hash)
			for _, p := range places() {
				if z := p.spread(hashes); math.Abs(z) > spreadLimit {
					t.Errorf("%s, %s over %s: %.1f standard deviations off", name, pattern, p.name, z)
				}
			}
			slices.Sort(hashes)
			if n := len(slices.Compact(hashes)); n != cap(hashes) {
				t.Errorf("%s, %s: %d collisions in 64 bits", name, pattern, cap(hashes)-n)
			}
		}
	}
}

func TestHashSourceSpread(t *testing.T) {
	for _, pattern := range []string{"IPv4 sources", "IPv4 networks", "IPv6 hosts", "IPv6 networks"} {
		hashes := hashAll(patterns()[pattern], func(k *packet.Tuple) uint64 { return HashStableSource(&k.Src) })
		for _, p := range places() {
			if z := p.spread(hashes); math.Abs(z) > spreadLimit {
				t.Errorf("%s over %s: %.1f standard deviations off", pattern, p.name, z)
			}
		}
	}
}

// The bounds above must catch hashes that look reasonable and are not.
func TestBadHashIsCaught(t *testing.T) {
	for name, hash := range map[string]func(k *packet.Tuple) uint64{
		"exclusive or": func(k *packet.Tuple) uint64 {
			return binary.LittleEndian.Uint64(k.Src[8:]) ^ binary.LittleEndian.Uint64(k.Dst[8:]) ^ uint64(k.SrcPort)<<16 ^ uint64(k.DstPort)
		},
		"one multiplication": func(k *packet.Tuple) uint64 {
			return (binary.LittleEndian.Uint64(k.Src[8:]) ^ uint64(k.SrcPort)) * 0x9e3779b97f4a7c15
		},
	} {
		worst := map[string]float64{}
		for _, tuple := range patterns() {
			hashes := hashAll(tuple, hash)
			for _, p := range places() {
				worst[p.name] = max(worst[p.name], math.Abs(p.spread(hashes)))
			}
		}
		for place, z := range worst {
			if z <= spreadLimit {
				t.Errorf("%s over %s passes with %.1f standard deviations", name, place, z)
			}
		}
	}
}

// A node of another version must hash the same, or flows move while an upgrade
// is under way.
func TestHashGolden(t *testing.T) {
	v4 := tuple4(testClient, testVIP, 12345, 80, packet.ProtoTCP)
	v6 := patterns()["IPv6 hosts"](1)
	for _, test := range []struct {
		name      string
		got, want uint64
	}{
		{"zero", HashStable(&packet.Tuple{}), 0x1b46b62956c08fcc},
		{"IPv4", HashStable(&v4), 0xfee6e56bf201bc78},
		{"IPv6", HashStable(&v6), 0xc006e75a638ed413},
		{"IPv4 source", HashStableSource(&v4.Src), 0xcbddc4dc120ed6ab},
		{"IPv6 source", HashStableSource(&v6.Src), 0xfdf9ae5fa588b0da},
	} {
		if test.got != test.want {
			t.Errorf("%s: %#016x, want %#016x", test.name, test.got, test.want)
		}
	}
}

func TestHashIsKeyed(t *testing.T) {
	k := tuple4(testClient, testVIP, 12345, 80, packet.ProtoTCP)
	a, b := newTable(t, 8), newTable(t, 8)
	if a.Hash(&k) == b.Hash(&k) || a.Hash(&k) == HashStable(&k) {
		t.Error("two tables hash alike")
	}
}

func BenchmarkHash(b *testing.B) {
	k := tuple4(testClient, testVIP, 12345, 80, packet.ProtoTCP)
	table := newTable(b, 8)
	var sum uint64
	b.Run("table", func(b *testing.B) {
		for b.Loop() {
			k.SrcPort++
			sum += table.Hash(&k)
		}
	})
	b.Run("stable", func(b *testing.B) {
		for b.Loop() {
			k.SrcPort++
			sum += HashStable(&k)
		}
	})
	b.Run("source", func(b *testing.B) {
		for b.Loop() {
			k.Src[15]++
			sum += HashStableSource(&k.Src)
		}
	})
	if sum == 0 {
		b.Error("the sum of all hashes is 0")
	}
}
