package decap

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The addresses of the tests. The client is the inner source, weir the outer
// source, and the host is where the program runs.
var (
	vips     = map[int]netip.Addr{4: netip.MustParseAddr("203.0.113.10"), 6: netip.MustParseAddr("2001:db8:1::10")}
	clients  = map[int]netip.Addr{4: netip.MustParseAddr("198.51.100.7"), 6: netip.MustParseAddr("2001:db8:ffff::7")}
	weirs    = map[int]netip.Addr{4: netip.MustParseAddr("10.0.0.1"), 6: netip.MustParseAddr("fd00::1")}
	hosts    = map[int]netip.Addr{4: netip.MustParseAddr("10.0.0.2"), 6: netip.MustParseAddr("fd00::2")}
	foreigns = map[int]netip.Addr{4: netip.MustParseAddr("192.0.2.99"), 6: netip.MustParseAddr("2001:db8:99::99")}
)

const (
	clientPort = 40000
	vipPort    = 5353
	payload    = "a datagram for the VIP"
)

// header is what the tests vary of an IP header.
type header struct {
	family   int
	src, dst netip.Addr
	ecn      uint8
	options  bool // IPv4 only
	fragment bool // IPv4 only: more fragments
	offset   uint16
	dontFrag bool
}

func inner(family int) header { return header{family: family, src: clients[family], dst: vips[family]} }
func outer(family int) header { return header{family: family, src: weirs[family], dst: hosts[family]} }

// layer is h for gopacket, with next as protocol or next header. The upper six
// bits of TOS and traffic class are set, so that losing them shows.
func (h header) layer(next layers.IPProtocol) gopacket.SerializableLayer {
	const dscp = 0xb8
	if h.family == 6 {
		return &layers.IPv6{
			Version: 6, TrafficClass: dscp | h.ecn, FlowLabel: 0xabcde, NextHeader: next, HopLimit: 61,
			SrcIP: h.src.AsSlice(), DstIP: h.dst.AsSlice(),
		}
	}
	ip := &layers.IPv4{
		Version: 4, TOS: dscp | h.ecn, Id: 0x1234, TTL: 61, Protocol: next, FragOffset: h.offset,
		SrcIP: h.src.AsSlice(), DstIP: h.dst.AsSlice(),
	}
	if h.fragment {
		ip.Flags |= layers.IPv4MoreFragments
	}
	if h.dontFrag {
		ip.Flags |= layers.IPv4DontFragment
	}
	if h.options { // router alert and padding: 8 bytes
		ip.Options = []layers.IPv4Option{
			{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0},
		}
	}
	return ip
}

// frame is an Ethernet frame with a UDP datagram in the headers given,
// outermost first. gopacket fills in lengths and checksums.
type frame struct {
	to, from net.HardwareAddr
	tags     []uint16 // 802.1Q, outermost first
	headers  []header
	padding  int
}

var (
	hostMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
	weirMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
)

func (f frame) bytes(t testing.TB) []byte {
	t.Helper()
	to, from := f.to, f.from
	if to == nil {
		to, from = hostMAC, weirMAC
	}
	next := func(i int) layers.IPProtocol {
		switch {
		case i+1 == len(f.headers):
			return layers.IPProtocolUDP
		case f.headers[i+1].family == 4:
			return layers.IPProtocolIPv4
		}
		return layers.IPProtocolIPv6
	}
	etherType := layers.EthernetTypeIPv4
	if f.headers[0].family == 6 {
		etherType = layers.EthernetTypeIPv6
	}
	eth := &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: etherType}
	stack := []gopacket.SerializableLayer{eth}
	for i, id := range f.tags {
		tag := &layers.Dot1Q{VLANIdentifier: id, Priority: 5, Type: etherType}
		if i+1 < len(f.tags) {
			tag.Type = layers.EthernetTypeDot1Q
		}
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, tag)
	}
	udp := &layers.UDP{SrcPort: clientPort, DstPort: vipPort}
	for i, h := range f.headers {
		l := h.layer(next(i))
		stack = append(stack, l)
		if err := udp.SetNetworkLayerForChecksum(l.(gopacket.NetworkLayer)); err != nil {
			t.Fatal(err)
		}
	}
	stack = append(stack, udp, gopacket.Payload(payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	b := append([]byte(nil), buf.Bytes()...)
	if len(f.tags) == 0 && len(b) < 60 {
		t.Fatalf("frame of %d bytes: gopacket has padded it", len(b))
	}
	for i := range f.padding {
		b = append(b, byte(0xa0+i))
	}
	return b
}
