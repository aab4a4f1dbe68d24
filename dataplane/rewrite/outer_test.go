package rewrite_test

import (
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// outerOf returns the addresses of the outer header that a packet of s gets.
func outerOf(t *testing.T, r *rewrite.Rewrite, s packettest.Spec) (src, dst [16]byte) {
	t.Helper()
	f, reason := apply(t, r, packettest.Frame(s))
	if reason != stats.ReasonNone {
		t.Fatalf("verdict %v", reason)
	}
	if ip := f.Bytes()[14:]; ip[0]>>4 == 4 {
		return packet.Mapped([4]byte(ip[12:])), packet.Mapped([4]byte(ip[16:]))
	} else {
		return [16]byte(ip[8:]), [16]byte(ip[24:])
	}
}

// Outer and IsSource agree with the packets that Apply makes, and what is one bit
// beside such a source is one only where the flow chooses the bit.
func TestOuterAddresses(t *testing.T) {
	for _, test := range []struct {
		tunnel rewrite.Tunnel
		fixed  int // leading bits of the source, of 128
	}{
		{tunnel4, 128}, {tunnel6, 128}, {spread(tunnel4), 112}, {spread(tunnel6), 96},
	} {
		for _, inner6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v spread %t inner IPv6 %t", test.tunnel.Source, test.tunnel.Spread, inner6), func(t *testing.T) {
				r, err := rewrite.IPIP(link(0), inner6, test.tunnel)
				if err != nil {
					t.Fatal(err)
				}
				to, ok := r.Outer()
				if want := packet.Addr16(test.tunnel.Destination); !ok || to != want {
					t.Errorf("outer destination %x (%t), want %x", to, ok, want)
				}
				sources := map[[16]byte]bool{}
				for port := range uint16(50) {
					s := variants(inner6)["tcp"]
					s.Src = netip.AddrPortFrom(s.Src.Addr(), 2000+port)
					src, dst := outerOf(t, &r, s)
					if !r.IsSource(&src) || dst != to {
						t.Fatalf("a packet goes from %x to %x: neither source %t nor destination %x may be wrong", src, dst, r.IsSource(&src), to)
					}
					sources[src] = true
					for bit := range 128 {
						other := src
						other[bit/8] ^= 0x80 >> (bit % 8)
						if want := bit >= test.fixed; r.IsSource(&other) != want {
							t.Fatalf("%x is a source: %t, want %t", other, !want, want)
						}
					}
				}
				if (len(sources) > 1) != test.tunnel.Spread {
					t.Errorf("%d sources", len(sources))
				}
			})
		}
	}
}

func TestNoOuterAddresses(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for name, make := range map[string]func(rewrite.Link, bool) (rewrite.Rewrite, error){"DSR": rewrite.DSR, "NAT": rewrite.NAT} {
			r, err := make(link(0), ipv6)
			if err != nil {
				t.Fatal(err)
			}
			if to, ok := r.Outer(); ok {
				t.Errorf("%s: outer destination %x", name, to)
			}
			for _, a := range [][16]byte{{}, packet.Mapped([4]byte{}), packet.Addr16(tunnel4.Source)} {
				if r.IsSource(&a) {
					t.Errorf("%s: outer source %x", name, a)
				}
			}
		}
	}
}
