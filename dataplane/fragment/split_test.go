package fragment_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/fragment"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// ipv4 returns the packet in a frame, without padding.
func ipv4(frame []byte) []byte {
	p := frame[packet.EthernetLen:]
	return p[:binary.BigEndian.Uint16(p[2:])]
}

func split(t *testing.T, p []byte, mtu int) (pieces [][]byte) {
	t.Helper()
	before := bytes.Clone(p)
	s := fragment.NewSplitter(p, mtu)
	dst := make([]byte, mtu)
	for {
		n, ok := s.Next(dst)
		if !ok {
			break
		}
		if len(pieces) > 70000/8 {
			t.Fatal("there is no end of it")
		}
		pieces = append(pieces, bytes.Clone(dst[:n]))
	}
	if n, ok := s.Next(dst); ok || n != 0 {
		t.Error("another fragment after the last")
	}
	if !bytes.Equal(p, before) {
		t.Error("the packet was changed")
	}
	return pieces
}

// reassemble is what a naive receiver makes of pieces of one datagram, by RFC
// 791. It fails on what a receiver should never see.
func reassemble(t *testing.T, pieces [][]byte, mtu int) (payload []byte, base int, more bool) {
	t.Helper()
	for i, b := range pieces {
		if len(b) > mtu {
			t.Fatalf("piece %d has %d bytes, more than %d", i, len(b), mtu)
		}
		frame := append([]byte{12: 0x08, 13: 0x00}, b...)
		if err := packettest.CheckWellFormed(frame); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
		var ip layers.IPv4
		if err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			base = int(ip.FragOffset) * 8
		}
		if int(ip.FragOffset)*8 != base+len(payload) {
			t.Fatalf("piece %d is at %d, want %d", i, int(ip.FragOffset)*8, base+len(payload))
		}
		payload = append(payload, ip.Payload...)
		more = ip.Flags&layers.IPv4MoreFragments != 0
		if last := i == len(pieces)-1; !last && (!more || len(ip.Payload)%8 != 0) {
			t.Fatalf("piece %d of %d: more %v, %d bytes", i, len(pieces), more, len(ip.Payload))
		}
	}
	return payload, base, more
}

func TestSplit(t *testing.T) {
	for name, test := range map[string]struct {
		payload, mtu int
		want         []int // lengths of the pieces
	}{
		"fits":              {1472, 1500, []int{1500}},
		"a byte too long":   {1473, 1500, []int{1500, 21}},
		"three":             {4000, 1500, []int{1500, 1500, 1068}},
		"mtu is no 8 times": {2000, 1399, []int{1396, 652}},
		"the least mtu":     {100, 68, []int{68, 68, 32}},
		"too small an mtu":  {100, 67, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := ipv4(packettest.Frame(spec(packet.ProtoUDP, false, test.payload)))
			pieces := split(t, append(bytes.Clone(p), 1, 2, 3, 4), test.mtu) // padding does not count
			var got []int
			for _, b := range pieces {
				got = append(got, len(b))
				h := packet.IPv4(b)
				if h.ID() != 0xbeef || h.TTL() != 64 || h.Protocol() != packet.ProtoUDP || !bytes.Equal(b[12:20], p[12:20]) {
					t.Errorf("header %x of %x", b[:20], p[:20])
				}
			}
			if !equal(got, test.want) {
				t.Fatalf("pieces of %v bytes, want %v", got, test.want)
			}
			if payload, _, more := reassemble(t, pieces, test.mtu); test.want != nil && (!bytes.Equal(payload, p[20:]) || more) {
				t.Error("the pieces do not make the packet")
			}
		})
	}
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestSplitRespectsDontFragment(t *testing.T) {
	s := spec(packet.ProtoUDP, false, 4000)
	s.DontFragment = true
	if pieces := split(t, ipv4(packettest.Frame(s)), 1500); pieces != nil {
		t.Errorf("%d pieces", len(pieces))
	}
}

func TestSplitFragments(t *testing.T) {
	frames := packettest.Fragments(spec(packet.ProtoUDP, false, 4000), 1480)
	want := [3]struct {
		base int
		more bool
	}{{0, true}, {1480, true}, {2960, false}}
	for i, frame := range frames {
		p := ipv4(frame)
		pieces := split(t, p, 600)
		if len(pieces) < 2 {
			t.Fatalf("%d pieces", len(pieces))
		}
		payload, base, more := reassemble(t, pieces, 600)
		if base != want[i].base || more != want[i].more || !bytes.Equal(payload, p[20:]) {
			t.Errorf("fragment %d: at %d, more %v", i, base, more)
		}
	}
}

// withOptions puts options, padded, into a packet without.
func withOptions(p, options []byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := append(append(bytes.Clone(p[:20]), options...), p[20:]...)
	b[0] = 4<<4 | byte(5+len(options)/4)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	packet.IPv4(b).SetChecksum(packet.IPv4(b).ComputeChecksum())
	return b
}

func TestSplitOptions(t *testing.T) {
	record := []byte{7, 7, 4, 0, 0, 0, 0} // record route: not copied
	alert := []byte{0x94, 4, 0, 0}        // router alert: copied (RFC 2113)
	source := []byte{0x83, 7, 4, 10, 0, 0, 1}
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	for name, test := range map[string]struct {
		options, later []byte
	}{
		"none copied":        {join(record, []byte{1}), nil},
		"one copied":         {join([]byte{1}, record, alert), alert},
		"two copied":         {join(source, []byte{1, 1}, record, alert), append(join(source, alert), 0)},
		"behind the end":     {join(alert, []byte{0}, alert), alert},
		"after the end":      {join(alert, []byte{0, 2}, alert), alert},
		"without length":     {join(alert, []byte{1, 1, 1, 0x94}), alert},
		"length 0":           {join(alert, []byte{0x94, 0, 1, 1}), alert},
		"too long":           {join(alert, []byte{0x94, 9, 1, 1}), alert},
		"as many as can be":  {bytes.Repeat(alert, 10), bytes.Repeat(alert, 10)},
		"40 bytes, one left": {join(bytes.Repeat([]byte{1}, 36), alert), alert},
	} {
		t.Run(name, func(t *testing.T) {
			p := withOptions(ipv4(packettest.Frame(spec(packet.ProtoUDP, false, 3000))), bytes.Clone(test.options))
			pieces := split(t, p, 700)
			for i, b := range pieces {
				want := test.later
				if i == 0 {
					want = p[20:packet.IPv4(p).HeaderLen()]
				}
				for len(want)%4 != 0 {
					want = append(want, 0)
				}
				if got := b[20:packet.IPv4(b).HeaderLen()]; !bytes.Equal(got, want) {
					t.Errorf("piece %d has options %x, want %x", i, got, want)
				}
			}
			var payload []byte
			for _, b := range pieces {
				payload = append(payload, packet.IPv4(b).Payload()...)
			}
			if !bytes.Equal(payload, packet.IPv4(p).Payload()) {
				t.Error("the pieces do not make the packet")
			}
		})
	}
}

func TestSplitIntoTooLittleRoom(t *testing.T) {
	s := fragment.NewSplitter(ipv4(packettest.Frame(spec(packet.ProtoUDP, false, 3000))), 1500)
	dst := make([]byte, 1499)
	for range 2 {
		if n, ok := s.Next(dst); ok || n != 0 {
			t.Errorf("%d bytes", n)
		}
	}
}

func TestSplitNoAllocs(t *testing.T) {
	p := ipv4(packettest.Frame(spec(packet.ProtoUDP, false, 4000)))
	dst := make([]byte, 1500)
	if n := testing.AllocsPerRun(100, func() {
		s := fragment.NewSplitter(p, 1500)
		for ok := true; ok; {
			_, ok = s.Next(dst)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzSplit splits whatever Decode takes, and puts it together again.
func FuzzSplit(f *testing.F) {
	f.Add(ipv4(packettest.Frame(spec(packet.ProtoUDP, false, 3000))), uint16(1500))
	f.Add(ipv4(packettest.Frame(spec(packet.ProtoTCP, false, 300))), uint16(68))
	f.Add(ipv4(packettest.Fragments(spec(packet.ProtoUDP, false, 3000), 1480)[1]), uint16(576))
	s := spec(packet.ProtoUDP, false, 900)
	s.IPOptions = 10
	f.Add(ipv4(packettest.Frame(s)), uint16(68))
	f.Add(withOptions(ipv4(packettest.Frame(spec(packet.ProtoUDP, false, 900))), []byte{0x94, 4, 0, 0, 7, 3, 4}), uint16(100))
	f.Fuzz(func(t *testing.T, p []byte, mtu uint16) {
		var parsed packet.Parsed
		if len(p) >= packet.IPv4MinLen { // a fuzzer does not find checksums
			if n := packet.IPv4(p).HeaderLen(); n >= packet.IPv4MinLen && n <= len(p) {
				packet.IPv4(p).SetChecksum(packet.IPv4(p).ComputeChecksum())
			}
		}
		parsed.Decode(append([]byte{12: 0x08, 13: 0x00}, p...))
		if parsed.Kind != packet.KindIPv4 || parsed.Problem != packet.ProblemNone {
			return
		}
		p = p[:packet.IPv4(p).TotalLength()]
		pieces := split(t, p, int(mtu))
		h := packet.IPv4(p)
		if mtu < 68 || h.Flags()&packet.IPv4DontFragment != 0 {
			if pieces != nil {
				t.Fatalf("%d pieces", len(pieces))
			}
			return
		}
		if len(p) <= int(mtu) {
			if len(pieces) != 1 || !bytes.Equal(pieces[0], p) {
				t.Fatalf("a packet that fits became %x", pieces)
			}
			return
		}
		var options layers.IPv4
		if options.DecodeFromBytes(p, gopacket.NilDecodeFeedback) != nil {
			return // gopacket judges options that weir does not look at
		}
		payload, base, more := reassemble(t, pieces, int(mtu))
		if !bytes.Equal(payload, h.Payload()) || base != int(h.FragmentOffset()) ||
			more != (h.Flags()&packet.IPv4MoreFragments != 0) {
			t.Fatalf("%x became %x", p, pieces)
		}
	})
}
