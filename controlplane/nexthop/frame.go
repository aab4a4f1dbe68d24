package nexthop

import (
	"net/netip"

	"weir/dataplane/packet"
)

const (
	solicitLen = packet.NeighborLen + 8 // with the option for the MAC of who asks
	frameMax   = packet.EthernetLen + packet.IPv6Len + solicitLen
)

// frameOf writes a question into buf and returns the part it takes: an ARP
// request (RFC 826) or a neighbour solicitation (RFC 4861 section 4.3).
func frameOf(q *question, buf *[frameMax]byte) []byte {
	if q.addr.Is4() {
		frame := buf[:packet.EthernetLen+packet.ARPLen]
		to := packet.MAC(q.to)
		if to.IsZero() {
			to = packet.BroadcastMAC()
		}
		packet.Ethernet(frame).Encode(&packet.EthernetFields{Dst: to, Src: packet.MAC(q.from), Type: packet.EtherTypeARP})
		packet.ARP(packet.Ethernet(frame).Payload()).Encode(&packet.ARPFields{
			Operation: packet.ARPRequest,
			SenderMAC: packet.MAC(q.from), SenderIP: q.source.As4(),
			TargetMAC: packet.MAC(q.to), TargetIP: q.addr.As4(),
		})
		return frame
	}

	frame := buf[:]
	src, dst, to := q.source.As16(), q.addr.As16(), packet.MAC(q.to)
	if to.IsZero() {
		dst = packet.SolicitedNode(dst)
		to = packet.MulticastMAC(dst)
	}
	packet.Ethernet(frame).Encode(&packet.EthernetFields{Dst: to, Src: packet.MAC(q.from), Type: packet.EtherTypeIPv6})
	ip := packet.IPv6(packet.Ethernet(frame).Payload())
	ip.Encode(&packet.IPv6Fields{
		PayloadLength: solicitLen, NextHeader: packet.ProtoICMPv6, HopLimit: packet.NDPHopLimit, Src: src, Dst: dst,
	})
	icmp := packet.ICMPv6(ip.Payload())
	clear(icmp)
	icmp.SetType(packet.ICMPv6NeighborSolicit)
	icmp.SetTarget(q.addr.As16())
	option := icmp[packet.NeighborLen:]
	option[0], option[1] = packet.NDPOptionSourceLinkAddr, 1 // its length in units of 8 bytes
	copy(option[2:], q.from[:])
	icmp.SetChecksum(icmp.ComputeChecksum(src, dst))
	return frame
}

// answerOf reads an ARP reply or a neighbour advertisement. Anything else, and
// what is malformed, is not ok. Checksums are left to the kernel: all that an
// answer does here is to end the waiting for one.
func answerOf(frame []byte) (addr netip.Addr, mac MAC, ok bool) {
	if len(frame) < packet.EthernetLen {
		return netip.Addr{}, MAC{}, false
	}
	body := packet.Ethernet(frame).Payload()
	switch packet.Ethernet(frame).Type() {
	case packet.EtherTypeARP:
		arp := packet.ARP(body)
		if len(arp) < packet.ARPLen || !arp.IsEthernetIPv4() || arp.Operation() != packet.ARPReply {
			return netip.Addr{}, MAC{}, false
		}
		return netip.AddrFrom4(arp.SenderIP()), MAC(arp.SenderMAC()), true

	case packet.EtherTypeIPv6:
		ip := packet.IPv6(body)
		if len(ip) < packet.IPv6Len+packet.NeighborLen || ip.NextHeader() != packet.ProtoICMPv6 || ip.HopLimit() != packet.NDPHopLimit {
			return netip.Addr{}, MAC{}, false
		}
		icmp := packet.ICMPv6(ip[packet.IPv6Len:])
		if icmp.Type() != packet.ICMPv6NeighborAdvert {
			return netip.Addr{}, MAC{}, false
		}
		// The option may be left out of a reply to a unicast solicitation.
		named, _ := icmp.LinkAddr(packet.NDPOptionTargetLinkAddr)
		return netip.AddrFrom16(icmp.Target()), MAC(named), true
	}
	return netip.Addr{}, MAC{}, false
}
