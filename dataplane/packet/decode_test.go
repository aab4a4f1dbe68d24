package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func TestDecodeAgreesWithGopacket(t *testing.T) {
	for _, tt := range corpus() {
		want, known := oracle(tt.frame)
		if !known {
			t.Errorf("%s: gopacket cannot decode the test's own frame", tt.name)
		}
		var got packet.Parsed
		got.Decode(tt.frame)
		if got != want || got.Problem != packet.ProblemNone {
			t.Errorf("%s:\n got %#v\nwant %#v", tt.name, got, want)
		}
	}
}

// What is cut off decides alone whether a frame is whole: every cut before the
// end of the IP packet is a truncation, and none behind it changes a thing.
func TestDecodeTruncated(t *testing.T) {
	for _, tt := range corpus() {
		var whole packet.Parsed
		whole.Decode(tt.frame)
		end := int(whole.End)
		if whole.Kind == packet.KindOther {
			continue
		}
		for n := range tt.frame {
			var got packet.Parsed
			got.Decode(append(make([]byte, 0, n), tt.frame[:n]...)[:n:n])
			switch {
			case n < end && got.Problem != packet.ProblemTruncated:
				t.Errorf("%s cut to %d of %d bytes: problem %v", tt.name, n, end, got.Problem)
			case n >= end && got != whole:
				t.Errorf("%s cut to %d bytes, within the padding: %#v, want %#v", tt.name, n, got, whole)
			}
			if err := ordered(&got, n); err != "" {
				t.Errorf("%s cut to %d bytes: %s", tt.name, n, err)
			}
		}
	}
}

// ordered says how the offsets of p break their promise for a frame of n bytes.
func ordered(p *packet.Parsed, n int) string {
	if p.L3 > p.L4 || p.L4 > p.End || p.End > uint32(n) {
		return "offsets out of order"
	}
	return ""
}

func TestDecodeProblems(t *testing.T) {
	const l3, l4v4, l4v6 = 14, 34, 54
	frame := func(v6 bool, proto uint8) []byte { return packettest.Frame(spec(v6, proto)) }
	extended := func(ext ...uint8) []byte {
		s := spec(true, packet.ProtoUDP)
		s.Extensions = ext
		return packettest.Frame(s)
	}
	set := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	// resum makes the IPv4 header's checksum right again.
	resum := func(b []byte) []byte {
		h := b[l3 : l3+int(b[l3]&0xf)*4]
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], naiveChecksum(h))
		return b
	}
	options := func() []byte {
		s := spec(false, packet.ProtoUDP)
		s.IPOptions = 2
		return packettest.Frame(s)
	}
	const dst = packet.ProtoDestOptions
	bare := spec(false, packet.ProtoTCP)
	bare.Payload = nil
	// late is a fragment behind a destination options header, so that it ends
	// 8+65520+n bytes into the payload of the reassembled packet.
	late := func(n int) []byte {
		s := spec(true, packet.ProtoGRE)
		s.Extensions = []uint8{dst, packet.ProtoFragment}
		s.Payload = make([]byte, n)
		return set(packettest.Frame(s), l4v6+8+2, 0xff, 0xf0)
	}

	tests := []struct {
		name  string
		frame []byte
		want  packet.Problem
		ports bool // the ports are read in spite of it
	}{
		{"empty", nil, packet.ProblemTruncated, false},
		{"stacked 802.1Q", set(frame(false, packet.ProtoUDP), 12, 0x81, 0, 0, 1, 0x81, 0, 0, 2), packet.ProblemVLAN, false},
		{"802.1Q over 802.1ad", set(frame(false, packet.ProtoUDP), 12, 0x88, 0xa8, 0, 1, 0x81, 0), packet.ProblemVLAN, false},
		{"802.1ad over 802.1Q", set(frame(false, packet.ProtoUDP), 12, 0x81, 0, 0, 1, 0x88, 0xa8), packet.ProblemVLAN, false},

		{"arp for another link", set(packettest.ARPRequest(spec(false, 0), vip4.Addr()), 15, 6), packet.ProblemMalformed, false},
		{"arp for another protocol", set(packettest.ARPRequest(spec(false, 0), vip4.Addr()), 16, 0x86, 0xdd), packet.ProblemMalformed, false},
		{"arp with long addresses", set(packettest.ARPRequest(spec(false, 0), vip4.Addr()), 18, 8), packet.ProblemMalformed, false},

		{"ipv4 says version 6", resum(set(frame(false, packet.ProtoUDP), l3, 0x65)), packet.ProblemMalformed, false},
		{"ipv4 header under 20", set(frame(false, packet.ProtoUDP), l3, 0x44), packet.ProblemMalformed, false},
		{"ipv4 length under header", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 19)), packet.ProblemMalformed, false},
		{"ipv4 length zero", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 0)), packet.ProblemMalformed, false},
		{"ipv4 length too long", resum(set(frame(false, packet.ProtoUDP), l3+2, 1, 0)), packet.ProblemTruncated, false},
		{"ipv4 checksum", set(frame(false, packet.ProtoUDP), l3+1, 0x77), packet.ProblemBadChecksum, false},
		{"ipv4 checksum with options", set(options(), l3+21, 0x77), packet.ProblemBadChecksum, false},
		{"ipv4 fragment beyond 65535", resum(set(frame(false, packet.ProtoUDP), l3+6, 0x1f, 0xff)), packet.ProblemMalformed, false},
		{"ipv4 fragment up to 65535", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 23, 0, 0, 0x1f, 0xfd)), packet.ProblemNone, false},
		{"ipv4 fragment up to 65536", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 24, 0, 0, 0x1f, 0xfd)), packet.ProblemMalformed, false},
		{"ipv4 fragment with half a header", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 24, 0, 0, 0x20, 0)), packet.ProblemTruncated, false},

		{"tcp header cut by ip", resum(set(frame(false, packet.ProtoTCP), l3+2, 0, 39)), packet.ProblemTruncated, false},
		{"tcp offset under 5", set(frame(false, packet.ProtoTCP), l4v4+12, 0x40), packet.ProblemMalformed, true},
		{"tcp offset over the end", set(frame(true, packet.ProtoTCP), l4v6+12, 0xf0), packet.ProblemMalformed, true},
		{"tcp offset one word over the end", set(packettest.Frame(bare), l4v4+12, 0x60), packet.ProblemMalformed, true},
		{"udp header cut by ip", resum(set(frame(false, packet.ProtoUDP), l3+2, 0, 27)), packet.ProblemTruncated, false},
		{"udp length 7", set(frame(false, packet.ProtoUDP), l4v4+4, 0, 7), packet.ProblemMalformed, true},
		{"udp length 0", set(frame(true, packet.ProtoUDP), l4v6+4, 0, 0), packet.ProblemMalformed, true},
		{"udp length one over", set(frame(false, packet.ProtoUDP), l4v4+4, 0, 30), packet.ProblemMalformed, true},
		{"udp length one under", set(frame(false, packet.ProtoUDP), l4v4+4, 0, 28), packet.ProblemNone, true},
		{"icmp cut by ip", resum(set(packettest.EchoRequest(spec(false, 0), 1, 1), l3+2, 0, 27)), packet.ProblemTruncated, false},
		{"icmpv6 cut by ip", set(packettest.EchoRequest(spec(true, 0), 1, 1), l3+4, 0, 7), packet.ProblemTruncated, false},

		{"ipv6 says version 4", set(frame(true, packet.ProtoUDP), l3, 0x40), packet.ProblemMalformed, false},
		{"ipv6 length too long", set(frame(true, packet.ProtoUDP), l3+4, 1), packet.ProblemTruncated, false},
		{"ipv6 length zero", set(frame(true, packet.ProtoUDP), l3+4, 0, 0), packet.ProblemTruncated, false},
		{"eight extension headers", extended(dst, dst, dst, dst, dst, dst, dst, dst), packet.ProblemNone, true},
		{"nine extension headers", extended(dst, dst, dst, dst, dst, dst, dst, dst, dst), packet.ProblemExtension, false},
		{"hop-by-hop not first", extended(dst, packet.ProtoHopByHop), packet.ProblemExtension, false},
		{"two hop-by-hop", extended(packet.ProtoHopByHop, packet.ProtoHopByHop), packet.ProblemExtension, false},
		{"two fragment headers", extended(packet.ProtoFragment, packet.ProtoFragment), packet.ProblemExtension, false},
		{"segments left", set(extended(packet.ProtoRouting), l4v6+3, 1), packet.ProblemExtension, false},
		{"authentication header", frame(true, packet.ProtoAH), packet.ProblemExtension, false},
		{"mobility header", frame(true, packet.ProtoMobility), packet.ProblemExtension, false},
		{"extension header over the end", set(extended(dst), l4v6+1, 20), packet.ProblemTruncated, false},
		{"ipv6 fragment beyond 65535", set(extended(packet.ProtoFragment), l4v6+2, 0xff, 0xf8), packet.ProblemMalformed, false},
		{"ipv6 fragment up to 65535", late(7), packet.ProblemNone, false},
		{"ipv6 fragment up to 65536", late(8), packet.ProblemMalformed, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got packet.Parsed
			got.Decode(tt.frame)
			if got.Problem != tt.want {
				t.Errorf("problem %v, want %v", got.Problem, tt.want)
			}
			if ports := got.SrcPort != 0; ports != tt.ports {
				t.Errorf("ports read: %t, want %t", ports, tt.ports)
			}
			if err := ordered(&got, len(tt.frame)); err != "" {
				t.Error(err)
			}
			if want, known := oracle(tt.frame); known && want.Problem != tt.want {
				t.Errorf("the oracle finds %v", want.Problem)
			}
		})
	}
}

// The unrolled header checksum has carries that random headers hardly ever
// reach: here the upper half of the 64-bit sum is all ones before the last
// addition.
func TestDecodeChecksumCarries(t *testing.T) {
	for ttl := 1; ttl < 256; ttl++ {
		s := spec(false, packet.ProtoUDP)
		s.ID, s.TTL, s.DontFragment = 0x1234, uint8(ttl), true
		s.Src = netip.MustParseAddrPort("237.203.191.255:1") // the complement of ID and flags
		s.Dst = netip.MustParseAddrPort("255.255.255.255:1")
		frame := packettest.Frame(s)
		var p packet.Parsed
		if p.Decode(frame); p.Problem != packet.ProblemNone {
			t.Fatalf("ttl %d: %v", ttl, p.Problem)
		}
		frame[15] ^= 1
		if p.Decode(frame); p.Problem != packet.ProblemBadChecksum {
			t.Fatalf("ttl %d: %v for a flipped bit", ttl, p.Problem)
		}
	}
}

// A Parsed is reused: nothing of the frame before may shine through.
func TestDecodeOverwrites(t *testing.T) {
	frames := corpus()
	frames = append(frames, namedFrame{"nothing", nil})
	var reused packet.Parsed
	for i := range frames {
		for _, j := range []int{i, len(frames) - 1 - i} {
			var fresh packet.Parsed
			reused.Decode(frames[j].frame)
			fresh.Decode(frames[j].frame)
			if reused != fresh {
				t.Fatalf("%s: %#v, want %#v", frames[j].name, reused, fresh)
			}
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	frames := corpus()
	var p packet.Parsed
	if n := testing.AllocsPerRun(10, func() {
		for i := range frames {
			p.Decode(frames[i].frame)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, tt := range corpus() {
		f.Add(tt.frame, false)
		f.Add(tt.frame[:len(tt.frame)-1], false)
	}
	// fixSum lets the fuzzer past the IPv4 header checksum.
	f.Fuzz(func(t *testing.T, frame []byte, fixSum bool) {
		if fixSum {
			for _, l3 := range []int{14, 18} {
				if len(frame) < l3+20 || binary.BigEndian.Uint16(frame[l3-2:]) != packet.EtherTypeIPv4 {
					continue
				}
				if n := int(frame[l3]&0xf) * 4; n >= 20 && len(frame) >= l3+n {
					h := frame[l3 : l3+n]
					h[10], h[11] = 0, 0
					binary.BigEndian.PutUint16(h[10:], naiveChecksum(h))
				}
			}
		}
		// The capacity ends with the frame, so reading past it panics.
		frame = frame[:len(frame):len(frame)]
		var got packet.Parsed
		got.Decode(frame)
		var general packet.Parsed
		if general.DecodeGeneral(frame); got != general {
			t.Fatalf("quickly  %#v\ngeneral %#v", got, general)
		}
		if err := ordered(&got, len(frame)); err != "" {
			t.Fatalf("%s: %#v", err, got)
		}
		want, known := oracle(frame)
		switch {
		case known && want.Problem != got.Problem:
			t.Fatalf("problem %v, oracle says %v: %#v", got.Problem, want.Problem, got)
		case known && want.Problem == packet.ProblemNone && got != want:
			t.Fatalf("\n got %#v\nwant %#v", got, want)
		}
		// What the judge of whole frames accepts has no problem, but for what is
		// beyond weir, and what the judge does not look at: inside fragments.
		if packettest.CheckWellFormed(frame) == nil && !got.Fragment {
			switch got.Problem {
			case packet.ProblemNone, packet.ProblemVLAN, packet.ProblemExtension:
			default:
				t.Fatalf("a well-formed frame is %v: %#v", got.Problem, got)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, bm := range []struct {
		name  string
		v6    bool
		proto uint8
		vlan  uint16
	}{
		{"v4/udp", false, packet.ProtoUDP, 0},
		{"v4/tcp", false, packet.ProtoTCP, 0},
		{"v6/udp", true, packet.ProtoUDP, 0},
		{"v6/tcp", true, packet.ProtoTCP, 0},
		{"v4/udp/tagged", false, packet.ProtoUDP, 7},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := spec(bm.v6, bm.proto)
			s.VLAN = bm.vlan
			frame := packettest.Frame(s)
			var p packet.Parsed
			b.ReportAllocs()
			for b.Loop() {
				p.Decode(frame)
			}
		})
	}
}
