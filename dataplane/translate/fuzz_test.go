package translate_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// addresses makes two addresses of one family out of a number.
func addresses(seed uint64, v6 bool) (src, dst [16]byte) {
	if !v6 {
		var a, b [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(seed))
		binary.BigEndian.PutUint32(b[:], uint32(seed>>32))
		return packet.Mapped(a), packet.Mapped(b)
	}
	for i := range src {
		src[i] = byte(seed >> (i % 8 * 8) * uint64(i+1))
		dst[i] = byte(seed >> (i % 7 * 8) * uint64(i+3))
	}
	src[0], dst[0] = 0x20, 0x20 // not IPv4-mapped
	return src, dst
}

// corpus is frames of all shapes, for one seed each.
func corpus() (frames [][]byte) {
	for _, v6 := range []bool{false, true} {
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			s := spec(v6, proto)
			frames = append(frames, packettest.Frame(s))
			s.TCPFlags, s.TCPOptions, s.NoUDPChecksum, s.VLAN = packet.TCPSyn, true, !v6, 7
			s.IPOptions, s.Extensions = 3, []uint8{packet.ProtoHopByHop, packet.ProtoFragment}
			frames = append(frames, packettest.Frame(s))
			s.Payload, s.Extensions = make([]byte, 100), []uint8{packet.ProtoRouting}
			frames = append(frames, packettest.Fragments(s, 48)...)
		}
	}
	return append(frames, withOptions(131, 7, 4, 9, 9, 9, 9), withExtensions(44, 60),
		segment(false, packet.TCPSyn, []byte{1, 2, 4, 5, 0xb4}), segment(true, packet.TCPSyn, []byte{8, 9, 2, 4}))
}

// FuzzPacket translates whatever Decode lets pass, to both families. What leaves
// is a packet of the new flow that Decode likes, well-formed if what came was;
// what does not leave is untouched.
func FuzzPacket(f *testing.F) {
	for i, frame := range corpus() {
		f.Add(frame, uint64(0x0a000001_0a000002)*uint64(i+1), uint32(0x9c4020fb), uint16(i*100), uint16(noLimit))
	}
	f.Fuzz(func(t *testing.T, frame []byte, seed uint64, ports uint32, mss, mtu uint16) {
		p := decodeAny(frame)
		if p.Problem != packet.ProblemNone || p.Kind != packet.KindIPv4 && p.Kind != packet.KindIPv6 {
			return
		}
		wellFormed := packettest.CheckWellFormed(frame) == nil
		for _, to6 := range []bool{false, true} {
			to := packet.Tuple{SrcPort: uint16(ports >> 16), DstPort: uint16(ports), Proto: p.Proto}
			to.Src, to.Dst = addresses(seed, to6)
			if p.Fragment && !p.FragmentFirst {
				to.SrcPort, to.DstPort = 0, 0
			}
			c := between(&p.Tuple, &to, mss)
			b := buffer(frame)
			l3, reason := c.Packet(&b, &p, uint32(mtu))
			sameAsWhole(t, &c, frame, &p, uint32(mtu), to6, b, reason)
			if reason != stats.ReasonNone {
				refused(t, b, frame)
				continue
			}
			got := emit(t, b, frame, l3)
			if n := len(ip(got)); n > int(mtu) || uint32(n) != translate.Grown(&p, to6) {
				t.Fatalf("%d bytes, MTU %d, said to be %d", n, mtu, translate.Grown(&p, to6))
			}
			q := decodeAny(got)
			if q.Problem != packet.ProblemNone || q.Tuple != to || q.TTL != p.TTL-1 || q.TrafficClass != p.TrafficClass ||
				q.Fragment != p.Fragment || q.FragmentFirst != p.FragmentFirst || q.TCPFlags != p.TCPFlags {
				t.Fatalf("%+v became\n%+v, want %v", p, q, to)
			}
			if err := packettest.CheckWellFormed(got); wellFormed && err != nil {
				t.Fatalf("a well-formed frame became\n%x: %v", got, err)
			}
		}
	})
}

// sameAsWhole checks that Whole, where it may take the place of Change.Packet,
// makes the same of a frame: want, for that reason.
func sameAsWhole(t *testing.T, c *translate.Change, frame []byte, p *packet.Parsed, mtu uint32, to6 bool, want queue.Frame, reason stats.Reason) {
	t.Helper()
	if !p.Flow || (p.Kind == packet.KindIPv6) != to6 || p.TCPFlags&packet.TCPSyn != 0 {
		return
	}
	got := buffer(frame)
	if r := translate.Whole(&got, p, &c.Src, &c.Dst, c.SrcPort, c.DstPort, c.Delta, mtu); r != reason {
		t.Fatalf("whole: %v, want %v", r, reason)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Fatalf("whole: %x, want\n%x", got.Bytes(), want.Bytes())
	}
	if reason != stats.ReasonNone {
		return
	}
	var q packet.Parsed
	q.Decode(got.Bytes())
	if r := translate.Whole(&got, &q, &p.Src, &p.Dst, p.SrcPort, p.DstPort, ^c.Delta, mtu); r != stats.ReasonNone {
		return // no hop is left
	}
	if packettest.CheckWellFormed(frame) == nil && packettest.CheckWellFormed(got.Bytes()) != nil {
		t.Fatalf("a well-formed frame came back as\n%x", got.Bytes())
	}
}

// repair gives an ICMP error the checksums that a fuzzer does not find: its own,
// and that of a quoted IPv4 header.
func repair(frame []byte) []byte {
	frame = append([]byte(nil), frame...)
	p := decodeAny(frame)
	if p.Problem != packet.ProblemNone || p.Fragment || p.L4+packet.ICMPLen > p.End {
		return frame
	}
	b := frame[p.L4:p.End]
	switch {
	case p.Kind == packet.KindIPv4 && p.Proto == packet.ProtoICMPv4:
		if h := packet.IPv4(b[packet.ICMPLen:]); len(h) >= packet.IPv4MinLen && h.HeaderLen() >= packet.IPv4MinLen && h.HeaderLen() <= len(h) {
			h.SetChecksum(h.ComputeChecksum())
		}
		packet.ICMPv4(b).SetChecksum(packet.ICMPv4(b).ComputeChecksum())
	case p.Kind == packet.KindIPv6 && p.Proto == packet.ProtoICMPv6:
		packet.ICMPv6(b).SetChecksum(packet.ICMPv6(b).ComputeChecksum(p.Src, p.Dst))
	}
	return frame
}

// FuzzError does the same for errors: what leaves quotes a packet of the new
// flow.
func FuzzError(f *testing.F) {
	for i, frame := range corpus() {
		p := decodeAny(frame)
		d := direction{p.Kind == packet.KindIPv6, false}
		for typ, rest := range map[uint8]uint32{1: 0, 2: 1400, 3: 0x20200000, 4: 6, 11: 32 << 16, 12: 9 << 24} {
			e := failure{d: d, typ: typ, rest: rest, sent: spec(d.from6, packet.ProtoTCP)}
			e.frame = func(packettest.Spec) []byte { return append(make([]byte, 14), frame[p.L3:]...) }
			f.Add(e.came(), uint64(0x0a000001_0a000002)*uint64(i+1), uint32(0x9c4020fb), uint16(noLimit))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, seed uint64, ports uint32, mtu uint16) {
		frame = repair(frame)
		p := decodeAny(frame)
		var q packet.Quoted
		if !q.Decode(frame, &p) {
			return
		}
		wellFormed := packettest.CheckWellFormed(frame) == nil
		for _, to6 := range []bool{false, true} {
			c := translate.ErrorChange{Quoted: packet.Tuple{SrcPort: uint16(ports >> 16), DstPort: uint16(ports), Proto: q.Proto}}
			c.Src, c.Dst = addresses(seed, to6)
			c.Quoted.Src, c.Quoted.Dst = addresses(seed^0x1234567, to6)
			fuzzError(t, c, frame, &p, &q, mtu, wellFormed)
		}
	})
}

func fuzzError(t *testing.T, c translate.ErrorChange, frame []byte, p *packet.Parsed, q *packet.Quoted, mtu uint16, wellFormed bool) {
	b := buffer(frame)
	l3, reason := c.Packet(&b, p, q, uint32(mtu))
	if reason != stats.ReasonNone {
		refused(t, b, frame)
		return
	}
	got := emit(t, b, frame, l3)
	if n := len(ip(got)); n > int(mtu) {
		t.Fatalf("%d bytes, MTU %d", n, mtu)
	}
	after := decodeAny(got)
	if after.Problem != packet.ProblemNone || after.Src != c.Src || after.Dst != c.Dst || after.TTL != p.TTL-1 {
		t.Fatalf("%+v became\n%+v", p, after)
	}
	var quoted packet.Quoted
	if !quoted.Decode(got, &after) || quoted.Tuple != c.Quoted || quoted.Fragment != q.Fragment {
		t.Fatalf("quotes\n%+v, was\n%+v", quoted, q)
	}
	if err := packettest.CheckWellFormed(got); wellFormed && err != nil {
		t.Fatalf("a well-formed frame became\n%x: %v", got, err)
	}
}
