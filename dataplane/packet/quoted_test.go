package packet_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// quoting returns an ICMP error that comes to the client from a router on the
// way to the VIP and quotes b.
func quoting(v6 bool, typ, code uint8, rest uint32, b []byte) []byte {
	s := spec(v6, 0)
	s.Src, s.Dst = netip.MustParseAddrPort("198.51.100.7:0"), s.Src
	if v6 {
		s.Src = netip.MustParseAddrPort("[2001:db8:7::1]:0")
	}
	s.Payload = b
	return packettest.ICMP(s, typ, code, rest)
}

// ip returns the IP packet in a frame without a tag.
func ip(frame []byte) []byte { return frame[packet.EthernetLen:] }

func decodeQuoted(t *testing.T, frame []byte) (packet.Quoted, bool) {
	t.Helper()
	var p packet.Parsed
	p.Decode(frame)
	if p.Problem != packet.ProblemNone {
		t.Fatalf("the error itself is bad: %v", p.Problem)
	}
	q := packet.Quoted{MTU: 99, Fragment: true, L3: 7}
	ok := q.Decode(frame, &p)
	return q, ok
}

// TestQuoted checks what the quotation is made of, for every error of both
// families and as much and as little of the packet as may be quoted.
func TestQuoted(t *testing.T) {
	types := map[bool][]uint8{false: {3, 11, 12}, true: {1, 2, 3, 4}}
	for _, v6 := range []bool{false, true} {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			for _, variant := range []func(*packettest.Spec){
				func(*packettest.Spec) {},
				func(s *packettest.Spec) { s.Payload = bytes.Repeat([]byte("x"), 900) },
				func(s *packettest.Spec) { s.IPOptions = 3; s.Extensions = []uint8{packet.ProtoDestOptions} },
				func(s *packettest.Spec) { s.IPOptions = 10; s.Extensions = []uint8{packet.ProtoFragment} },
			} {
				s := spec(v6, proto)
				variant(&s)
				b := ip(packettest.Frame(s))
				var inner packet.Parsed
				inner.Decode(packettest.Frame(s))
				headers := int(inner.L4 - inner.L3)
				for _, n := range []int{headers + 8, headers + 20, len(b)} {
					for _, typ := range types[v6] {
						frame := quoting(v6, typ, 0, 0, b[:n])
						q, ok := decodeQuoted(t, frame)
						at := uint32(len(frame) - n)
						want := packet.Quoted{
							Tuple: inner.Tuple, Kind: inner.Kind,
							L3: at, L4: at + uint32(headers), End: at + uint32(n),
						}
						if !ok || q != want {
							t.Fatalf("v6=%t proto %d type %d, %d bytes quoted: %t\n%+v, want\n%+v", v6, proto, typ, n, ok, q, want)
						}
					}
				}
				for n := range headers + 8 {
					if _, ok := decodeQuoted(t, quoting(v6, types[v6][0], 0, 0, b[:n])); ok {
						t.Fatalf("v6=%t proto %d: a flow was found in %d bytes", v6, proto, n)
					}
				}
			}
		}
	}
}

func TestQuotedMTU(t *testing.T) {
	tests := []struct {
		name      string
		v6        bool
		typ, code uint8
		rest      uint32
		want      uint32
	}{
		{"fragmentation needed", false, 3, 4, 1400, 1400},
		{"fragmentation needed, from an old router", false, 3, 4, 0, 0},
		{"other unreachable", false, 3, 1, 1400, 0},
		{"time exceeded", false, 11, 0, 1400, 0},
		{"packet too big", true, 2, 0, 0x12345, 0x12345},
		{"other unreachable", true, 1, 0, 1400, 0},
	}
	for _, tt := range tests {
		q, ok := decodeQuoted(t, quoting(tt.v6, tt.typ, tt.code, tt.rest, ip(packettest.Frame(spec(tt.v6, packet.ProtoTCP)))))
		if !ok || q.MTU != tt.want {
			t.Errorf("%s v6=%t: MTU %d (%t), want %d", tt.name, tt.v6, q.MTU, ok, tt.want)
		}
	}
}

// TestQuotedRefused has everything that must not be taken for a flow's error.
func TestQuotedRefused(t *testing.T) {
	tcp4, tcp6 := ip(packettest.Frame(spec(false, packet.ProtoTCP))), ip(packettest.Frame(spec(true, packet.ProtoTCP)))
	changed := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	resummed := func(b []byte) []byte {
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], naiveChecksum(b[:20]))
		return b
	}
	long := func(v6 bool) packettest.Spec {
		s := spec(v6, packet.ProtoUDP)
		s.Payload = make([]byte, 100)
		return s
	}
	chain := spec(true, packet.ProtoUDP)
	chain.Extensions = []uint8{packet.ProtoRouting}
	chainBytes := ip(packettest.Frame(chain))
	tests := []struct {
		name  string
		frame []byte
	}{
		{"4 source quench", quoting(false, 4, 0, 0, tcp4)},
		{"4 redirect", quoting(false, 5, 0, 0, tcp4)},
		{"4 echo", quoting(false, 8, 0, 0, tcp4)},
		{"6 echo", quoting(true, 128, 0, 0, tcp6)},
		{"6 reserved error", quoting(true, 5, 0, 0, tcp6)},
		{"4 no error", packettest.Frame(spec(false, packet.ProtoTCP))},
		{"6 no error", packettest.Frame(spec(true, packet.ProtoTCP))},
		{"4 wrong icmp checksum", changed(quoting(false, 3, 1, 0, tcp4), 14+20+2, 0xaa)},
		{"6 wrong icmp checksum", changed(quoting(true, 1, 0, 0, tcp6), 14+40+2, 0xaa)},
		{"4 wrong quoted header checksum", quoting(false, 3, 1, 0, changed(tcp4, 10, 0xaa))},
		{"4 quotes version 6", quoting(false, 3, 1, 0, resummed(changed(tcp4, 0, 0x65)))},
		{"6 quotes version 4", quoting(true, 1, 0, 0, changed(tcp6, 0, 0x40))},
		{"4 quotes IPv6", quoting(false, 3, 1, 0, tcp6)},
		{"6 quotes IPv4", quoting(true, 1, 0, 0, tcp4)},
		{"4 header length 4", quoting(false, 3, 1, 0, changed(tcp4, 0, 0x44))},
		{"4 header longer than the quotation", quoting(false, 3, 1, 0, changed(tcp4[:28], 0, 0x4f))},
		{"4 total length shorter than ports", quoting(false, 3, 1, 0, resummed(changed(tcp4, 3, 27)))},
		{"4 total length shorter than the header", quoting(false, 3, 1, 0, resummed(changed(tcp4, 3, 19)))},
		{"6 payload length shorter than ports", quoting(true, 1, 0, 0, changed(tcp6, 5, 7))},
		{"4 icmp", quoting(false, 3, 1, 0, ip(packettest.EchoRequest(spec(false, 0), 1, 2)))},
		{"6 icmp", quoting(true, 1, 0, 0, ip(packettest.EchoRequest(spec(true, 0), 1, 2)))},
		{"6 quotes icmp of version 4", quoting(true, 1, 0, 0, changed(tcp6, 6, 1))},
		{"4 later fragment", quoting(false, 11, 1, 0, ip(packettest.Fragments(long(false), 48)[1]))},
		{"6 later fragment", quoting(true, 3, 1, 0, ip(packettest.Fragments(long(true), 48)[1]))},
		{"6 segments left", quoting(true, 1, 0, 0, changed(chainBytes, 43, 1))},
	}
	for _, tt := range tests {
		if q, ok := decodeQuoted(t, tt.frame); ok {
			t.Errorf("%s: taken for %v", tt.name, q.Tuple)
		}
	}
	// The first fragment of an error, whose checksum is right as it is.
	first4 := quoting(false, 3, 1, 0, tcp4)
	h := packet.IPv4(ip(first4))
	h.SetFragment(packet.IPv4MoreFragments, 0)
	h.SetChecksum(h.ComputeChecksum())
	s := spec(true, 0)
	s.Extensions, s.Payload = []uint8{packet.ProtoFragment}, tcp6
	first6 := packettest.ICMP(s, 1, 0, 0)
	if _, ok := decodeQuoted(t, first6); !ok {
		t.Error("6 an error in an atomic fragment: refused")
	}
	first6[14+40+3] |= 1
	for _, frame := range [][]byte{first4, first6} {
		if q, ok := decodeQuoted(t, frame); ok {
			t.Errorf("an error in fragments: taken for %v", q.Tuple)
		}
	}
}

// TestQuotedFirstFragment: it has ports.
func TestQuotedFirstFragment(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := spec(v6, packet.ProtoUDP)
		s.Payload = make([]byte, 100)
		typ := map[bool]uint8{false: 11, true: 3}[v6]
		q, ok := decodeQuoted(t, quoting(v6, typ, 1, 0, ip(packettest.Fragments(s, 48)[0])))
		if !ok || !q.Fragment || !q.FragmentFirst || q.SrcPort != 1234 || q.DstPort != 80 {
			t.Errorf("v6=%t: %t %+v", v6, ok, q)
		}
	}
}

// TestQuotedTunnel: of IP in IP, the outer header counts, all of the rest may be
// missing.
func TestQuotedTunnel(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, proto := range []uint8{packet.ProtoIPv4, packet.ProtoIPv6} {
			s := spec(v6, proto)
			header := map[bool]int{false: 20, true: 40}[v6]
			typ := map[bool]uint8{false: 3, true: 2}[v6]
			q, ok := decodeQuoted(t, quoting(v6, typ, 4, 1400, ip(packettest.Frame(s))[:header]))
			want := packet.Tuple{Src: packet.Addr16(s.Src.Addr()), Dst: packet.Addr16(s.Dst.Addr()), Proto: proto}
			if !ok || q.Tuple != want {
				t.Errorf("v6=%t proto %d: %t %v, want %v", v6, proto, ok, q.Tuple, want)
			}
		}
	}
}

// TestQuotedExtensions: the length of RFC 4884 says where the quotation ends,
// if it can be right; the quoted packet's own length, where padding begins.
func TestQuotedExtensions(t *testing.T) {
	extension := []byte{0x20, 0, 0, 0, 0, 8, 2, 1, 1, 2, 3, 4}
	for _, v6 := range []bool{false, true} {
		s := spec(v6, packet.ProtoUDP)
		s.Payload = make([]byte, 500)
		long := ip(packettest.Frame(s))
		s.Payload = make([]byte, 10)
		short := ip(packettest.Frame(s))
		padded := append(bytes.Clone(short), make([]byte, 128-len(short))...)
		typ, unit, shift := uint8(11), 4, 16
		if v6 {
			typ, unit, shift = 3, 8, 24
		}
		said := func(n int) uint32 { return uint32(n/unit) << shift }
		tests := []struct {
			name   string
			rest   uint32
			quoted []byte
			want   int
		}{
			{"length", said(128), append(bytes.Clone(long[:128]), extension...), 128},
			{"longer", said(256), append(bytes.Clone(long[:256]), extension...), 256},
			{"padded", said(128), append(bytes.Clone(padded), extension...), len(short)},
			{"no length", 0, long[:200], 200},
			{"too short to be meant", said(120), long[:200], 200},
			{"longer than the message", said(208), long[:200], 200},
		}
		for _, tt := range tests {
			q, ok := decodeQuoted(t, quoting(v6, typ, 0, tt.rest, tt.quoted))
			if got := int(q.End - q.L3); !ok || got != tt.want {
				t.Errorf("%s v6=%t: %d bytes quoted (%t), want %d", tt.name, v6, got, ok, tt.want)
			}
		}
	}
}

// FuzzQuoted: whatever a frame quotes, the offsets are in order and inside, and
// the tuple is what is there.
func FuzzQuoted(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		s := spec(v6, packet.ProtoUDP)
		s.Extensions, s.IPOptions = []uint8{packet.ProtoHopByHop, packet.ProtoFragment}, 2
		for _, typ := range []uint8{1, 2, 3, 4, 11, 12} {
			f.Add(quoting(v6, typ, 4, 1400, ip(packettest.Frame(s))))
			f.Add(quoting(v6, typ, 0, 0x20200000, ip(packettest.Frame(spec(v6, packet.ProtoTCP)))))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p packet.Parsed
		p.Decode(frame)
		// Nearly nothing that a fuzzer makes has a right checksum.
		if p.Problem == packet.ProblemNone && !p.Fragment && int(p.L4)+4 <= int(p.End) {
			m := frame[p.L4:p.End]
			switch {
			case p.Kind == packet.KindIPv4 && p.Proto == packet.ProtoICMPv4:
				packet.ICMPv4(m).SetChecksum(packet.ICMPv4(m).ComputeChecksum())
			case p.Kind == packet.KindIPv6 && p.Proto == packet.ProtoICMPv6:
				packet.ICMPv6(m).SetChecksum(packet.ICMPv6(m).ComputeChecksum(p.Src, p.Dst))
			}
		}
		var q packet.Quoted
		if !q.Decode(frame, &p) {
			return
		}
		if p.L4+8 != q.L3 || q.L3 >= q.L4 || q.L4 > q.End || q.End > p.End || q.Kind != p.Kind {
			t.Fatalf("%+v in %+v", q, p)
		}
		if q.Fragment != q.FragmentFirst {
			t.Fatalf("a fragment without ports: %+v", q)
		}
		if q.Proto == packet.ProtoTCP || q.Proto == packet.ProtoUDP {
			src, dst := binary.BigEndian.Uint16(frame[q.L4:]), binary.BigEndian.Uint16(frame[q.L4+2:])
			if q.End-q.L4 < 8 || src != q.SrcPort || dst != q.DstPort {
				t.Fatalf("%+v", q)
			}
		} else if q.SrcPort|q.DstPort != 0 {
			t.Fatalf("ports of protocol %d", q.Proto)
		}
	})
}

func TestQuotedAllocatesNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		frame := quoting(v6, map[bool]uint8{false: 3, true: 1}[v6], 1, 0, ip(packettest.Frame(spec(v6, packet.ProtoTCP))))
		var p packet.Parsed
		var q packet.Quoted
		p.Decode(frame)
		if n := testing.AllocsPerRun(100, func() { q.Decode(frame, &p) }); n != 0 {
			t.Errorf("v6=%t: %v allocations", v6, n)
		}
	}
}
