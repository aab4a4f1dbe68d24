package translate_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// withOptions returns a packet with these IPv4 options.
func withOptions(options ...byte) []byte {
	s := spec(false, packet.ProtoTCP)
	s.IPOptions = (len(options) + 3) / 4
	frame := packettest.Frame(s)
	h := packet.IPv4(ip(frame))
	copy(h[20:], options)
	h.SetChecksum(h.ComputeChecksum())
	return frame
}

func withExtensions(extensions ...uint8) []byte {
	s := spec(true, packet.ProtoUDP)
	s.Extensions = extensions
	return packettest.Frame(s)
}

func large(v6 bool, payload int) packettest.Spec {
	s := spec(v6, packet.ProtoUDP)
	s.Payload = make([]byte, payload)
	return s
}

// TestReasons has every packet that may not pass, and its neighbour that may.
func TestReasons(t *testing.T) {
	d44, d66, d46, d64 := directions[0], directions[1], directions[2], directions[3]
	ttl := func(v6 bool, n uint8) []byte {
		s := spec(v6, packet.ProtoTCP)
		frame := packettest.Frame(s)
		if h := ip(frame); v6 {
			packet.IPv6(h).SetHopLimit(n)
		} else {
			packet.IPv4(h).SetTTL(n)
			packet.IPv4(h).SetChecksum(packet.IPv4(h).ComputeChecksum())
		}
		return frame
	}
	noSum := large(false, 100)
	noSum.NoUDPChecksum = true
	behind := large(true, 100)
	behind.Extensions = []uint8{packet.ProtoHopByHop}
	reassembled := func(at int) []byte { // a last fragment of 16 bytes
		s := large(true, 8)
		s.Extensions = []uint8{packet.ProtoFragment}
		frame := packettest.Frame(s)
		binary.BigEndian.PutUint16(frame[14+40+2:], uint16(at))
		return frame
	}
	tests := []struct {
		name  string
		d     direction
		frame []byte
		mtu   uint32
		want  stats.Reason
	}{
		{"ttl 1", d44, ttl(false, 1), noLimit, stats.TTLExpired},
		{"ttl 0", d44, ttl(false, 0), noLimit, stats.TTLExpired},
		{"ttl 2", d44, ttl(false, 2), noLimit, stats.ReasonNone},
		{"ttl 1", d46, ttl(false, 1), noLimit, stats.TTLExpired},
		{"ttl 2", d46, ttl(false, 2), noLimit, stats.ReasonNone},
		{"hop limit 1", d66, ttl(true, 1), noLimit, stats.TTLExpired},
		{"hop limit 2", d66, ttl(true, 2), noLimit, stats.ReasonNone},
		{"hop limit 1", d64, ttl(true, 1), noLimit, stats.TTLExpired},
		{"hop limit 2", d64, ttl(true, 2), noLimit, stats.ReasonNone},
		{"ttl before length", d46, ttl(false, 1), 20, stats.TTLExpired},

		{"fits", d44, packettest.Frame(large(false, 1472)), 1500, stats.ReasonNone},
		{"too long", d44, packettest.Frame(large(false, 1473)), 1500, stats.TooBig},
		{"fits", d66, packettest.Frame(large(true, 1452)), 1500, stats.ReasonNone},
		{"too long", d66, packettest.Frame(large(true, 1453)), 1500, stats.TooBig},
		{"fits", d46, packettest.Frame(large(false, 1452)), 1500, stats.ReasonNone},
		{"too long", d46, packettest.Frame(large(false, 1453)), 1500, stats.TooBig},
		{"fits", d64, packettest.Frame(large(true, 1472)), 1500, stats.ReasonNone},
		{"too long", d64, packettest.Frame(large(true, 1473)), 1500, stats.TooBig},
		{"longer than IPv4 has words for", d64, packettest.Frame(large(true, 65520)), 1 << 20, stats.TooBig},
		{"fragment fits", d46, packettest.Fragments(large(false, 1000), 800)[0], 848, stats.ReasonNone},
		{"fragment too long", d46, packettest.Fragments(large(false, 1000), 800)[0], 847, stats.TooBig},
		{"padding does not count", d44, append(packettest.Frame(large(false, 1472)), 0, 0), 1500, stats.ReasonNone},
		{"length before source route", d46, withOptions(131, 7, 4, 9, 9, 9, 9), 20, stats.TooBig},

		{"not tcp or udp", d44, packettest.Frame(spec(false, packet.ProtoGRE)), noLimit, stats.Untranslatable},
		{"not tcp or udp", d64, packettest.Frame(spec(true, packet.ProtoGRE)), noLimit, stats.Untranslatable},
		{"ping", d66, packettest.EchoRequest(spec(true, 0), 1, 2), noLimit, stats.Untranslatable},

		{"loose source route", d46, withOptions(131, 7, 4, 9, 9, 9, 9), noLimit, stats.Untranslatable},
		{"strict source route", d46, withOptions(1, 137, 7, 4, 9, 9, 9, 9), noLimit, stats.Untranslatable},
		{"pointer at the end", d46, withOptions(131, 7, 7, 9, 9, 9, 9), noLimit, stats.Untranslatable},
		{"source route used up", d46, withOptions(131, 7, 8, 9, 9, 9, 9), noLimit, stats.ReasonNone},
		{"source route behind record route", d46, withOptions(7, 7, 4, 9, 9, 9, 9, 131, 3, 2), noLimit, stats.Untranslatable},
		{"source route in another option", d46, withOptions(7, 7, 4, 131, 7, 4, 9), noLimit, stats.ReasonNone},
		{"source route behind the end", d46, withOptions(0, 131, 7, 4, 9, 9, 9, 9), noLimit, stats.ReasonNone},
		{"option of length 0", d46, withOptions(7, 0, 131, 7), noLimit, stats.ReasonNone},
		{"option of length 1", d46, withOptions(7, 1, 131, 7), noLimit, stats.ReasonNone},
		{"option longer than the header", d46, withOptions(7, 5, 131, 7), noLimit, stats.ReasonNone},
		{"source route without pointer", d46, withOptions(1, 1, 131, 2), noLimit, stats.ReasonNone},
		{"source route cut short", d46, withOptions(1, 1, 1, 131), noLimit, stats.ReasonNone},
		{"source route", d44, withOptions(131, 7, 4, 9, 9, 9, 9), noLimit, stats.ReasonNone},

		{"udp fragments without checksum", d46, packettest.Fragments(noSum, 48)[0], noLimit, stats.Untranslatable},
		{"udp fragments without checksum", d44, packettest.Fragments(noSum, 48)[0], noLimit, stats.ReasonNone},
		{"later udp fragment", d46, packettest.Fragments(noSum, 48)[1], noLimit, stats.ReasonNone},

		{"hop-by-hop, destination, routing", d64, withExtensions(0, 60, 43), noLimit, stats.ReasonNone},
		{"atomic fragment", d64, withExtensions(60, 44), noLimit, stats.ReasonNone},
		{"options behind a fragment header", d64, withExtensions(44, 60), noLimit, stats.Untranslatable},
		{"options behind a fragment header", d66, withExtensions(44, 60), noLimit, stats.ReasonNone},
		{"hop-by-hop before a fragment", d64, packettest.Fragments(behind, 48)[1], noLimit, stats.ReasonNone},
		{"last byte that IPv4 can reassemble", d64, reassembled(65496), noLimit, stats.ReasonNone},
		{"longer than IPv4 can reassemble", d64, reassembled(65504), noLimit, stats.Untranslatable},
	}
	for _, tt := range tests {
		from := decode(t, tt.frame).Tuple
		src, dst := ends(tt.d.to6, true)
		to := tuple(src, dst, from.Proto)
		got, reason := apply(t, between(&from, &to, 0), tt.frame, tt.mtu)
		if reason != tt.want {
			t.Errorf("%v %s: %v, want %v", tt.d, tt.name, reason, tt.want)
			continue
		}
		if reason == stats.ReasonNone {
			if err := packettest.CheckWellFormed(got); err != nil {
				t.Errorf("%v %s: %v", tt.d, tt.name, err)
			}
		}
	}
}

// TestGrown: it is the length of what Packet makes.
func TestGrown(t *testing.T) {
	for _, d := range directions {
		s := large(d.from6, 300)
		s.IPOptions, s.Extensions = 3, []uint8{packet.ProtoHopByHop}
		for i, frame := range append(packettest.Fragments(s, 104), packettest.Frame(s)) {
			p := decode(t, frame)
			n := translate.Grown(&p, d.to6)
			got, reason := apply(t, d.change(s, 0), frame, n)
			if reason != stats.ReasonNone || uint32(len(ip(got))) != n {
				t.Errorf("%v frame %d: %d bytes (%v), said to be %d", d, i, len(ip(got)), reason, n)
			}
			if _, reason := apply(t, d.change(s, 0), frame, n-1); reason != stats.TooBig {
				t.Errorf("%v frame %d: %v with an MTU one byte less", d, i, reason)
			}
		}
	}
}

// TestIdentification pins the rule of RFC 7915 §5.1 for Don't Fragment.
func TestIdentification(t *testing.T) {
	d := direction{true, false}
	for _, tt := range []struct {
		payload int
		df      bool
	}{{0, false}, {1260 - 28, false}, {1260 - 28 + 1, true}} {
		s := large(true, tt.payload)
		s.Padding = 5
		got, _ := apply(t, d.change(s, 0), packettest.Frame(s), noLimit)
		h := packet.IPv4(ip(got))
		if df := h.Flags() == packet.IPv4DontFragment; df != tt.df || h.Flags()&^packet.IPv4DontFragment != 0 {
			t.Errorf("%d bytes: flags %#x", len(h), h.Flags())
		}
		if h.ID() != packet.UDP(h[20:]).Checksum() {
			t.Errorf("%d bytes: identification %#x", len(h), h.ID())
		}
	}
}

// TestUDPZeroSum: RFC 7915 §4.5, also with bytes behind the datagram.
func TestUDPZeroSum(t *testing.T) {
	s := large(false, 33)
	s.NoUDPChecksum = true
	s.Payload[32] = 0xee
	for _, d := range []direction{{false, false}, {false, true}} {
		frame := packettest.Frame(s)
		binary.BigEndian.PutUint16(frame[14+20+4:], 8+32) // the last byte belongs to nobody
		got, reason := apply(t, d.change(s, 0), frame, noLimit)
		if reason != stats.ReasonNone {
			t.Fatal(reason)
		}
		if err := packettest.CheckWellFormed(got); err != nil {
			t.Errorf("%v: %v", d, err)
		}
		if none := packet.UDP(ip(got)[d.after():]).Checksum() == 0; none != !d.to6 {
			t.Errorf("%v: without checksum: %t", d, none)
		}
	}
}

// segment returns a TCP segment of d's family with these options.
func segment(v6 bool, flags uint8, options []byte) []byte {
	s := spec(v6, packet.ProtoTCP)
	s.TCPFlags = flags
	n := (len(options) + 3) / 4 * 4
	s.Payload = append(append(append([]byte(nil), options...), make([]byte, n-len(options))...), "payload"...)
	frame := packettest.Frame(s)
	b := packet.TCP(frame[14+headerLen(v6):])
	b.SetHeaderLen(20 + n)
	p := decodeAny(frame)
	pseudo := packet.PseudoIPv6(p.Src, p.Dst, packet.ProtoTCP, uint32(len(b)))
	b.SetChecksum(b.ComputeChecksum(pseudo))
	return frame
}

func decodeAny(frame []byte) (p packet.Parsed) {
	p.Decode(frame)
	return p
}

// TestMSS: what follows the header says what has become of the options.
func TestMSS(t *testing.T) {
	const syn = packet.TCPSyn
	tests := []struct {
		name         string
		flags        uint8
		mss          uint16
		before, want []byte
	}{
		{"lowered", syn, 1400, []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0x78}},
		{"in a syn-ack", syn | packet.TCPAck, 1400, []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0x78}},
		{"equal", syn, 1460, []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0xb4}},
		{"never raised", syn, 1461, []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0xb4}},
		{"any", syn, 0, []byte{2, 4, 0xff, 0xff}, []byte{2, 4, 0xff, 0xff}},
		{"no syn", packet.TCPAck, 536, []byte{2, 4, 5, 0xb4}, []byte{2, 4, 5, 0xb4}},
		{"absent", syn, 536, nil, nil},
		{"at an odd place", syn, 1400, []byte{1, 2, 4, 5, 0xb4}, []byte{1, 2, 4, 5, 0x78}},
		{"at an odd place, both bytes", syn, 0x1234, []byte{1, 2, 4, 0xfe, 0xdc, 1, 1, 1}, []byte{1, 2, 4, 0x12, 0x34, 1, 1, 1}},
		{"behind others", syn, 1400, []byte{4, 2, 3, 3, 7, 1, 2, 4, 5, 0xb4}, []byte{4, 2, 3, 3, 7, 1, 2, 4, 5, 0x78}},
		{"twice", syn, 1400, []byte{2, 4, 5, 0xb4, 2, 4, 6, 0}, []byte{2, 4, 5, 0x78, 2, 4, 5, 0x78}},
		{"behind the end", syn, 1400, []byte{0, 2, 4, 5, 0xb4}, []byte{0, 2, 4, 5, 0xb4}},
		{"of another length", syn, 1400, []byte{2, 6, 5, 0xb4, 1, 1}, []byte{2, 6, 5, 0xb4, 1, 1}},
		{"behind length 0", syn, 1400, []byte{8, 0, 2, 4, 5, 0xb4}, []byte{8, 0, 2, 4, 5, 0xb4}},
		{"behind length 1", syn, 1400, []byte{8, 1, 2, 4, 5, 0xb4}, []byte{8, 1, 2, 4, 5, 0xb4}},
		{"cut short", syn, 1400, []byte{1, 1, 1, 1, 1, 2, 4, 5}, []byte{1, 1, 1, 1, 1, 2, 4, 5}},
		{"no length", syn, 1400, []byte{1, 1, 1, 2}, []byte{1, 1, 1, 2}},
		{"longer than the options", syn, 1400, []byte{8, 9, 2, 4, 5, 0xb4, 1, 1}, []byte{8, 9, 2, 4, 5, 0xb4, 1, 1}},
		{"looks like one in another", syn, 1400, []byte{8, 6, 2, 4, 5, 0xb4}, []byte{8, 6, 2, 4, 5, 0xb4}},
		{"full header", syn, 536, append(bytes.Repeat([]byte{1}, 36), 2, 4, 5, 0xb4), append(bytes.Repeat([]byte{1}, 36), 2, 4, 2, 0x18)},
	}
	for _, d := range directions {
		for _, tt := range tests {
			s := spec(d.from6, packet.ProtoTCP)
			frame := segment(d.from6, tt.flags, tt.before)
			got, reason := apply(t, d.change(s, tt.mss), frame, noLimit)
			if reason != stats.ReasonNone {
				t.Fatalf("%v %s: %v", d, tt.name, reason)
			}
			b := packet.TCP(ip(got)[d.after():])
			if options := b.Options(); !bytes.Equal(options[:len(tt.want)], tt.want) {
				t.Errorf("%v %s: % x, want % x", d, tt.name, options, tt.want)
			}
			p := decodeAny(got)
			if sum := b.Checksum(); sum != b.ComputeChecksum(packet.PseudoIPv6(p.Src, p.Dst, packet.ProtoTCP, uint32(len(b)))) {
				t.Errorf("%v %s: checksum %#04x is wrong", d, tt.name, sum)
			}
		}
	}
}

// TestMSSInFragments: in the first, it is clamped; bytes that look like an
// option in a later one are left alone.
func TestMSSInFragments(t *testing.T) {
	for _, d := range directions {
		s := spec(d.from6, packet.ProtoTCP)
		s.TCPFlags, s.TCPOptions, s.Payload = packet.TCPSyn, true, make([]byte, 300)
		plain, clamped := packettest.Fragments(s, 64), d.change(s, 1000)
		want := packettest.Fragments(d.translated(s, false), 64)
		for i, frame := range plain {
			got, reason := apply(t, clamped, frame, noLimit)
			if reason != stats.ReasonNone {
				t.Fatal(reason)
			}
			if i == 0 {
				b := packet.TCP(want[0][len(want[0])-64:])
				before := binary.BigEndian.Uint16(b[22:])
				binary.BigEndian.PutUint16(b[22:], 1000)
				b.SetChecksum(packet.Update16(b.Checksum(), before, 1000))
			}
			if !bytes.Equal(ip(got), ip(want[i])) {
				t.Errorf("%v fragment %d:\n%x, want\n%x", d, i, ip(got), ip(want[i]))
			}
		}
	}
}
