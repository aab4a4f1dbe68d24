package acl

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func prefixes(s ...string) (list []netip.Prefix) {
	for _, p := range s {
		list = append(list, netip.MustParsePrefix(p))
	}
	return list
}

func TestAllows(t *testing.T) {
	for _, test := range []struct {
		name        string
		allow, deny []netip.Prefix
		want        map[string]bool
	}{
		{"none", nil, nil, map[string]bool{"192.0.2.1": true, "2001:db8::1": true}},
		{"allow", prefixes("192.0.2.0/24"), nil, map[string]bool{
			"192.0.1.255": false, "192.0.2.0": true, "192.0.2.255": true, "192.0.3.0": false, "::": false, "::c000:201": false,
		}},
		{"deny", nil, prefixes("192.0.2.7/32"), map[string]bool{
			"192.0.2.6": true, "192.0.2.7": false, "192.0.2.8": true, "2001:db8::": true,
		}},
		{"hole", prefixes("192.0.2.0/24"), prefixes("192.0.2.7/32"), map[string]bool{
			"192.0.2.6": true, "192.0.2.7": false, "192.0.2.8": true, "192.0.3.7": false,
		}},
		{"island in a hole", prefixes("10.0.0.0/8", "10.1.2.0/24"), prefixes("10.1.0.0/16"), map[string]bool{
			"10.0.255.255": true, "10.1.1.255": false, "10.1.2.0": true, "10.1.2.255": true, "10.1.3.0": false, "10.2.0.0": true, "11.0.0.0": false,
		}},
		{"nested to one end", prefixes("10.0.0.0/8", "10.255.255.255/32"), prefixes("10.255.0.0/16"), map[string]bool{
			"10.254.255.255": true, "10.255.0.0": false, "10.255.255.254": false, "10.255.255.255": true, "11.0.0.0": false,
		}},
		{"last address of a prefix", prefixes("192.0.2.7/32", "0.0.0.0/0"), prefixes("192.0.2.6/31"), map[string]bool{
			"192.0.2.5": true, "192.0.2.6": false, "192.0.2.7": true, "192.0.2.8": true,
		}},
		{"the same in both", prefixes("192.0.2.0/24"), prefixes("192.0.2.0/24"), map[string]bool{"192.0.2.1": false}},
		{"whole families", prefixes("0.0.0.0/0"), prefixes("::/0"), map[string]bool{
			"0.0.0.0": true, "255.255.255.255": true, "::": false, "::fffe:ffff:ffff": false, "::1:0:0:0": false,
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": false,
		}},
		{"::/0 is not IPv4", prefixes("::/0"), nil, map[string]bool{"0.0.0.0": false, "255.255.255.255": false, "::": true, "::1:0:0:0": true, "ffff::": true}},
		{"nor is it when denied", nil, prefixes("::/0"), map[string]bool{"0.0.0.0": true, "255.255.255.255": true, "::": false, "::1:0:0:0": false}},
		{"IPv4-mapped prefix", nil, prefixes("::ffff:192.0.2.0/120"), map[string]bool{"192.0.2.9": false, "192.0.3.0": true}},
		{"bits beyond the length", nil, prefixes("192.0.2.7/24"), map[string]bool{"192.0.2.0": false, "192.0.2.255": false, "192.0.3.0": true}},
		{"last address", prefixes("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), nil, map[string]bool{
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe": false, "::": false,
		}},
		{"across the middle of an address", prefixes("2001:db8::/64", "2001:db8:0:1::/65"), nil, map[string]bool{
			"2001:db8::": true, "2001:db8::ffff:ffff:ffff:ffff": true, "2001:db8:0:1::": true, "2001:db8:0:1:7fff::": true, "2001:db8:0:1:8000::": false,
		}},
		{"neighbours", prefixes("192.0.2.0/25", "192.0.2.128/25"), nil, map[string]bool{"192.0.2.127": true, "192.0.2.128": true, "192.0.3.0": false}},
	} {
		list := New(test.allow, test.deny)
		for s, want := range test.want {
			a := netip.MustParseAddr(s).As16()
			if got := list.Allows(&a); got != want {
				t.Errorf("%s: %s: %v, want %v", test.name, s, got, want)
			}
		}
	}
}

// What changes nothing leaves nothing to search.
func TestEdges(t *testing.T) {
	for _, test := range []struct {
		name        string
		allow, deny []netip.Prefix
		want        int
	}{
		{"one", prefixes("192.0.2.0/24"), nil, 2},
		{"neighbours", prefixes("192.0.2.0/25", "192.0.2.128/25"), nil, 2},
		{"inside one that says the same", prefixes("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"), nil, 2},
		{"twice", nil, prefixes("10.0.0.0/8", "10.0.0.0/8"), 2},
		{"all of IPv6, which has IPv4 in it", nil, prefixes("::/0"), 3},
		{"everybody", prefixes("::/0", "0.0.0.0/0"), nil, 1},
	} {
		if list := New(test.allow, test.deny); len(list.edges) != test.want {
			t.Errorf("%s: %d edges, want %d: %x", test.name, len(list.edges), test.want, list.edges)
		}
	}
	if New(nil, nil) != nil {
		t.Error("a list of nothing is not nil")
	}
}

// oracle is the definition: it looks at every prefix.
func oracle(allow, deny []netip.Prefix, addr netip.Addr) bool {
	longest, verdict := -1, len(allow) == 0
	for i, list := range [][]netip.Prefix{allow, deny} {
		for _, p := range list {
			if p.Masked().Contains(addr) && p.Bits() >= longest {
				longest, verdict = p.Bits(), i == 0
			}
		}
	}
	return verdict
}

// check compares a list with the oracle at the edges of all prefixes and at
// some other addresses.
func check(t *testing.T, allow, deny []netip.Prefix, others []netip.Addr) {
	t.Helper()
	list := New(allow, deny)
	ask := func(a netip.Addr) {
		as16 := a.As16()
		a = a.Unmap()
		if got, want := list.Allows(&as16), oracle(allow, deny, a); got != want {
			t.Fatalf("%v: %v, want %v; allow %v, deny %v", a, got, want, allow, deny)
		}
	}
	for _, p := range append(append([]netip.Prefix{}, allow...), deny...) {
		s := spanOf(p, true)
		var first, last [16]byte
		binary.BigEndian.PutUint64(first[:8], s.first.hi)
		binary.BigEndian.PutUint64(first[8:], s.first.lo)
		binary.BigEndian.PutUint64(last[:8], s.last.hi)
		binary.BigEndian.PutUint64(last[8:], s.last.lo)
		for _, a := range []netip.Addr{netip.AddrFrom16(first), netip.AddrFrom16(last)} {
			for _, a := range []netip.Addr{a.Prev(), a, a.Next()} {
				if a.IsValid() {
					ask(a)
				}
			}
		}
	}
	for _, a := range others {
		ask(a)
	}
}

// decode makes prefixes of fuzz input, five bytes each. Half of them are of a few
// addresses only, so that they come to lie inside and beside each other.
func decode(data []byte) (allow, deny []netip.Prefix, others []netip.Addr) {
	for ; len(data) >= 5; data = data[5:] {
		kind := data[0]
		var addr netip.Addr
		if kind&1 == 0 {
			addr = netip.AddrFrom4([4]byte(data[1:5]))
		} else {
			var a [16]byte
			a[0], a[7], a[8], a[15] = data[1], data[2], data[3], data[4]
			addr = netip.AddrFrom16(a)
		}
		bits := int(data[3]^kind>>3) % (addr.BitLen() + 1)
		if kind&0x80 != 0 {
			few := addr.AsSlice()
			clear(few[:len(few)-1])
			few[len(few)-1] = data[4] & 15
			addr, _ = netip.AddrFromSlice(few)
			bits = addr.BitLen() - int(data[3]%6)
		}
		switch p := netip.PrefixFrom(addr, bits); kind >> 1 & 3 {
		case 0, 1:
			allow = append(allow, p)
		case 2:
			deny = append(deny, p)
		case 3:
			others = append(others, addr)
		}
	}
	return allow, deny, others
}

func TestAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		data := make([]byte, 5*r.IntN(60))
		for i := range data {
			data[i] = byte(r.Uint32())
			if i%5 != 0 && i%5 != 3 {
				data[i] &= 0xc3
			}
		}
		allow, deny, others := decode(data)
		if r.IntN(3) == 0 {
			allow = nil
		}
		check(t, allow, deny, others)
	}
}

func FuzzList(f *testing.F) {
	f.Add([]byte{0, 10, 0, 0, 8, 4, 10, 1, 0, 16, 2, 10, 1, 2, 24, 6, 10, 1, 2, 3})
	f.Add([]byte{1, 0, 0, 0, 0, 5, 255, 255, 255, 255, 7, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 500 {
			return
		}
		allow, deny, others := decode(data)
		check(t, allow, deny, others)
	})
}

func TestNoAllocs(t *testing.T) {
	list := New(randomPrefixes(1000), nil)
	a := netip.MustParseAddr("192.0.2.1").As16()
	if n := testing.AllocsPerRun(1000, func() { list.Allows(&a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// randomPrefixes returns n prefixes of IPv4 that are apart from each other, as
// a list of bad addresses is.
func randomPrefixes(n int) []netip.Prefix {
	r := rand.New(rand.NewPCG(3, 4))
	list := make([]netip.Prefix, n)
	for i := range list {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], r.Uint32())
		list[i] = netip.PrefixFrom(netip.AddrFrom4(a), 24+r.IntN(9)).Masked()
	}
	return list
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{1, 100, 100_000} {
		list := New(nil, randomPrefixes(n))
		addrs := make([][16]byte, 1<<14)
		r := rand.New(rand.NewPCG(5, 6))
		for i := range addrs {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], r.Uint32())
			addrs[i] = netip.AddrFrom4(a).As16()
		}
		b.Run(fmt.Sprintf("prefixes=%d/allows", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				list.Allows(&addrs[i&(len(addrs)-1)])
			}
		})
		b.Run(fmt.Sprintf("prefixes=%d/new", n), func(b *testing.B) {
			deny := randomPrefixes(n)
			for b.Loop() {
				New(nil, deny)
			}
		})
	}
}
