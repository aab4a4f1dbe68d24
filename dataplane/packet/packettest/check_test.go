package packettest_test

import (
	"net/netip"
	"strings"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func spec(v6 bool, proto uint8) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2},
		Src: netip.MustParseAddrPort("192.0.2.1:1234"), Dst: netip.MustParseAddrPort("203.0.113.10:80"),
		Proto: proto, TCPFlags: packet.TCPSyn, Payload: []byte("payload"),
	}
	if v6 {
		s.Src, s.Dst = netip.MustParseAddrPort("[2001:db8::1]:1234"), netip.MustParseAddrPort("[2001:db8::2]:80")
	}
	return s
}

// tunnel puts the packet in frame into another one.
func tunnel(outer6, inner6 bool, extra int) []byte {
	proto := packet.ProtoIPv4
	if inner6 {
		proto = packet.ProtoIPv6
	}
	s := spec(outer6, proto)
	s.Payload = packettest.Frame(spec(inner6, packet.ProtoUDP))[packet.EthernetLen:]
	s.Payload = append(s.Payload, make([]byte, extra)...)
	return packettest.Frame(s)
}

func TestCheckWellFormedAccepts(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		var frames [][]byte
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoGRE} {
			s := spec(v6, proto)
			frames = append(frames, packettest.Frame(s))
			frames = append(frames, packettest.Fragments(s, 8)...)
			s.VLAN, s.Padding, s.IPOptions, s.TCPOptions = 5, 9, 2, true
			s.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoFragment, packet.ProtoDestOptions}
			frames = append(frames, packettest.Frame(s))
		}
		frames = append(frames,
			packettest.EchoRequest(spec(v6, 0), 1, 2), packettest.EchoReply(spec(v6, 0), 1, 2),
			packettest.ICMP(spec(v6, 0), 3, 4, 1400),
			tunnel(v6, false, 0), tunnel(v6, true, 0))
		for i, f := range frames {
			if err := packettest.CheckWellFormed(f); err != nil {
				t.Errorf("v6=%t frame %d: %v", v6, i, err)
			}
		}
	}
	for _, f := range [][]byte{
		packettest.ARPRequest(spec(false, 0), netip.MustParseAddr("192.0.2.9")),
		packettest.NeighborSolicitation(spec(true, 0), netip.MustParseAddr("2001:db8::9")),
	} {
		if err := packettest.CheckWellFormed(f); err != nil {
			t.Error(err)
		}
	}
}

// Every bit that a checksum or a length covers counts, also inside a tunnel.
func TestCheckWellFormedRejectsFlips(t *testing.T) {
	v4 := func(proto uint8) []byte { return packettest.Frame(spec(false, proto)) }
	v6 := func(proto uint8) []byte { return packettest.Frame(spec(true, proto)) }
	tests := []struct {
		name  string
		frame []byte
		from  int // first byte of which every bit counts
	}{
		{"4 tcp", v4(packet.ProtoTCP), 14},
		{"4 udp", v4(packet.ProtoUDP), 14},
		{"4 icmp", packettest.EchoRequest(spec(false, 0), 1, 2), 14},
		{"6 tcp", v6(packet.ProtoTCP), 14 + 8},
		{"6 udp", v6(packet.ProtoUDP), 14 + 8},
		{"6 icmp", packettest.EchoRequest(spec(true, 0), 1, 2), 14 + 8},
		{"4 in 4", tunnel(false, false, 0), 14},
		{"4 in 6", tunnel(true, false, 0), 14 + 40},
		{"6 in 4", tunnel(false, true, 0), 14 + 20 + 8},
		{"6 in 6", tunnel(true, true, 0), 14 + 40 + 8},
	}
	for _, tt := range tests {
		for at := tt.from; at < len(tt.frame); at++ {
			for bit := range 8 {
				b := append([]byte(nil), tt.frame...)
				b[at] ^= 1 << bit
				if packettest.CheckWellFormed(b) == nil {
					t.Errorf("%s: bit %d of byte %d does not count", tt.name, bit, at)
				}
			}
		}
		for n := range tt.frame {
			if packettest.CheckWellFormed(tt.frame[:n]) == nil {
				t.Errorf("%s: well-formed when cut to %d of %d bytes", tt.name, n, len(tt.frame))
			}
		}
	}
}

func TestCheckWellFormedRejects(t *testing.T) {
	noSum := spec(true, packet.ProtoUDP)
	noSum.NoUDPChecksum = true
	tests := []struct {
		name  string
		frame []byte
		want  string
	}{
		{"tunnel with bytes to spare", tunnel(false, false, 3), "of the"},
		{"tunnel with bytes to spare", tunnel(true, true, 1), "of the"},
		{"udp over IPv6 without checksum", packettest.Frame(noSum), "no checksum"},
	}
	for _, tt := range tests {
		err := packettest.CheckWellFormed(tt.frame)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want ...%s...", tt.name, err, tt.want)
		}
	}
}

// The judge is given what a fuzzer makes of frames, so it may not panic.
func FuzzCheckWellFormed(f *testing.F) {
	f.Add(packettest.Frame(spec(false, packet.ProtoTCP)))
	f.Add(packettest.NeighborSolicitation(spec(true, 0), netip.MustParseAddr("2001:db8::9")))
	f.Add(packettest.ARPRequest(spec(false, 0), netip.MustParseAddr("192.0.2.9")))
	f.Add(tunnel(true, true, 0))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if packettest.CheckWellFormed(frame) == nil && len(frame) < packet.EthernetLen {
			t.Fatal("a frame shorter than its header is well-formed")
		}
	})
}
