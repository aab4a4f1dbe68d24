package packet_test

import (
	"fmt"
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

var (
	clientMAC = packet.MAC{0x02, 0, 0, 0, 0, 0x01}
	weirMAC   = packet.MAC{0x02, 0, 0, 0, 0, 0x02}

	client4 = netip.MustParseAddrPort("192.0.2.1:1234")
	vip4    = netip.MustParseAddrPort("203.0.113.10:80")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:1234")
	vip6    = netip.MustParseAddrPort("[2001:db8:1::10]:80")
)

// spec is what most frames here start from.
func spec(v6 bool, proto uint8) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: clientMAC, DstMAC: weirMAC, Src: client4, Dst: vip4, Proto: proto,
		TOS: 0xb9, ID: 0x4711, TTL: 57, TCPFlags: packet.TCPPsh | packet.TCPAck,
		Payload: []byte("what the client wants"),
	}
	if v6 {
		s.Src, s.Dst = client6, vip6
	}
	return s
}

type namedFrame struct {
	name  string
	frame []byte
}

// corpus is valid frames of every shape that Decode knows.
func corpus() []namedFrame {
	var all []namedFrame
	add := func(name string, frame []byte) { all = append(all, namedFrame{name, frame}) }

	for _, v6 := range []bool{false, true} {
		for _, proto := range []uint8{
			packet.ProtoTCP, packet.ProtoUDP, packet.ProtoGRE,
			packet.ProtoIPv4, packet.ProtoIPv6, packet.ProtoNoNext,
		} {
			for variant, change := range map[string]func(*packettest.Spec){
				"plain":      func(*packettest.Spec) {},
				"empty":      func(s *packettest.Spec) { s.Payload = nil; s.Padding = 20 },
				"tagged":     func(s *packettest.Spec) { s.VLAN, s.Priority = 4094, 5 },
				"padded":     func(s *packettest.Spec) { s.Padding = 7 },
				"df":         func(s *packettest.Spec) { s.DontFragment = true },
				"flags":      func(s *packettest.Spec) { s.TCPFlags = 0xc2; s.TCPOptions = true },
				"no-sum":     func(s *packettest.Spec) { s.NoUDPChecksum = true },
				"ip-options": func(s *packettest.Spec) { s.IPOptions = 3 },
				"most-options": func(s *packettest.Spec) {
					s.IPOptions, s.TCPOptions, s.VLAN = 10, true, 1
				},
				"hop-by-hop": func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoHopByHop} },
				"chain": func(s *packettest.Spec) {
					s.Extensions = []uint8{
						packet.ProtoHopByHop, packet.ProtoDestOptions, packet.ProtoRouting,
						packet.ProtoFragment, packet.ProtoDestOptions,
					}
					s.Padding = 3
				},
			} {
				s := spec(v6, proto)
				change(&s)
				add(fmt.Sprintf("%s v6=%t proto=%d", variant, v6, proto), packettest.Frame(s))
			}
			s := spec(v6, proto)
			s.Payload = make([]byte, 100)
			s.VLAN = 7
			for i, f := range packettest.Fragments(s, 48) {
				add(fmt.Sprintf("fragment %d v6=%t proto=%d", i, v6, proto), f)
			}
			if v6 {
				s.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoDestOptions}
				for i, f := range packettest.Fragments(s, 48) {
					add(fmt.Sprintf("fragment %d chain proto=%d", i, proto), f)
				}
			}
		}
		add(fmt.Sprintf("echo request v6=%t", v6), packettest.EchoRequest(spec(v6, 0), 0x1234, 7))
		add(fmt.Sprintf("echo reply v6=%t", v6), packettest.EchoReply(spec(v6, 0), 0x1234, 7))
		add(fmt.Sprintf("too big v6=%t", v6), packettest.ICMP(spec(v6, 0), 3, 4, 1400))
	}
	s := spec(false, 0)
	add("arp", packettest.ARPRequest(s, vip4.Addr()))
	s.Padding, s.VLAN = 18, 9
	add("arp padded and tagged", packettest.ARPRequest(s, vip4.Addr()))
	add("solicitation", packettest.NeighborSolicitation(spec(true, 0), vip6.Addr()))
	add("lldp", append(make([]byte, 12), 0x88, 0xcc, 1, 2, 3))
	add("802.3", append(make([]byte, 12), 0x00, 0x03, 1, 2, 3))
	return all
}
