// Package packettest builds frames for tests, and judges frames that come out
// of the packet path.
//
// The problem it solves: a test that builds its input with the views that it
// tests proves nothing. Everything here is done by gopacket, or byte by byte
// where gopacket has no encoder, and nothing uses weir's own views.
//
// The builders panic when asked for something impossible, since only a wrong
// test can ask for it.
package packettest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// Spec describes a frame. The zero value of a field is the common case.
type Spec struct {
	SrcMAC, DstMAC packet.MAC
	VLAN           uint16 // VLAN ID; 0: untagged
	Priority       uint8  // of the tag

	// Both addresses are of one family. An IPv4-mapped address stands for the
	// IPv4 one. The ports are those of TCP and UDP.
	Src, Dst netip.AddrPort

	// Proto is UDP or TCP, or any other: then Payload is all that follows IP.
	Proto uint8

	TTL          uint8 // time to live or hop limit; 0: 64
	TOS          uint8 // type of service or traffic class
	ID           uint16
	DontFragment bool   // IPv4
	IPOptions    int    // IPv4: number of 4-byte words of options
	FlowLabel    uint32 // IPv6

	// Extensions are the IPv6 extension headers to put in, by their protocol
	// numbers, each of 8 bytes without effect: hop-by-hop, routing (no segments
	// left), destination options, fragment (atomic).
	Extensions []uint8

	TCPFlags   uint8
	Seq, Ack   uint32
	TCPOptions bool // maximum segment size, SACK permitted, timestamps, window scale

	NoUDPChecksum bool // UDP checksum 0

	Payload []byte
	Padding int // bytes after the IP packet
}

func (s *Spec) addrs() (src, dst netip.Addr) {
	src, dst = s.Src.Addr().Unmap(), s.Dst.Addr().Unmap()
	if !src.IsValid() || src.Is4() != dst.Is4() {
		panic(fmt.Sprintf("packettest: source %v and destination %v are not of one family", src, dst))
	}
	return src, dst
}

// Frame returns a complete and valid frame.
func Frame(s Spec) []byte { return s.frame(s.transport()) }

// Fragments returns the frames of a datagram, which has the transport header
// and payload of Frame(s), cut into pieces of size bytes, a multiple of 8. IPv6
// fragment headers come after the extension headers of s.
func Fragments(s Spec, size int) [][]byte {
	if size <= 0 || size%8 != 0 {
		panic("packettest: the fragment size is not a multiple of 8")
	}
	src, _ := s.addrs()
	var frames [][]byte
	datagram := s.transport()
	for at := 0; at < len(datagram); at += size {
		piece, more := datagram[at:], false
		if len(piece) > size {
			piece, more = piece[:size], true
		}
		if src.Is4() {
			frames = append(frames, s.link(layers.EthernetTypeIPv4, s.ipv4(piece, at, more)))
			continue
		}
		header := make([]byte, 8, 8+len(piece))
		header[0] = s.Proto
		binary.BigEndian.PutUint16(header[2:], uint16(at))
		if more {
			header[3] |= 1
		}
		binary.BigEndian.PutUint32(header[4:], uint32(s.ID))
		ip := s.ipv6(packet.ProtoFragment, append(header, piece...))
		frames = append(frames, s.link(layers.EthernetTypeIPv6, ip))
	}
	return frames
}

// ICMP returns an ICMP or ICMPv6 message, by the family of the addresses. rest
// is the second word: an echo's identifier and sequence number, an MTU. The
// payload of s follows, such as the packet that an error is about.
func ICMP(s Spec, typ, code uint8, rest uint32) []byte {
	src, dst := s.addrs()
	word := binary.BigEndian.AppendUint32(nil, rest)
	if src.Is4() {
		s.Proto = packet.ProtoICMPv4
		return s.frame(serialize(&layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(typ, code),
			Id:       binary.BigEndian.Uint16(word),
			Seq:      binary.BigEndian.Uint16(word[2:]),
		}, gopacket.Payload(s.Payload)))
	}
	s.Proto = packet.ProtoICMPv6
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, code)}
	must(icmp.SetNetworkLayerForChecksum(&layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}))
	return s.frame(serialize(icmp, gopacket.Payload(append(word, s.Payload...))))
}

// EchoRequest returns a ping.
func EchoRequest(s Spec, ident, sequence uint16) []byte {
	return echo(s, packet.ICMPv4EchoRequest, packet.ICMPv6EchoRequest, ident, sequence)
}

// EchoReply returns the answer to a ping.
func EchoReply(s Spec, ident, sequence uint16) []byte {
	return echo(s, packet.ICMPv4EchoReply, packet.ICMPv6EchoReply, ident, sequence)
}

func echo(s Spec, v4, v6 uint8, ident, sequence uint16) []byte {
	typ := v6
	if src, _ := s.addrs(); src.Is4() {
		typ = v4
	}
	return ICMP(s, typ, 0, uint32(ident)<<16|uint32(sequence))
}

// ARPRequest returns a broadcast question who has target. The addresses of s
// that count are SrcMAC, VLAN and Src; the frame is padded by s.Padding.
func ARPRequest(s Spec, target netip.Addr) []byte {
	s.DstMAC = packet.BroadcastMAC()
	return s.link(layers.EthernetTypeARP, serialize(&layers.ARP{
		AddrType:          layers.LinkTypeEthernet,
		Protocol:          layers.EthernetTypeIPv4,
		HwAddressSize:     6,
		ProtAddressSize:   4,
		Operation:         layers.ARPRequest,
		SourceHwAddress:   s.SrcMAC.HardwareAddr(),
		SourceProtAddress: s.Src.Addr().Unmap().AsSlice(),
		DstHwAddress:      make([]byte, 6),
		DstProtAddress:    target.Unmap().AsSlice(),
	}))
}

// NeighborSolicitation returns a question who has target, sent to its
// solicited-node group, with the source link-layer address option unless the
// source is unspecified. The addresses of s that count are SrcMAC, VLAN and
// Src.
func NeighborSolicitation(s Spec, target netip.Addr) []byte {
	t := target.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], t[13:])
	s.DstMAC = packet.MAC{0x33, 0x33, group[12], group[13], group[14], group[15]}
	s.Dst = netip.AddrPortFrom(netip.AddrFrom16(group), 0)
	s.Proto = packet.ProtoICMPv6
	s.TTL = 255

	src, dst := s.addrs()
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	must(icmp.SetNetworkLayerForChecksum(&layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}))
	solicitation := &layers.ICMPv6NeighborSolicitation{TargetAddress: t[:]}
	if !src.IsUnspecified() {
		solicitation.Options = layers.ICMPv6Options{{
			Type: layers.ICMPv6OptSourceAddress, Data: s.SrcMAC.HardwareAddr(),
		}}
	}
	return s.frame(serialize(icmp, solicitation))
}

// transport returns the transport header and payload.
func (s *Spec) transport() []byte {
	src, dst := s.addrs()
	var network gopacket.NetworkLayer = &layers.IPv6{SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if src.Is4() {
		network = &layers.IPv4{SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	switch s.Proto {
	case packet.ProtoTCP:
		tcp := &layers.TCP{
			SrcPort: layers.TCPPort(s.Src.Port()), DstPort: layers.TCPPort(s.Dst.Port()),
			Seq: s.Seq, Ack: s.Ack, Window: 0xfaf0,
			FIN: s.TCPFlags&0x01 != 0, SYN: s.TCPFlags&0x02 != 0,
			RST: s.TCPFlags&0x04 != 0, PSH: s.TCPFlags&0x08 != 0,
			ACK: s.TCPFlags&0x10 != 0, URG: s.TCPFlags&0x20 != 0,
			ECE: s.TCPFlags&0x40 != 0, CWR: s.TCPFlags&0x80 != 0,
		}
		if s.TCPOptions {
			tcp.Options = []layers.TCPOption{
				{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{0x05, 0xb4}},
				{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2},
				{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{1, 2, 3, 4, 0, 0, 0, 0}},
				{OptionType: layers.TCPOptionKindNop, OptionLength: 1},
				{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}},
			}
		}
		must(tcp.SetNetworkLayerForChecksum(network))
		return serialize(tcp, gopacket.Payload(s.Payload))
	case packet.ProtoUDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.Src.Port()), DstPort: layers.UDPPort(s.Dst.Port())}
		must(udp.SetNetworkLayerForChecksum(network))
		b := serialize(udp, gopacket.Payload(s.Payload))
		switch {
		case s.NoUDPChecksum:
			b[6], b[7] = 0, 0
		case b[6] == 0 && b[7] == 0:
			b[6], b[7] = 0xff, 0xff // gopacket does not know the rule for zero
		}
		return b
	}
	return s.Payload
}

// frame puts the IP and link headers before what follows IP.
func (s *Spec) frame(transport []byte) []byte {
	if src, _ := s.addrs(); src.Is4() {
		return s.link(layers.EthernetTypeIPv4, s.ipv4(transport, 0, false))
	}
	return s.link(layers.EthernetTypeIPv6, s.ipv6(s.Proto, transport))
}

func (s *Spec) ttl() uint8 {
	if s.TTL == 0 {
		return 64
	}
	return s.TTL
}

func (s *Spec) ipv4(payload []byte, at int, more bool) []byte {
	src, dst := s.addrs()
	ip := &layers.IPv4{
		Version: 4, TOS: s.TOS, Id: s.ID, TTL: s.ttl(), Protocol: layers.IPProtocol(s.Proto),
		FragOffset: uint16(at / 8), SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
	}
	if s.DontFragment {
		ip.Flags |= layers.IPv4DontFragment
	}
	if more {
		ip.Flags |= layers.IPv4MoreFragments
	}
	for range s.IPOptions * 4 {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1, OptionLength: 1})
	}
	return serialize(ip, gopacket.Payload(payload))
}

func (s *Spec) ipv6(proto uint8, payload []byte) []byte {
	src, dst := s.addrs()
	var chain []byte
	for i, ext := range s.Extensions {
		next := proto
		if i+1 < len(s.Extensions) {
			next = s.Extensions[i+1]
		}
		switch ext {
		case packet.ProtoHopByHop, packet.ProtoDestOptions:
			chain = append(chain, next, 0, 1, 4, 0, 0, 0, 0) // one PadN
		case packet.ProtoRouting:
			chain = append(chain, next, 0, 253, 0, 0, 0, 0, 0) // RFC 3692 experiment
		case packet.ProtoFragment:
			chain = append(chain, next, 0, 0, 0, 0, 0, 0, 42)
		default:
			panic(fmt.Sprintf("packettest: no builder for extension header %d", ext))
		}
	}
	first := proto
	if len(s.Extensions) > 0 {
		first = s.Extensions[0]
	}
	return serialize(&layers.IPv6{
		Version: 6, TrafficClass: s.TOS, FlowLabel: s.FlowLabel,
		NextHeader: layers.IPProtocol(first), HopLimit: s.ttl(),
		SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
	}, gopacket.Payload(append(chain, payload...)))
}

// link puts the Ethernet header and the tag before body, and padding behind.
func (s *Spec) link(typ layers.EthernetType, body []byte) []byte {
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr(s.SrcMAC[:]), DstMAC: net.HardwareAddr(s.DstMAC[:]), EthernetType: typ,
	}
	stack := []gopacket.SerializableLayer{eth}
	if s.VLAN != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: s.VLAN, Priority: s.Priority, Type: typ})
	}
	padded := append(append([]byte(nil), body...), make([]byte, s.Padding)...)
	buf := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, append(stack, gopacket.Payload(padded))...))
	// gopacket pads to Ethernet's least length; a test says itself when it
	// wants that.
	n := 14 + len(padded)
	if s.VLAN != 0 {
		n += 4
	}
	return buf.Bytes()[:n:n]
}

func serialize(l ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return buf.Bytes()
}

func must(err error) {
	if err != nil {
		panic("packettest: " + err.Error())
	}
}
