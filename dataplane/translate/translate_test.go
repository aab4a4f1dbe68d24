package translate_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// anySpec returns a random packet of a random flow.
func anySpec(r *rand.Rand, v6 bool, proto uint8) packettest.Spec {
	s := spec(v6, proto)
	end := func() netip.AddrPort {
		var b [16]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		a := netip.AddrFrom16(b)
		if !v6 {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrPortFrom(a, uint16(r.Uint32()))
	}
	s.Src, s.Dst = end(), end()
	s.TOS, s.TTL, s.ID = uint8(r.Uint32()), uint8(2+r.IntN(254)), uint16(r.Uint32())
	s.DontFragment = r.IntN(2) == 0
	s.FlowLabel = r.Uint32() & 0xfffff
	s.TCPFlags, s.TCPOptions = uint8(r.Uint32()), r.IntN(2) == 0
	s.Seq, s.Ack = r.Uint32(), r.Uint32()
	s.VLAN, s.Padding = uint16(r.IntN(3)), r.IntN(20)
	s.IPOptions = max(0, r.IntN(20)-9)
	for _, ext := range []uint8{packet.ProtoHopByHop, packet.ProtoDestOptions, packet.ProtoRouting, packet.ProtoFragment} {
		if r.IntN(4) == 0 {
			s.Extensions = append(s.Extensions, ext)
		}
	}
	s.NoUDPChecksum = !v6 && r.IntN(4) == 0
	s.Payload = make([]byte, r.IntN(1450))
	for i := range s.Payload {
		s.Payload[i] = byte(r.Uint32())
	}
	return s
}

// TestPacketEqualsRebuilt is the heart of the tests: whatever the packet, its
// translation is byte for byte what the oracle builds from nothing with the new
// addresses and ports.
func TestPacketEqualsRebuilt(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, d := range directions {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			for i := range 500 {
				s := anySpec(r, d.from6, proto)
				got, reason := apply(t, d.change(s, 0), packettest.Frame(s), noLimit)
				if reason != stats.ReasonNone {
					t.Fatalf("%v: %v: %+v", d, reason, s)
				}
				want := packettest.Frame(d.translated(s, true))
				same(t, fmt.Sprintf("%v proto %d packet %d", d, proto, i), got, want)
			}
		}
	}
}

// TestFragmentsEqualRebuilt does the same for all fragments of a datagram.
func TestFragmentsEqualRebuilt(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, d := range directions {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			for i := range 100 {
				s := anySpec(r, d.from6, proto)
				if len(s.Extensions) > 0 && s.Extensions[len(s.Extensions)-1] == packet.ProtoFragment {
					s.Extensions = s.Extensions[:len(s.Extensions)-1]
				}
				s.DontFragment, s.NoUDPChecksum = false, false
				s.Payload = append(s.Payload, make([]byte, 200)...)
				size := 8 * (8 + r.IntN(16))
				want := packettest.Fragments(d.translated(s, false), size)
				for n, frame := range packettest.Fragments(s, size) {
					got, reason := apply(t, d.change(s, 0), frame, noLimit)
					if reason != stats.ReasonNone {
						t.Fatalf("%v: fragment %d: %v: %+v", d, n, reason, s)
					}
					same(t, fmt.Sprintf("%v proto %d datagram %d fragment %d", d, proto, i, n), got, want[n])
				}
			}
		}
	}
}

// TestThereAndBack: the answer's translation undoes that of the question, but
// for what IPv6 cannot say.
func TestThereAndBack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, d := range directions {
		back := direction{d.to6, d.from6}
		for range 200 {
			s := anySpec(r, d.from6, []uint8{packet.ProtoTCP, packet.ProtoUDP}[r.IntN(2)])
			s.NoUDPChecksum, s.TTL = false, 64
			frame := packettest.Frame(s)
			there, reason := apply(t, d.change(s, 0), frame, noLimit)
			if reason != stats.ReasonNone {
				t.Fatal(reason)
			}
			p := decode(t, frame)
			q := decode(t, there)
			change := between(&q.Tuple, &p.Tuple, 0)
			undoing := change
			undoing.Delta = ^translate.Delta(&p.Tuple, &q.Tuple) // in one's complement it is the same
			for _, c := range []translate.Change{change, undoing} {
				home, reason := apply(t, c, there, noLimit)
				if reason != stats.ReasonNone {
					t.Fatal(reason)
				}
				h := decode(t, home)
				if h.Tuple != p.Tuple || h.TTL != 62 || h.TrafficClass != p.TrafficClass {
					t.Fatalf("%v, %v: %+v, was %+v", d, back, h, p)
				}
				if !bytes.Equal(home[h.L4:h.End], frame[p.L4:p.End]) {
					t.Fatalf("%v, %v: %x, was %x", d, back, home[h.L4:h.End], frame[p.L4:p.End])
				}
			}
		}
	}
}

// TestDelta compares with the sum made of packet's own parts.
func TestDelta(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 1000 {
		var a, b packet.Tuple
		for _, x := range []*packet.Tuple{&a, &b} {
			v6 := r.IntN(2) == 0
			s := anySpec(r, v6, packet.ProtoTCP)
			*x = tuple(s.Src, s.Dst, s.Proto)
		}
		c := between(&a, &b, 1400)
		want := packet.Delta(0).ReplaceAddr(a.Src, b.Src).ReplaceAddr(a.Dst, b.Dst).
			Replace16(a.SrcPort, b.SrcPort).Replace16(a.DstPort, b.DstPort)
		for _, sum := range []uint16{0, 1, 0x1234, 0xfffe, 0xffff} {
			if got := c.Delta.Apply(sum); got != want.Apply(sum) {
				t.Fatalf("%v to %v: %#04x becomes %#04x, want %#04x", a, b, sum, got, want.Apply(sum))
			}
		}
		if c.Src != b.Src || c.Dst != b.Dst || c.SrcPort != b.SrcPort || c.DstPort != b.DstPort || c.MSS != 1400 {
			t.Fatalf("%+v is not to %v", c, b)
		}
	}
}
