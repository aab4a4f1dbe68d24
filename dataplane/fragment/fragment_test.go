package fragment_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/fragment"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func spec(proto uint8, v6 bool, size int) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2},
		Src: netip.MustParseAddrPort("192.0.2.1:4001"), Dst: netip.MustParseAddrPort("203.0.113.10:53"),
		Proto: proto, ID: 0xbeef, Payload: make([]byte, size),
	}
	for i := range s.Payload {
		s.Payload[i] = byte(i * 7)
	}
	if v6 {
		s.Src = netip.MustParseAddrPort("[2001:db8::1]:4001")
		s.Dst = netip.MustParseAddrPort("[2001:db8::10]:53")
	}
	return s
}

func decode(frame []byte) *packet.Parsed {
	p := new(packet.Parsed)
	p.Decode(frame)
	return p
}

func TestKeyOf(t *testing.T) {
	tagged := spec(packet.ProtoUDP, true, 3000)
	tagged.VLAN = 7
	extended := spec(packet.ProtoUDP, true, 3000)
	extended.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOptions}
	options := spec(packet.ProtoUDP, false, 3000)
	options.IPOptions = 3
	padded := spec(packet.ProtoUDP, false, 3000)
	padded.Padding = 9
	for name, s := range map[string]packettest.Spec{
		"IPv4":            spec(packet.ProtoUDP, false, 3000),
		"IPv4, options":   options,
		"IPv4, padding":   padded,
		"IPv6":            spec(packet.ProtoUDP, true, 3000),
		"IPv6, VLAN":      tagged,
		"IPv6, extension": extended,
	} {
		t.Run(name, func(t *testing.T) {
			want := fragment.Key{Src: packet.Addr16(s.Src.Addr()), Dst: packet.Addr16(s.Dst.Addr()), ID: 0xbeef}
			if s.Src.Addr().Is4() {
				want.Proto = packet.ProtoUDP
			}
			const size, whole = 1400, 3008
			for i, frame := range packettest.Fragments(s, size) {
				p := decode(frame)
				if p.Problem != packet.ProblemNone || !p.Fragment {
					t.Fatalf("fragment %d: %+v", i, p)
				}
				key, span := fragment.KeyOf(frame, p)
				if key != want {
					t.Errorf("fragment %d: key %+v, want %+v", i, key, want)
				}
				length := min(size, whole-i*size)
				if want := (fragment.Span{Offset: i * size, Length: length, More: i*size+length < whole}); span != want {
					t.Errorf("fragment %d: %+v, want %+v", i, span, want)
				}
			}
		})
	}
}

// TestKeyOfExtensionInFragments is what fragments of a packet look like whose
// sender puts options after the fragment header: only the first one says that
// it is UDP.
func TestKeyOfExtensionInFragments(t *testing.T) {
	s := spec(packet.ProtoDestOptions, true, 0)
	s.Payload = append([]byte{packet.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, // a destination options header
		0x0f, 0xa1, 0, 53, 0x05, 0xe0, 1, 1) // UDP, ports 4001 and 53
	s.Payload = append(s.Payload, make([]byte, 1496)...)
	frames := packettest.Fragments(s, 800)
	first, later := decode(frames[0]), decode(frames[1])
	if first.Proto != packet.ProtoUDP || first.DstPort != 53 || later.Proto != packet.ProtoDestOptions {
		t.Fatalf("first %+v, later %+v", first, later)
	}
	key, span := fragment.KeyOf(frames[0], first)
	if key.ID != 0xbeef || span != (fragment.Span{Offset: 0, Length: 800, More: true}) {
		t.Errorf("first: %+v %+v", key, span)
	}
	other, span := fragment.KeyOf(frames[1], later)
	if other != key || span != (fragment.Span{Offset: 800, Length: 712}) {
		t.Errorf("later: %+v %+v", other, span)
	}
}

func TestTiny(t *testing.T) {
	const tcp, udp, icmp = packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMPv4
	options := func(s packettest.Spec) packettest.Spec {
		s.TCPOptions = true // a header of 40 bytes
		return s
	}
	chain := spec(packet.ProtoDestOptions, true, 0)
	chain.Payload = append([]byte{packet.ProtoUDP, 3, 1, 28}, make([]byte, 100)...)
	chain.Payload[32+5] = 72 // length of the UDP datagram behind the 32 bytes of options
	for name, test := range map[string]struct {
		spec packettest.Spec
		size int    // of the fragments
		want []bool // of the first ones
	}{
		"TCP in 8":                 {spec(tcp, false, 100), 8, []bool{true, true, true, false, false}},
		"TCP in 16":                {spec(tcp, false, 100), 16, []bool{true, true, false}},
		"TCP in 24":                {spec(tcp, false, 100), 24, []bool{false, false, false}},
		"TCP in 24, IPv6":          {spec(tcp, true, 100), 24, []bool{false, false, false}},
		"TCP in 8, IPv6":           {spec(tcp, true, 100), 8, []bool{true, true, true, false}},
		"TCP with options in 24":   {options(spec(tcp, false, 100)), 24, []bool{true, false, false}},
		"TCP with options in 32":   {options(spec(tcp, true, 100)), 32, []bool{true, false}},
		"TCP with options in 40":   {options(spec(tcp, false, 100)), 40, []bool{false, false}},
		"UDP in 8":                 {spec(udp, false, 100), 8, []bool{false, false, false}},
		"ICMP in 8":                {spec(icmp, false, 100), 8, []bool{false, false}},
		"extension headers in 16":  {chain, 16, []bool{true, false, false}},
		"extension headers in 32":  {chain, 32, []bool{true, false}},
		"extension headers in 40":  {chain, 40, []bool{false, false}},
		"a protocol without ports": {spec(packet.ProtoGRE, false, 100), 8, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			frames := packettest.Fragments(test.spec, test.size)
			for i, want := range test.want {
				p := decode(frames[i])
				if got := fragment.Tiny(p, frames[i]); got != want {
					t.Errorf("fragment %d: %v, want %v (%v)", i, got, want, p.Problem)
				}
				if !want && p.Problem != packet.ProblemNone {
					t.Errorf("fragment %d is not tiny but has a problem: %v", i, p.Problem)
				}
			}
		})
	}
}

func TestTinyIsNotEverything(t *testing.T) {
	whole := packettest.Frame(spec(packet.ProtoTCP, false, 100))
	if fragment.Tiny(decode(whole), whole) {
		t.Error("a whole packet is tiny")
	}
	cut := packettest.Frame(spec(packet.ProtoTCP, false, 0))
	binary.BigEndian.PutUint16(cut[14+2:], 24) // total length
	binary.BigEndian.PutUint16(cut[14+10:], packet.IPv4(cut[14:]).ComputeChecksum())
	if p := decode(cut); p.Problem != packet.ProblemTruncated || fragment.Tiny(p, cut) {
		t.Errorf("a whole packet that is cut short (%v) is tiny", p.Problem)
	}
	wrong := packettest.Fragments(spec(packet.ProtoTCP, false, 100), 64)[0]
	wrong[14+20+12] = 0x40 // data offset of 16 bytes
	if p := decode(wrong); p.Problem != packet.ProblemMalformed || fragment.Tiny(p, wrong) {
		t.Errorf("a malformed first fragment (%v) is tiny", p.Problem)
	}
}

func FuzzKeyOf(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, frame := range packettest.Fragments(spec(packet.ProtoTCP, v6, 100), 40) {
			f.Add(frame)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 14+20 && frame[12] == 0x08 && frame[13] == 0x00 { // a fuzzer does not find checksums
			if ip := packet.IPv4(frame[14:]); ip.HeaderLen() >= 20 && ip.HeaderLen() <= len(ip) {
				ip.SetChecksum(ip.ComputeChecksum())
			}
		}
		p := decode(frame)
		fragment.Tiny(p, frame)
		if !p.Fragment || p.Problem != packet.ProblemNone {
			return
		}
		key, span := fragment.KeyOf(frame, p)
		if key.Src != p.Src || key.Dst != p.Dst {
			t.Fatalf("key %+v of %x", key, frame)
		}
		if span.Offset%8 != 0 || span.Length < 0 || span.Offset+span.Length > 0xffff || (span.Offset == 0) != p.FragmentFirst {
			t.Fatalf("%+v of %x", span, frame)
		}
		if span.Offset == 0 && !span.More {
			t.Fatalf("%x is no fragment", frame)
		}
	})
}
