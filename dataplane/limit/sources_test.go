package limit

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
)

// client returns the n-th of many IPv4 sources.
func client(n int) [16]byte {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(n))
	return packet.Mapped(a)
}

func TestNewRounds(t *testing.T) {
	for entries, want := range map[int]int{-1: DefaultEntries, 0: DefaultEntries, 1: 8, 8: 8, 9: 16, 1000: 1024, 1024: 1024} {
		if got := len(New(entries).sets) * ways; got != want {
			t.Errorf("%d entries: %d, want %d", entries, got, want)
		}
	}
	if size := reflect.TypeFor[entry]().Size(); size != 16 {
		t.Errorf("an entry has %d bytes", size)
	}
}

// source is what a bucket is for.
type source struct {
	prefix  [16]byte
	service uint32
}

// With room for all, each source has a bucket of its own, as in a map.
func TestAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s, buckets := New(1<<14), map[source]*Bucket{}
	rates := []Rate{{PerSecond: 20}, {PerSecond: 5, Burst: 9}, {}}
	now := ^flow.Tick(0) - 1000
	denied := 0
	for range 200_000 {
		if r.IntN(500) == 0 {
			now += flow.Tick(r.IntN(3))
		}
		key := source{prefix: client(r.IntN(300)), service: uint32(r.IntN(len(rates)))}
		b := buckets[key]
		if b == nil {
			b = &Bucket{last: now}
			buckets[key] = b
		}
		want := b.Allow(rates[key.service], now)
		if got := s.Allow(key.service, &key.prefix, rates[key.service], now); got != want {
			t.Fatalf("%v: %v, want %v", key, got, want)
		}
		if !want {
			denied++
		}
	}
	if denied == 0 {
		t.Error("nothing was denied: the test tests nothing")
	}
}

// The least recently used of a set goes, and comes back with a full bucket.
func TestOldestGoes(t *testing.T) {
	s, r := New(8), Rate{PerSecond: 1, Burst: 3}
	ask := func(n int, now flow.Tick) bool { return s.allow(uint64(n)<<32, r, now) }
	start := ^flow.Tick(0) - 4
	for n := 1; n <= 8; n++ {
		for range 3 {
			if !ask(n, start+flow.Tick(n)) {
				t.Fatalf("source %d has less than a full bucket", n)
			}
		}
	}
	ask(1, start+9) // no longer the oldest
	if !ask(9, start+9) {
		t.Error("no room for a ninth")
	}
	for _, n := range []int{1, 3, 8} {
		if ask(n, start+9) {
			t.Errorf("source %d was forgotten", n)
		}
	}
	if !ask(2, start+9) {
		t.Error("source 2 was not the one to go")
	}
}

// What the comment of Sources promises: among made-up sources, one that sends
// steadily gets a fresh burst about once for as many packets as there are
// entries, at the most.
func TestFlood(t *testing.T) {
	const entries, rounds, period = 1 << 10, 200, 64
	rng := rand.New(rand.NewPCG(3, 4))
	s, rate := New(entries), Rate{PerSecond: 1, Burst: 10}
	heavy, passed, now := rng.Uint64(), 0, flow.Tick(0)
	for n := range entries * rounds {
		s.allow(rng.Uint64(), rate, now)
		if n%period == 0 {
			now++
			if s.allow(heavy, rate, now) {
				passed++
			}
		}
	}
	bound := 10*(rounds+1) + int(now)/second + 1
	asked := entries * rounds / period
	if passed > bound {
		t.Errorf("%d of %d passed, bound %d", passed, asked, bound)
	}
	t.Logf("%d of %d passed", passed, asked)
}

func TestMask(t *testing.T) {
	for _, test := range []struct {
		addr         string
		bits4, bits6 int
		want         string
	}{
		{"192.0.2.255", 24, 64, "192.0.2.0"},
		{"192.0.2.255", 32, 0, "192.0.2.255"},
		{"192.0.2.255", 0, 128, "0.0.0.0"},
		{"192.0.2.255", 1, 128, "128.0.0.0"},
		{"192.0.2.255", 64, 64, "192.0.2.255"},
		{"192.0.2.255", 128, 128, "192.0.2.255"},
		{"2001:db8::1", 128, 1000, "2001:db8::1"},
		{"2001:db8:1:2:3:4:5:6", 24, 64, "2001:db8:1:2::"},
		{"2001:db8:1:2:3:4:5:6", 24, 56, "2001:db8:1::"},
		{"2001:db8:1:2:3:4:5:6", 24, 80, "2001:db8:1:2:3::"},
		{"2001:db8:1:2:3:4:5:6", 24, 128, "2001:db8:1:2:3:4:5:6"},
		{"2001:db8:1:2:3:4:5:6", 24, 0, "::"},
		{"::fffe:102:304", 0, 112, "::fffe:102:0"},
	} {
		a := netip.MustParseAddr(test.addr).As16()
		if got := packet.NetipAddr(Mask(&a, test.bits4, test.bits6)); got.String() != test.want {
			t.Errorf("%s with %d and %d bits: %v, want %s", test.addr, test.bits4, test.bits6, got, test.want)
		}
	}
}

func TestMaskLengths(t *testing.T) {
	for _, s := range []string{"255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		addr := netip.MustParseAddr(s)
		a := addr.As16()
		for n := range addr.BitLen() + 1 {
			bits4, bits6 := n, 7
			if addr.Is6() {
				bits4, bits6 = 7, n
			}
			want := netip.PrefixFrom(addr, n).Masked().Addr()
			if got := packet.NetipAddr(Mask(&a, bits4, bits6)); got != want {
				t.Errorf("%v with %d bits: %v", addr, n, got)
			}
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), uint8(24), uint8(64))
	f.Add([]byte{10: 0xff, 11: 0xff, 12: 1, 13: 2, 14: 3, 15: 4}, uint8(24), uint8(64))
	f.Fuzz(func(t *testing.T, b []byte, bits4, bits6 uint8) {
		if len(b) != 16 {
			return
		}
		n4, n6 := int(bits4%33), int(bits6%129)
		a := [16]byte(b)
		addr, n := packet.NetipAddr(a), n6
		if addr.Is4() {
			n = n4
		}
		want, err := addr.Prefix(n)
		if err != nil {
			t.Fatal(err)
		}
		if got := Mask(&a, n4, n6); got != want.Addr().As16() {
			t.Errorf("%v with %d and %d bits: %v, want %v", addr, n4, n6, packet.NetipAddr(got), want.Addr())
		}
	})
}

func TestNoAllocs(t *testing.T) {
	s, n := New(64), 0
	if allocs := testing.AllocsPerRun(1000, func() {
		a := client(n)
		masked := Mask(&a, 31, 64)
		s.Allow(7, &masked, Rate{PerSecond: 10}, flow.Tick(n))
		n++
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// BenchmarkSources asks for sources that are in the table, and in a flood for
// ever new ones.
func BenchmarkSources(b *testing.B) {
	for _, sources := range []int{1, 1 << 10, 1 << 15} {
		b.Run(fmt.Sprintf("sources=%d", sources), func(b *testing.B) {
			s := New(DefaultEntries)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a := client(i * 7919 & (sources - 1))
				masked := Mask(&a, 32, 64)
				s.Allow(1, &masked, Rate{PerSecond: 1000}, flow.Tick(i>>16))
			}
		})
	}
	b.Run("flood", func(b *testing.B) {
		s := New(DefaultEntries)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			a := client(i)
			masked := Mask(&a, 32, 64)
			s.Allow(1, &masked, Rate{PerSecond: 1000}, flow.Tick(i>>16))
		}
	})
}
