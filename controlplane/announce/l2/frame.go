package l2

import (
	"net/netip"

	"weir/dataplane/packet"
)

// Frame returns the announcement of a VIP by a station: for IPv4 an ARP
// announcement (RFC 5227 section 3, a broadcast request for one's own address),
// for IPv6 an unsolicited neighbour advertisement to all nodes with the
// override flag (RFC 4861 section 7.2.6).
func Frame(vip netip.Addr, mac packet.MAC) []byte {
	if vip.Is4() {
		return arpRequest(mac, vip.As4(), vip.As4())
	}
	allNodes := netip.IPv6LinkLocalAllNodes().As16()
	frame, icmp := neighbour(mac, vip.As16(), allNodes, packet.NeighborAdvertLen)
	icmp.EncodeNeighborAdvert(&packet.NeighborAdvertFields{
		Override: true,
		Target:   vip.As16(), TargetMAC: mac,
		Src: vip.As16(), Dst: allNodes,
	})
	return frame
}

// Probe returns the question whether anybody has an address: for IPv4 an ARP probe
// (RFC 5227 section 2.1.1, a broadcast request from address zero), for IPv6 the
// neighbour solicitation of duplicate address detection (RFC 4862 section 5.4.2,
// from the unspecified address to the solicited-node group, without the MAC of
// who asks).
func Probe(addr netip.Addr, mac packet.MAC) []byte {
	if addr.Is4() {
		return arpRequest(mac, [4]byte{}, addr.As4())
	}
	src, dst := netip.IPv6Unspecified().As16(), packet.SolicitedNode(addr.As16())
	frame, icmp := neighbour(mac, src, dst, packet.NeighborLen)
	icmp.SetType(packet.ICMPv6NeighborSolicit)
	icmp.SetTarget(addr.As16())
	icmp.SetChecksum(icmp.ComputeChecksum(src, dst))
	return frame
}

func arpRequest(mac packet.MAC, sender, target [4]byte) []byte {
	frame := make([]byte, packet.EthernetLen+packet.ARPLen)
	packet.Ethernet(frame).Encode(&packet.EthernetFields{
		Dst: packet.BroadcastMAC(), Src: mac, Type: packet.EtherTypeARP,
	})
	packet.ARP(frame[packet.EthernetLen:]).Encode(&packet.ARPFields{
		Operation: packet.ARPRequest,
		SenderMAC: mac, SenderIP: sender, TargetIP: target,
	})
	return frame
}

// neighbour returns a frame to a multicast group with room for an ICMPv6 message of
// the given length, all zero, and that room.
func neighbour(mac packet.MAC, src, dst [16]byte, length int) ([]byte, packet.ICMPv6) {
	frame := make([]byte, packet.EthernetLen+packet.IPv6Len+length)
	packet.Ethernet(frame).Encode(&packet.EthernetFields{
		Dst: packet.MulticastMAC(dst), Src: mac, Type: packet.EtherTypeIPv6,
	})
	ip := packet.IPv6(frame[packet.EthernetLen:])
	ip.Encode(&packet.IPv6Fields{
		PayloadLength: uint16(length),
		NextHeader:    packet.ProtoICMPv6,
		HopLimit:      packet.NDPHopLimit,
		Src:           src, Dst: dst,
	})
	return frame, packet.ICMPv6(ip.Payload())
}
