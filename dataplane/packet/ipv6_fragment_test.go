package packet_test

import (
	"bytes"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func TestIPv6Fragment(t *testing.T) {
	fields := packet.IPv6FragmentFields{NextHeader: packet.ProtoUDP, Offset: 1448, More: true, ID: 0xdeadbeef}
	b := make([]byte, packet.IPv6FragmentLen)
	b[1] = 0xff
	h := packet.IPv6Fragment(b)
	h.Encode(&fields)
	if want := []byte{17, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef}; !bytes.Equal(b, want) {
		t.Fatalf("%x, want %x", b, want)
	}
	if h.NextHeader() != 17 || h.Offset() != 1448 || !h.More() || h.ID() != 0xdeadbeef {
		t.Fatalf("%d %d %t %x", h.NextHeader(), h.Offset(), h.More(), h.ID())
	}
	s := spec(true, packet.ProtoUDP)
	for _, tt := range []struct {
		extensions []uint8
		want       int
	}{
		{nil, 0},
		{[]uint8{packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOptions}, 0},
		{[]uint8{packet.ProtoFragment}, 40},
		{[]uint8{packet.ProtoHopByHop, packet.ProtoFragment, packet.ProtoDestOptions}, 48},
	} {
		s.Extensions = tt.extensions
		frame := packettest.Frame(s)
		var p packet.Parsed
		p.Decode(frame)
		if got := packet.IPv6(frame[p.L3:]).FragmentAt(int(p.L4 - p.L3)); got != tt.want {
			t.Errorf("%v: fragment header at %d, want %d", tt.extensions, got, tt.want)
		}
	}
}
