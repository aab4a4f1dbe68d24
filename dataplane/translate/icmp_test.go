package translate_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// head is the first eight bytes of an ICMP message without the checksum.
type head struct {
	typ, code uint8
	rest      uint32
}

// none stands for an error that is not passed on.
var none = head{}

// crossing is one line of a table of RFC 7915.
type crossing struct {
	before, after head
}

// quotedPacket is the length of the packet that errors are about here.
const quotedPacket = 1500

// table46 is RFC 7915 §4.2 with figure 3, line by line.
func table46() []crossing {
	t := []crossing{
		{head{3, 0, 0}, head{1, 0, 0}},
		{head{3, 1, 0}, head{1, 0, 0}},
		{head{3, 2, 0}, head{4, 1, 6}},
		{head{3, 3, 0}, head{1, 4, 0}},
		{head{3, 5, 0}, head{1, 0, 0}},
		{head{3, 6, 0}, head{1, 0, 0}},
		{head{3, 7, 0}, head{1, 0, 0}},
		{head{3, 8, 0}, head{1, 0, 0}},
		{head{3, 9, 0}, head{1, 1, 0}},
		{head{3, 10, 0}, head{1, 1, 0}},
		{head{3, 11, 0}, head{1, 0, 0}},
		{head{3, 12, 0}, head{1, 0, 0}},
		{head{3, 13, 0}, head{1, 1, 0}},
		{head{3, 14, 0}, none},
		{head{3, 15, 0}, head{1, 1, 0}},
		{head{3, 16, 0}, none},
		{head{3, 255, 0}, none},
		// What used to be "unused" is not carried over.
		{head{3, 1, 0x12345678}, head{1, 0, 0}},

		{head{3, 4, 1400}, head{2, 0, 1420}},
		{head{3, 4, 1260}, head{2, 0, 1280}},
		{head{3, 4, 1259}, head{2, 0, 1280}},
		{head{3, 4, 68}, head{2, 0, 1280}},
		{head{3, 4, 1}, head{2, 0, 1280}},
		{head{3, 4, 9000}, head{2, 0, 9020}},
		{head{3, 4, 65535}, head{2, 0, 65535}}, // no more than the MTU given
		{head{3, 4, 0xffff0000 | 1400}, head{2, 0, 1420}},
		{head{3, 4, 0}, head{2, 0, 1512}}, // plateau 1492

		{head{11, 0, 0}, head{3, 0, 0}},
		{head{11, 1, 0}, head{3, 1, 0}},

		{head{12, 1, 0}, none},
		{head{12, 3, 0}, none},
	}
	pointers := map[uint32]uint32{
		0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, 12: 8, 13: 8, 14: 8, 15: 8, 16: 24, 17: 24, 18: 24, 19: 24,
	}
	for pointer := range uint32(256) {
		for _, code := range []uint8{0, 2} {
			after := none
			if to, ok := pointers[pointer]; ok {
				after = head{4, 0, to}
			}
			t = append(t, crossing{head{12, code, pointer<<24 | 0x777777}, after})
		}
	}
	return t
}

// table64 is RFC 7915 §5.2 with figure 6, line by line.
func table64() []crossing {
	t := []crossing{
		{head{1, 0, 0}, head{3, 1, 0}},
		{head{1, 1, 0}, head{3, 10, 0}},
		{head{1, 2, 0}, head{3, 1, 0}},
		{head{1, 3, 0}, head{3, 1, 0}},
		{head{1, 4, 0}, head{3, 3, 0}},
		{head{1, 5, 0}, none},
		{head{1, 6, 0}, none},
		{head{1, 255, 0}, none},
		{head{1, 0, 0x12345678}, head{3, 1, 0}},

		{head{2, 0, 1500}, head{3, 4, 1480}},
		{head{2, 0, 1280}, head{3, 4, 1260}},
		{head{2, 7, 1400}, head{3, 4, 1380}},
		// No IPv6 link is like this, nor may it bring an IPv4 sender down.
		{head{2, 0, 1279}, head{3, 4, 1260}},
		{head{2, 0, 0}, head{3, 4, 1260}},
		// More than IPv4 has words for.
		{head{2, 0, 70000}, head{3, 4, 65535}},
		{head{2, 0, 0xffffffff}, head{3, 4, 65535}},

		{head{3, 0, 0}, head{11, 0, 0}},
		{head{3, 1, 0}, head{11, 1, 0}},

		{head{4, 1, 40}, head{3, 2, 0}},
		{head{4, 2, 40}, none},
		{head{4, 3, 0}, none},
		{head{4, 0, 0xffffffff}, none},
	}
	for pointer := range uint32(300) {
		after := none
		switch {
		case pointer <= 1:
			after = head{12, 0, pointer << 24}
		case pointer == 4, pointer == 5:
			after = head{12, 0, 2 << 24}
		case pointer == 6:
			after = head{12, 0, 9 << 24}
		case pointer == 7:
			after = head{12, 0, 8 << 24}
		case pointer >= 8 && pointer <= 23:
			after = head{12, 0, 12 << 24}
		case pointer >= 24 && pointer <= 39:
			after = head{12, 0, 16 << 24}
		}
		t = append(t, crossing{head{4, 0, pointer}, after})
	}
	return t
}

func TestErrorTables(t *testing.T) {
	for _, d := range directions {
		lines := table46()
		if d.from6 {
			lines = table64()
		}
		for _, line := range lines {
			after := line.after
			if !d.cross() {
				after = line.before // within a family nothing changes
			}
			s := sent(d.from6, packet.ProtoTCP, quotedPacket-d.header()-20)
			e := failure{
				d: d, typ: line.before.typ, code: line.before.code, rest: line.before.rest,
				sent: s, quoted: d.header() + 28,
			}
			got, reason := e.apply(t, noLimit)
			if after == none {
				if reason != stats.Untranslatable {
					t.Errorf("%v %v: %v, want %v", d, line.before, reason, stats.Untranslatable)
				}
				continue
			}
			if reason != stats.ReasonNone {
				t.Errorf("%v %v: %v, want %v", d, line.before, reason, after)
				continue
			}
			same(t, fmt.Sprintf("%v %v", d, line.before), got, e.wanted(after.typ, after.code, after.rest, 28, nil))
		}
	}
}

// TestErrorPlateaus: RFC 7915 §4.2 about a router that tells no MTU.
func TestErrorPlateaus(t *testing.T) {
	for _, tt := range []struct{ length, want int }{
		{65535, 32020}, {32001, 32020}, {32000, 17934}, {9000, 8186}, {8166, 4372}, {4352, 2022},
		{2003, 2022}, {2002, 1512}, {1500, 1512}, {1493, 1512}, {1492, 1280}, {600, 1280},
	} {
		e := failure{d: direction{false, true}, typ: 3, code: 4, sent: sent(false, packet.ProtoUDP, 100)}
		e.frame = func(s packettest.Spec) []byte { // of a longer packet than it is
			frame := packettest.Frame(s)
			h := packet.IPv4(ip(frame))
			h.SetTotalLength(uint16(tt.length))
			h.SetChecksum(h.ComputeChecksum())
			return frame
		}
		got, reason := e.apply(t, noLimit)
		if reason != stats.ReasonNone {
			t.Fatal(reason)
		}
		if mtu := binary.BigEndian.Uint32(ip(got)[44:]); mtu != uint32(tt.want) {
			t.Errorf("packet of %d bytes: MTU %d, want %d", tt.length, mtu, tt.want)
		}
		if n := int(packet.IPv6(ip(got)[48:]).PayloadLength()); n != tt.length-20 {
			t.Errorf("packet of %d bytes: quoted payload length %d", tt.length, n)
		}
	}
}

// TestErrorMTU: a too-big message says no more than the way to the sender has
// room for, and less by a fragment header if there is one.
func TestErrorMTU(t *testing.T) {
	first := func(s packettest.Spec) []byte { return packettest.Fragments(s, 1448)[0] }
	atomic := func(s packettest.Spec) []byte {
		s.Extensions = []uint8{packet.ProtoFragment}
		return packettest.Frame(s)
	}
	for _, tt := range []struct {
		d         direction
		frame     func(packettest.Spec) []byte
		said, mtu uint32
		want      uint32
	}{
		{direction{false, true}, packettest.Frame, 1400, 1500, 1420},
		{direction{false, true}, packettest.Frame, 1490, 1500, 1500},
		{direction{false, true}, first, 1400, 1500, 1420},
		{direction{false, true}, packettest.Frame, 0, 1500, 1500},
		{direction{true, false}, packettest.Frame, 1400, 1500, 1380},
		{direction{true, false}, packettest.Frame, 9000, 1500, 1500},
		{direction{true, false}, first, 1400, 1500, 1372},
		{direction{true, false}, atomic, 1400, 1500, 1372},
		{direction{true, false}, first, 0, 1500, 1252},
		{direction{false, false}, packettest.Frame, 1499, 1480, 1499},
		{direction{true, true}, packettest.Frame, 9000, 1480, 9000},
	} {
		e := failure{d: tt.d, typ: 3, code: 4, rest: tt.said, sent: sent(tt.d.from6, packet.ProtoUDP, 2000), frame: tt.frame}
		e.quoted = tt.d.header() + 60
		if tt.d.from6 {
			e.typ, e.code = 2, 0
		}
		got, reason := e.apply(t, tt.mtu)
		if reason != stats.ReasonNone {
			t.Fatal(reason)
		}
		if mtu := binary.BigEndian.Uint32(ip(got)[tt.d.after()+4:]); mtu != tt.want {
			t.Errorf("%v said %d on a way of %d: %d, want %d", tt.d, tt.said, tt.mtu, mtu, tt.want)
		}
		if err := packettest.CheckWellFormed(got); err != nil {
			t.Error(err)
		}
	}
}
