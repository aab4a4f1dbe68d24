package doctor

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// frame builds with gopacket, and not with what parse uses.
func frame(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func eth(t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: []byte{2, 0, 0, 0, 0, 1}, EthernetType: t}
}

func ip4(from, to netip.Addr, p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
}

func ip6(from, to netip.Addr, p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
}

func samples(t testing.TB) map[string][]byte {
	box, box6 := box4.Addr(), box6.Addr()
	syn := func(network gopacket.NetworkLayer) []byte {
		tcp := &layers.TCP{SrcPort: 40000, DstPort: 80, SYN: true}
		if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		return frame(t, network.(gopacket.SerializableLayer), tcp)
	}
	inner := syn(ip4(box, vip4, layers.IPProtocolTCP))
	outer := frame(t, ip4(box, back4, layers.IPProtocolIPv4), gopacket.Payload(inner))
	outer6 := frame(t, ip6(box6, back6, layers.IPProtocolIPv4), gopacket.Payload(inner))
	error4 := func(kind, code uint8, rest uint16, quote []byte) []byte {
		return frame(t, eth(layers.EthernetTypeIPv4), ip4(back4, box, layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code), Seq: rest}, gopacket.Payload(quote))
	}
	error6 := func(kind, code uint8, rest []byte) []byte {
		ip := ip6(back6, box6, layers.IPProtocolICMPv6)
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)}
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		return frame(t, eth(layers.EthernetTypeIPv6), ip, icmp, gopacket.Payload(rest))
	}
	target := back6.As16()
	about := vip6.As16()
	return map[string][]byte{
		"protocol unreachable":     error4(3, 2, 0, outer),
		"protocol, inner cut off":  error4(3, 2, 0, outer[:28]),
		"too big":                  error4(3, 4, 1400, outer),
		"time exceeded":            error4(11, 0, 0, inner),
		"quote cut off":            error4(11, 0, 0, inner[:24]),
		"redirect":                 error4(5, 1, 0, inner),
		"echo reply":               error4(0, 0, 7, nil),
		"echo request":             error4(8, 0, 7, nil),
		"nothing quoted":           error4(3, 1, 0, nil),
		"next header":              error6(4, 1, append(make([]byte, 4), outer6...)),
		"too big, IPv6":            error6(2, 0, append([]byte{0, 0, 5, 120}, outer6...)),
		"redirect, IPv6":           error6(137, 0, append(append(make([]byte, 4), target[:]...), about[:]...)),
		"redirect, IPv6, cut off":  error6(137, 0, append(make([]byte, 4), target[:]...)),
		"neighbour solicitation":   error6(135, 0, append(make([]byte, 4), target[:]...)),
		"segment":                  frame(t, eth(layers.EthernetTypeIPv4), gopacket.Payload(inner)),
		"not even an IP header":    frame(t, eth(layers.EthernetTypeIPv4), gopacket.Payload{0x45}),
		"a datagram of somebody's": frame(t, eth(layers.EthernetTypeIPv4), ip4(back4, box, layers.IPProtocolUDP), gopacket.Payload(make([]byte, 8))),
	}
}

func TestParse(t *testing.T) {
	all := samples(t)
	want := map[string]seen{
		"protocol unreachable":    {kind: problem, from: back4, icmpType: 3, icmpCode: 2, about: quoted{to: back4, proto: 4, inner: vip4}},
		"protocol, inner cut off": {kind: problem, from: back4, icmpType: 3, icmpCode: 2, about: quoted{to: back4, proto: 4}},
		"too big":                 {kind: problem, from: back4, icmpType: 3, icmpCode: 4, mtu: 1400, about: quoted{to: back4, proto: 4, inner: vip4}},
		"time exceeded":           {kind: problem, from: back4, icmpType: 11, about: quoted{to: vip4, proto: 6, port: 40000}},
		"quote cut off":           {kind: problem, from: back4, icmpType: 11, about: quoted{to: vip4, proto: 6}},
		"redirect":                {kind: redirect, from: back4, icmpType: 5, icmpCode: 1, about: quoted{to: vip4, proto: 6, port: 40000}},
		"echo reply":              {kind: reply, from: back4},
		"next header":             {kind: problem, from: back6, icmpType: 4, icmpCode: 1, about: quoted{to: back6, proto: 4, inner: vip4}},
		"too big, IPv6":           {kind: problem, from: back6, icmpType: 2, mtu: 1400, about: quoted{to: back6, proto: 4, inner: vip4}},
		"redirect, IPv6":          {kind: redirect, from: back6, icmpType: 137, about: quoted{to: vip6}},
		"segment":                 {kind: segment, from: box4.Addr(), port: 80, flag: packet.TCPSyn},
	}
	for name, bytes := range all {
		got, ok := parse(bytes)
		expected, interesting := want[name]
		if ok != interesting || ok && got != expected {
			t.Errorf("%s: got %+v, %v; want %+v, %v", name, got, ok, expected, interesting)
		}
	}
}

// Whatever comes from the network must neither panic nor be read past its end.
func FuzzParse(f *testing.F) {
	for _, bytes := range samples(f) {
		f.Add(bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := parse(b)
		if ok && !s.from.IsValid() {
			t.Errorf("from nobody: %+v", s)
		}
	})
}
