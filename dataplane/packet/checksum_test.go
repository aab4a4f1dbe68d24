package packet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func TestChecksumRFC1071Example(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7} // RFC 1071 §3
	if got := packet.Sum(b, 0); got != 0xddf2 {
		t.Errorf("sum %#x, want 0xddf2", got)
	}
	if got := packet.Checksum(b, 0); got != 0x220d {
		t.Errorf("checksum %#x, want 0x220d", got)
	}
}

func TestSumLastCarry(t *testing.T) {
	b := append(bytes.Repeat([]byte{0xff}, 8), 0, 2) // the tail overflows 64 bits
	if got := packet.Sum(b, 0); got != 2 {
		t.Errorf("sum %#x, want 2", got)
	}
}

func TestUpdateRFC1624Example(t *testing.T) {
	// RFC 1624 §4: the case that RFC 1141's equation gets wrong.
	if got := packet.Update16(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("checksum %#x, want 0", got)
	}
}

func TestUDPZero(t *testing.T) {
	if got := packet.UDPNonZero(0); got != 0xffff {
		t.Errorf("UDPNonZero(0) = %#x", got)
	}
	if got := packet.UDPNonZero(0x1234); got != 0x1234 {
		t.Errorf("UDPNonZero(0x1234) = %#x", got)
	}
	d := packet.Delta(0).Replace16(0x5555, 0x3285)
	if got := d.ApplyUDP(0xdd2f); got != 0xffff {
		t.Errorf("a checksum that becomes 0 is sent as %#x", got)
	}
	if got := d.ApplyUDP(0); got != 0 {
		t.Errorf("no checksum became %#x", got)
	}
}

// gopacket computes the transport checksums of the corpus; ours must be the
// same, and valid.
func TestTransportChecksums(t *testing.T) {
	checked := 0
	for _, tt := range corpus() {
		var p packet.Parsed
		p.Decode(tt.frame)
		if p.Fragment || p.Kind != packet.KindIPv4 && p.Kind != packet.KindIPv6 {
			continue
		}
		b := tt.frame[p.L4:p.End]
		pseudo := packet.PseudoIPv6(p.Src, p.Dst, p.Proto, uint32(len(b)))
		if p.Kind == packet.KindIPv4 {
			pseudo = packet.PseudoIPv4(packet.Unmapped(p.Src), packet.Unmapped(p.Dst), p.Proto, uint16(len(b)))
			if h := packet.IPv4(tt.frame[p.L3:]); h.ComputeChecksum() != h.Checksum() {
				t.Errorf("%s: header checksum %#x, want %#x", tt.name, h.ComputeChecksum(), h.Checksum())
			}
		}
		var got, want uint16
		switch {
		case p.Proto == packet.ProtoTCP:
			got, want = packet.TCP(b).ComputeChecksum(pseudo), packet.TCP(b).Checksum()
		case p.Proto == packet.ProtoUDP && packet.UDP(b).Checksum() != 0:
			got, want = packet.UDP(b).ComputeChecksum(pseudo), packet.UDP(b).Checksum()
		case p.Proto == packet.ProtoICMPv4:
			got, want = packet.ICMPv4(b).ComputeChecksum(), packet.ICMPv4(b).Checksum()
			pseudo = 0
		case p.Proto == packet.ProtoICMPv6:
			got, want = packet.ICMPv6(b).ComputeChecksum(p.Src, p.Dst), packet.ICMPv6(b).Checksum()
		default:
			continue
		}
		checked++
		if got != want {
			t.Errorf("%s: checksum %#x, want %#x", tt.name, got, want)
		}
		if rest := packet.Checksum(b, pseudo); rest != 0 {
			t.Errorf("%s: checksum over a valid packet is %#x", tt.name, rest)
		}
	}
	if checked < 40 {
		t.Errorf("only %d packets had a checksum to check", checked)
	}
}

// FuzzChecksum compares Sum with RFC 1071 word by word, and every way of
// updating with computing anew.
func FuzzChecksum(f *testing.F) {
	f.Add([]byte{}, uint32(0), uint16(0), []byte{})
	f.Add([]byte{1}, uint32(0xffff), uint16(0), []byte{2})
	f.Add(make([]byte, 40), uint32(0), uint16(7), make([]byte, 16))
	long := make([]byte, 1500)
	for i := range long {
		long[i] = 0xff
	}
	f.Add(long, uint32(0xffffffff), uint16(12), long[:16])
	f.Add([]byte("an odd number of bytes in the datum"), uint32(3), uint16(2), []byte("sixteen bytes ok"))
	f.Fuzz(func(t *testing.T, b []byte, initial uint32, at uint16, change []byte) {
		head := binary.BigEndian.AppendUint32(nil, initial)
		want := naiveSum(append(head, b...))
		if got := packet.Sum(b, initial); got != uint32(want) {
			t.Fatalf("Sum = %#x, want %#x", got, want)
		}
		if got := packet.Checksum(b, initial); got != ^want {
			t.Fatalf("Checksum = %#x, want %#x", got, ^want)
		}

		after := append([]byte(nil), b...)
		old := naiveChecksum(b)
		i := int(at) &^ 1
		update := func(n int) (before, now []byte) {
			if i+n > len(b) || len(change) < n {
				return nil, nil
			}
			copy(after, b)
			copy(after[i:], change[:n])
			return b[i : i+n], after[i : i+n]
		}
		check := func(how string, got uint16) {
			want := naiveChecksum(after)
			if want == 0xffff {
				want = 0 // the data became all zero: the documented exception
			}
			if got == 0xffff {
				got = 0 // nothing changed in all-zero data
			}
			if got != want {
				t.Fatalf("%s = %#x, want %#x", how, got, want)
			}
			if udp := packet.UDPNonZero(got); udp == 0 || udp != want && want != 0 {
				t.Fatalf("UDPNonZero = %#x for %#x", udp, want)
			}
		}
		be := binary.BigEndian
		if before, now := update(2); before != nil {
			check("Update16", packet.Update16(old, be.Uint16(before), be.Uint16(now)))
		}
		if before, now := update(4); before != nil {
			check("Update32", packet.Update32(old, be.Uint32(before), be.Uint32(now)))
		}
		if before, now := update(16); before != nil {
			check("UpdateAddr", packet.UpdateAddr(old, [16]byte(before), [16]byte(now)))
			// Word by word, as one delta.
			var d packet.Delta
			for j := 0; j < 16; j += 2 {
				d = d.Replace16(be.Uint16(before[j:]), be.Uint16(now[j:]))
			}
			check("Delta", d.Apply(old))
		}
	})
}

// One delta, computed without a packet, rewrites addresses and ports of any
// packet of a flow: what forward does for NAT.
func TestDeltaRewritesFlow(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			for n := range 64 {
				s := spec(v6, proto)
				s.Payload = make([]byte, n)
				for i := range s.Payload {
					s.Payload[i] = byte(n*i + n)
				}
				frame := packettest.Frame(s)
				s.Src, s.Dst = s.Dst, s.Src
				s.Dst = client4
				if v6 {
					s.Dst = client6
				}
				to := packettest.Frame(s)

				var p, q packet.Parsed
				p.Decode(frame)
				q.Decode(to)
				d := packet.Delta(0).
					ReplaceAddr(p.Src, q.Src).ReplaceAddr(p.Dst, q.Dst).
					Replace16(p.SrcPort, q.SrcPort).Replace16(p.DstPort, q.DstPort)
				var got, want uint16
				if proto == packet.ProtoUDP {
					got, want = d.ApplyUDP(packet.UDP(frame[p.L4:]).Checksum()), packet.UDP(to[q.L4:]).Checksum()
				} else {
					got, want = d.Apply(packet.TCP(frame[p.L4:]).Checksum()), packet.TCP(to[q.L4:]).Checksum()
				}
				if got != want {
					t.Fatalf("v6=%t proto=%d n=%d: checksum %#x, want %#x", v6, proto, n, got, want)
				}
			}
		}
	}
}

func TestDecrement(t *testing.T) {
	for ttl := range 256 {
		for id := range 300 {
			s := spec(false, packet.ProtoUDP)
			s.TTL, s.ID = uint8(ttl), uint16(id*219)
			if ttl == 0 {
				s.TTL = 1 // 0 asks the builder for its default
			}
			h := packet.IPv4(packettest.Frame(s)[14:])
			if ttl == 0 {
				h.SetTTL(0)
				h.SetChecksum(h.ComputeChecksum())
			}
			before := string(h)
			ok := h.DecrementTTL()
			switch {
			case ok != (ttl > 1):
				t.Fatalf("ttl %d: DecrementTTL reports %t", ttl, ok)
			case !ok && string(h) != before:
				t.Fatalf("ttl %d: changed although it may not be forwarded", ttl)
			case ok && (int(h.TTL()) != ttl-1 || h.Checksum() != naiveChecksum(append(append([]byte(nil), h[:10]...), h[12:20]...))):
				t.Fatalf("ttl %d id %#x: now %d, checksum %#x", ttl, s.ID, h.TTL(), h.Checksum())
			}
		}
		h := packet.IPv6(packettest.Frame(spec(true, packet.ProtoUDP))[14:])
		h.SetHopLimit(uint8(ttl))
		if ok := h.DecrementHopLimit(); ok != (ttl > 1) || ok && int(h.HopLimit()) != ttl-1 || !ok && int(h.HopLimit()) != ttl {
			t.Fatalf("hop limit %d: %t, now %d", ttl, ok, h.HopLimit())
		}
	}
}

func BenchmarkDeltaApply(b *testing.B) {
	d := packet.Delta(0).Replace32(0xc0000201, 0xcb00710a).Replace16(1234, 80)
	sum := uint16(0x1234)
	for b.Loop() {
		sum = d.ApplyUDP(sum)
	}
}

func BenchmarkSum1500(b *testing.B) {
	data := make([]byte, 1500)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		packet.Sum(data, 0)
	}
}
