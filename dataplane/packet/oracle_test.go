package packet_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
)

// oracle says what Decode should find, by gopacket's decoders. It knows the
// answer only when gopacket decodes all the headers without an error; then
// Decode has to agree in full, or in Problem alone if there is one.
//
// The two may differ where gopacket looks closer than a load balancer needs to
// (the contents of IP and TCP options), where it does not look (versions,
// checksums, the order of extension headers), and where it is lenient on
// purpose (a zero length is offloading or a jumbogram). The first gives no
// answer; for the others the rule is written out here.
func oracle(frame []byte) (want packet.Parsed, known bool) {
	if want, known = oracleHeaders(frame); known && want.Problem == packet.ProblemNone {
		want.Flow = !want.Fragment && (want.Kind == packet.KindIPv4 || want.Kind == packet.KindIPv6 && !mapped(want.Src) && !mapped(want.Dst)) &&
			(want.Proto == packet.ProtoTCP || want.Proto == packet.ProtoUDP)
	}
	return want, known
}

func mapped(a [16]byte) bool { return netip.AddrFrom16(a).Is4In6() }

func oracleHeaders(frame []byte) (want packet.Parsed, known bool) {
	var eth layers.Ethernet
	var cut truncated
	if eth.DecodeFromBytes(frame, &cut) != nil {
		return want, false
	}
	typ := binary.BigEndian.Uint16(frame[12:]) // gopacket hides 802.3 lengths
	l3 := frame[14:]
	if typ == uint16(layers.EthernetTypeDot1Q) {
		var tag layers.Dot1Q
		if tag.DecodeFromBytes(l3, &cut) != nil {
			return want, false
		}
		want.Tagged, want.VLAN = true, tag.VLANIdentifier
		typ, l3 = uint16(tag.Type), tag.Payload
	}
	want.L3 = uint32(len(frame) - len(l3))
	switch layers.EthernetType(typ) {
	case layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ:
		want.Problem = packet.ProblemVLAN
		return want, true
	case layers.EthernetTypeARP:
		return oracleARP(want, l3)
	case layers.EthernetTypeIPv4:
		return oracleIPv4(want, l3)
	case layers.EthernetTypeIPv6:
		return oracleIPv6(want, l3)
	}
	want.L4, want.End = want.L3, uint32(len(frame))
	return want, true
}

func oracleARP(want packet.Parsed, b []byte) (packet.Parsed, bool) {
	if len(b) < packet.ARPLen {
		return want, false
	}
	// gopacket panics on some address lengths, so it is given only ours. It
	// takes the hardware type for one byte long.
	if b[0] != 0 || b[4] != 6 || b[5] != 4 {
		want.Problem = packet.ProblemMalformed
		return want, true
	}
	var arp layers.ARP
	if arp.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
		return want, false
	}
	if arp.AddrType != layers.LinkTypeEthernet || arp.Protocol != layers.EthernetTypeIPv4 {
		want.Problem = packet.ProblemMalformed
		return want, true
	}
	want.Kind = packet.KindARP
	want.L4 = want.L3 + uint32(len(arp.Contents))
	want.End = want.L4
	return want, true
}

func oracleIPv4(want packet.Parsed, b []byte) (packet.Parsed, bool) {
	var ip layers.IPv4
	var cut truncated
	if ip.DecodeFromBytes(b, &cut) != nil || bool(cut) {
		return want, false
	}
	want.Kind = packet.KindIPv4
	switch {
	case ip.Version != 4, binary.BigEndian.Uint16(b[2:]) == 0:
		want.Problem = packet.ProblemMalformed
		return want, true
	case naiveChecksum(ip.Contents) != 0:
		want.Problem = packet.ProblemBadChecksum
		return want, true
	}
	copy(want.Src[:], ip.SrcIP.To16())
	copy(want.Dst[:], ip.DstIP.To16())
	want.Proto = uint8(ip.Protocol)
	want.TTL, want.TrafficClass = ip.TTL, ip.TOS
	want.DontFragment = ip.Flags&layers.IPv4DontFragment != 0
	want.L4 = want.L3 + uint32(len(ip.Contents))
	want.End = want.L4 + uint32(len(ip.Payload))
	if ip.NextLayerType() == gopacket.LayerTypeFragment {
		want.Fragment = true
		want.FragmentFirst = ip.FragOffset == 0
		if !want.FragmentFirst {
			if len(ip.Contents)+int(ip.FragOffset)*8+len(ip.Payload) > 0xffff {
				want.Problem = packet.ProblemMalformed
			}
			return want, true
		}
	}
	return oracleTransport(want, ip.Payload)
}

func oracleIPv6(want packet.Parsed, b []byte) (packet.Parsed, bool) {
	if len(b) < 40 {
		return want, false
	}
	// gopacket counts the payload length from behind the hop-by-hop options,
	// which is wrong, so they are hidden from it.
	hidden := append([]byte(nil), b...)
	next := layers.IPProtocol(hidden[6])
	hidden[6] = uint8(layers.IPProtocolNoNextHeader)
	var ip layers.IPv6
	var cut truncated
	err := ip.DecodeFromBytes(hidden, &cut)
	if ip.Length == 0 {
		err, ip.Payload = nil, nil // to gopacket, a jumbogram without its option
	}
	if err != nil || bool(cut) {
		return want, false
	}
	want.Kind = packet.KindIPv6
	if ip.Version != 6 {
		want.Problem = packet.ProblemMalformed
		return want, true
	}
	copy(want.Src[:], ip.SrcIP)
	copy(want.Dst[:], ip.DstIP)
	want.TTL, want.TrafficClass = ip.HopLimit, ip.TrafficClass
	want.DontFragment = true
	want.End = want.L3 + 40 + uint32(len(ip.Payload))

	rest := ip.Payload
	fragments := 0
	for n := 0; layers.LayerClassIPv6Extension.Contains(next.LayerType()); n++ {
		var ext layers.IPv6ExtensionSkipper
		data := rest
		if next == layers.IPProtocolIPv6Fragment && len(rest) >= 8 {
			// The skipper takes the reserved byte for a length.
			data = append([]byte{rest[0], 0}, rest[2:]...)
		}
		if ext.DecodeFromBytes(data, &cut) != nil {
			return want, false
		}
		switch {
		case n == 8,
			next == layers.IPProtocolIPv6HopByHop && n != 0,
			next == layers.IPProtocolIPv6Routing && rest[3] != 0,
			next == layers.IPProtocolIPv6Fragment && fragments != 0:
			want.Problem = packet.ProblemExtension
			return want, true
		}
		before := len(ip.Payload) - len(rest)
		field := binary.BigEndian.Uint16(rest[2:])
		rest = rest[len(ext.Contents):]
		isFragment := next == layers.IPProtocolIPv6Fragment
		next = ext.NextHeader
		if !isFragment {
			continue
		}
		fragments++
		if offset, more := field&^7, field&1 != 0; offset != 0 || more {
			want.Fragment, want.FragmentFirst = true, offset == 0
			if offset != 0 {
				want.Proto = uint8(next)
				want.L4 = want.End - uint32(len(rest))
				if before+int(offset)+len(rest) > 0xffff {
					want.Problem = packet.ProblemMalformed
				}
				return want, true
			}
		}
	}
	want.Proto = uint8(next)
	want.L4 = want.End - uint32(len(rest))
	switch want.Proto {
	case packet.ProtoAH, packet.ProtoMobility, packet.ProtoHIP, packet.ProtoShim6:
		want.Problem = packet.ProblemExtension
		return want, true
	}
	return oracleTransport(want, rest)
}

func oracleTransport(want packet.Parsed, b []byte) (packet.Parsed, bool) {
	var cut truncated
	switch layers.IPProtocol(want.Proto) {
	case layers.IPProtocolTCP:
		var tcp layers.TCP
		if tcp.DecodeFromBytes(b, &cut) != nil {
			return want, false
		}
		want.SrcPort, want.DstPort = uint16(tcp.SrcPort), uint16(tcp.DstPort)
		want.TCPSequence = tcp.Seq
		for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR} {
			if set {
				want.TCPFlags |= 1 << i
			}
		}
	case layers.IPProtocolUDP:
		var udp layers.UDP
		if udp.DecodeFromBytes(b, &cut) != nil {
			return want, false
		}
		if udp.Length == 0 || bool(cut) && !want.Fragment {
			want.Problem = packet.ProblemMalformed
			return want, true
		}
		want.SrcPort, want.DstPort = uint16(udp.SrcPort), uint16(udp.DstPort)
	case layers.IPProtocolICMPv4:
		if want.Kind != packet.KindIPv4 {
			break
		}
		var icmp layers.ICMPv4
		if icmp.DecodeFromBytes(b, &cut) != nil {
			return want, false
		}
		want.ICMPType, want.ICMPCode = icmp.TypeCode.Type(), icmp.TypeCode.Code()
	case layers.IPProtocolICMPv6:
		if want.Kind != packet.KindIPv6 {
			break
		}
		var icmp layers.ICMPv6
		if icmp.DecodeFromBytes(b, &cut) != nil {
			return want, false
		}
		if len(b) < 8 {
			want.Problem = packet.ProblemTruncated
			return want, true
		}
		want.ICMPType, want.ICMPCode = icmp.TypeCode.Type(), icmp.TypeCode.Code()
	}
	return want, true
}

// truncated is set when gopacket finds a packet cut short.
type truncated bool

func (t *truncated) SetTruncated() { *t = true }

// naiveSum is RFC 1071 word by word.
func naiveSum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func naiveChecksum(b []byte) uint16 { return ^naiveSum(b) }
