package translate_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// noLimit is an MTU that everything fits in.
const noLimit = 65535

// direction is a pair of families, "46" being from IPv4 to IPv6.
type direction struct{ from6, to6 bool }

var directions = []direction{{false, false}, {true, true}, {false, true}, {true, false}}

func (d direction) String() string {
	name := [2]byte{'4', '4'}
	if d.from6 {
		name[0] = '6'
	}
	if d.to6 {
		name[1] = '6'
	}
	return string(name[:])
}

// cross reports whether the two differ; header and after are the lengths of
// their IP headers.
func (d direction) cross() bool { return d.from6 != d.to6 }
func (d direction) header() int { return headerLen(d.from6) }
func (d direction) after() int  { return headerLen(d.to6) }
func headerLen(v6 bool) (n int) {
	if v6 {
		return packet.IPv6Len
	}
	return packet.IPv4MinLen
}

// Where packets come from and go to before and after translation.
func ends(v6, after bool) (src, dst netip.AddrPort) {
	switch {
	case v6 && after:
		return netip.MustParseAddrPort("[2001:db8:5::f0]:40000"), netip.MustParseAddrPort("[2001:db8:6::11]:8443")
	case v6:
		return netip.MustParseAddrPort("[2001:db8::1]:1234"), netip.MustParseAddrPort("[2001:db8:1::10]:443")
	case after:
		return netip.MustParseAddrPort("10.0.0.240:40000"), netip.MustParseAddrPort("10.0.0.11:8443")
	}
	return netip.MustParseAddrPort("192.0.2.1:1234"), netip.MustParseAddrPort("203.0.113.10:443")
}

func tuple(src, dst netip.AddrPort, proto uint8) packet.Tuple {
	return packet.Tuple{
		Src: packet.Addr16(src.Addr()), Dst: packet.Addr16(dst.Addr()),
		SrcPort: src.Port(), DstPort: dst.Port(), Proto: proto,
	}
}

// spec is what most packets here start from.
func spec(v6 bool, proto uint8) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2},
		Proto: proto, TOS: 0xb9, ID: 0x4711, TTL: 57,
		TCPFlags: packet.TCPPsh | packet.TCPAck, Seq: 0x01020304, Ack: 0x05060708,
		Payload: []byte("what the client wants"),
	}
	s.Src, s.Dst = ends(v6, false)
	return s
}

// change returns the Change of a packet built from s.
func (d direction) change(s packettest.Spec, mss uint16) translate.Change {
	from := tuple(s.Src, s.Dst, s.Proto)
	src, dst := ends(d.to6, true)
	to := tuple(src, dst, s.Proto)
	return between(&from, &to, mss)
}

func between(from, to *packet.Tuple, mss uint16) (c translate.Change) {
	c.Set(from, to, mss)
	return c
}

// translated returns what s is to become, by the rules of RFC 7915: the oracle
// then builds it from nothing. whole is false for fragments.
func (d direction) translated(s packettest.Spec, whole bool) packettest.Spec {
	s.Src, s.Dst = ends(d.to6, true)
	s.TTL--
	s.VLAN, s.Padding = 0, 0
	if !d.cross() {
		return s
	}
	atomic := len(s.Extensions) > 0 && s.Extensions[len(s.Extensions)-1] == packet.ProtoFragment
	s.FlowLabel, s.IPOptions, s.Extensions, s.DontFragment = 0, 0, nil, false
	if d.to6 {
		s.NoUDPChecksum = false
		return s
	}
	if atomic {
		s.ID = 42
	} else if whole {
		b := ip(packettest.Frame(s))
		s.DontFragment = len(b) > 1260
		s.ID = sum(b[20:], s.Proto)
	}
	return s
}

// sum returns the checksum in a transport header.
func sum(b []byte, proto uint8) uint16 {
	switch proto {
	case packet.ProtoTCP:
		return binary.BigEndian.Uint16(b[16:])
	case packet.ProtoUDP:
		return binary.BigEndian.Uint16(b[6:])
	}
	return binary.BigEndian.Uint16(b[2:])
}

// ip returns the IP packet in a frame without a tag.
func ip(frame []byte) []byte { return frame[packet.EthernetLen:] }

// canary is what the buffer has where nothing is to be written.
const canary = 0xc5

// tail is the room after a packet, of which half belongs to the frame.
const tail = 64

// buffer puts a frame where a driver would put it.
func buffer(frame []byte) queue.Frame {
	buf := bytes.Repeat([]byte{canary}, queue.Headroom+len(frame)+tail)
	copy(buf[queue.Headroom:], frame)
	return queue.Frame{
		Buf: buf[:len(buf)-tail/2], Start: queue.Headroom, End: uint32(queue.Headroom + len(frame)), ID: 7,
	}
}

// emit puts a link header before the packet at l3 and returns the frame. It
// fails if anything was written that is not part of the packet.
func emit(t *testing.T, f queue.Frame, frame []byte, l3 uint32) []byte {
	t.Helper()
	was := buffer(frame)
	end := int(was.End)
	if f.Start != was.Start || f.ID != was.ID || f.End > was.End || l3 > f.End {
		t.Fatalf("frame [%d:%d], packet at %d; it was [%d:%d]", f.Start, f.End, l3, was.Start, was.End)
	}
	all, before := f.Buf[:cap(f.Buf)], was.Buf[:cap(was.Buf)]
	if !bytes.Equal(all[:min(l3, f.Start)], before[:min(l3, was.Start)]) || !bytes.Equal(all[end:], before[end:]) {
		t.Fatalf("written outside the packet")
	}
	const linkLen = 18
	if l3 < linkLen {
		t.Fatalf("no room for a link header before %d", l3)
	}
	f.Start = l3 - packet.EthernetLen
	link := f.Buf[f.Start:l3]
	clear(link)
	binary.BigEndian.PutUint16(link[12:], packet.EtherTypeIPv4)
	if f.Buf[l3]>>4 == 6 {
		binary.BigEndian.PutUint16(link[12:], packet.EtherTypeIPv6)
	}
	return f.Bytes()
}

// refused fails if the frame has changed.
func refused(t *testing.T, f queue.Frame, frame []byte) {
	t.Helper()
	was := buffer(frame)
	if f.Start != was.Start || f.End != was.End || !bytes.Equal(f.Buf[:cap(f.Buf)], was.Buf[:cap(was.Buf)]) {
		t.Fatal("the frame has changed although it was refused")
	}
}

// apply translates a frame and returns what came of it.
func apply(t *testing.T, c translate.Change, frame []byte, mtu uint32) ([]byte, stats.Reason) {
	t.Helper()
	f := buffer(frame)
	p := decode(t, frame)
	l3, reason := c.Packet(&f, &p, mtu)
	if reason != stats.ReasonNone {
		refused(t, f, frame)
		return nil, reason
	}
	return emit(t, f, frame, l3), reason
}

func decode(t *testing.T, frame []byte) (p packet.Parsed) {
	t.Helper()
	p.Decode(frame)
	if p.Problem != packet.ProblemNone {
		t.Fatalf("the frame is bad: %v: %x", p.Problem, frame)
	}
	return p
}

// same fails unless got carries exactly the IP packet that want does, and is
// well-formed.
func same(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(ip(got), ip(want)) {
		t.Fatalf("%s: the packet became\n%x, want\n%x", name, ip(got), ip(want))
	}
	if err := packettest.CheckWellFormed(got); err != nil {
		t.Fatalf("%s: %v: %x", name, err, got)
	}
}
