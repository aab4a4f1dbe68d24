package forward

import (
	"net/netip"

	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// A VIP is on no interface, so the kernel does not answer for it. What a
// neighbour or a curious engineer asks of a VIP is answered here, in the frame
// that asked, by the way it came: with its VLAN tag, and only while a worker
// is alive to forward what the answer attracts.

// answerARP answers a request for a VIP that this node announces (RFC 826), probes
// of other stations included (RFC 5227 section 2.4). A station that claims a VIP,
// be it in a request or a reply, is counted and gets no answer.
func (f *Forwarder) answerARP(frame *queue.Frame, p *packet.Parsed, iface *snapshot.Interface, ingress uint16) Verdict {
	b := frame.Bytes()
	arp := packet.ARP(b[p.L3:])
	sender, target := arp.SenderIP(), arp.TargetIP()
	if vip := f.vip4(sender); f.own(vip) {
		addr := packet.Mapped(sender)
		return f.claimed(&addr, vip, arp.SenderMAC())
	}
	vip := f.vip4(target)
	if arp.Operation() != packet.ARPRequest || !f.own(vip) {
		return drop(stats.UnknownVIP)
	}
	asker := arp.SenderMAC()
	if asker.IsMulticast() {
		return drop(stats.Malformed) // the answer would go to many
	}
	if sender == [4]byte{} {
		addr := packet.Mapped(target)
		if f.isOurs(asker) {
			return drop(stats.Reflected)
		}
		// A host that wants the address asks everybody (RFC 5227 section 2.1.1). Switches
		// that track devices ask this one alone, without an address of their own.
		if packet.Ethernet(b).Dst() == packet.BroadcastMAC() {
			f.tell(&addr, asker, true)
		}
	}
	if vip.Silent() {
		return drop(stats.NotAnnounced)
	}
	arp.Encode(&packet.ARPFields{
		Operation: packet.ARPReply,
		SenderMAC: iface.MAC, SenderIP: target,
		TargetMAC: asker, TargetIP: sender,
	})
	frame.End = frame.Start + p.End
	f.counters.ARPReplies++
	return reply(b, asker, iface, ingress)
}

// vip4 returns the VIP or SNAT address with an IPv4 address, or nil.
func (f *Forwarder) vip4(addr [4]byte) *snapshot.VIP {
	mapped := packet.Mapped(addr)
	return f.snap.VIP(&mapped)
}

// own tells whether an address is weir's alone, so that nobody else is to
// answer for it.
func (f *Forwarder) own(vip *snapshot.VIP) bool {
	return vip != nil && (vip.SNAT == nil || !vip.SNAT.Shared)
}

// refusesPing says why an echo request to an address is not answered.
func (f *Forwarder) refusesPing(p *packet.Parsed, vip *snapshot.VIP) stats.Reason {
	switch {
	case vip == nil:
		return stats.UnknownVIP
	case p.Fragment || p.ICMPCode != 0 || !f.own(vip):
		return stats.ICMPUnhandled
	case !oneStation(p.Src):
		return stats.Malformed
	case f.snap.IsStrayProbe(&p.Src, p.TTL):
		return stats.Looped
	case vip.Policy.Mute:
		return stats.PingRefused
	}
	return stats.ReasonNone
}

// answerICMPv4 answers an echo request (RFC 792), and passes on an error.
func (f *Forwarder) answerICMPv4(frame *queue.Frame, p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta) Verdict {
	if p.ICMPType != packet.ICMPv4EchoRequest {
		return f.relayError(p, vip, meta, frame)
	}
	if reason := f.refusesPing(p, vip); reason != stats.ReasonNone {
		return drop(reason)
	}
	b := frame.Bytes()
	icmp := packet.ICMPv4(b[p.L4:p.End])
	icmp.SetType(packet.ICMPv4EchoReply)
	icmp.SetChecksum(packet.Update16(icmp.Checksum(),
		uint16(packet.ICMPv4EchoRequest)<<8, uint16(packet.ICMPv4EchoReply)<<8))

	ip := packet.IPv4(b[p.L3:p.End])
	src, dst := ip.Src(), ip.Dst()
	ip.SetSrc(dst)
	ip.SetDst(src)
	ip.SetTTL(rewrite.OuterTTL)
	ip.SetChecksum(ip.ComputeChecksum())
	f.counters.EchoReplies++
	return f.back(frame, meta)
}

// answerICMPv6 answers an echo request (RFC 4443 section 4.1) to a VIP and a
// neighbour solicitation (RFC 4861 section 7.2) for one, whether that was sent
// to the VIP itself or to its solicited-node group. It counts advertisements,
// and passes on errors.
func (f *Forwarder) answerICMPv6(frame *queue.Frame, p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta) Verdict {
	switch {
	case p.Fragment:
		return drop(stats.ICMPUnhandled)
	case p.ICMPType == packet.ICMPv6NeighborSolicit || p.ICMPType == packet.ICMPv6NeighborAdvert:
		return f.answerNeighbor(frame, p, &f.snap.Interfaces[meta.Ingress], meta.Ingress)
	case p.Dst[0] == 0xff:
		return drop(stats.ICMPUnhandled)
	case p.ICMPType != packet.ICMPv6EchoRequest:
		return f.relayError(p, vip, meta, frame)
	}
	if reason := f.refusesPing(p, vip); reason != stats.ReasonNone {
		return drop(reason)
	}
	b := frame.Bytes()
	icmp := packet.ICMPv6(b[p.L4:p.End])
	icmp.SetType(packet.ICMPv6EchoReply)
	icmp.SetChecksum(packet.Update16(icmp.Checksum(),
		uint16(packet.ICMPv6EchoRequest)<<8, uint16(packet.ICMPv6EchoReply)<<8))

	ip := packet.IPv6(b[p.L3:p.End])
	ip.SetSrc(p.Dst)
	ip.SetDst(p.Src)
	ip.SetHopLimit(rewrite.OuterTTL)
	f.counters.EchoReplies++
	return f.back(frame, meta)
}

// answerNeighbor turns a valid solicitation for a VIP that this node announces
// into an advertisement (RFC 4861 section 7.2.4). One without a source address is
// another station's duplicate address detection: it is answered to all nodes, so
// that it learns that the address is taken. An advertisement of a VIP, and a
// solicitation from one, are another station's claim.
func (f *Forwarder) answerNeighbor(frame *queue.Frame, p *packet.Parsed, iface *snapshot.Interface, ingress uint16) Verdict {
	b := frame.Bytes()
	icmp := packet.ICMPv6(b[p.L4:p.End])
	if !validNeighbor(p, icmp) {
		return drop(stats.Malformed)
	}
	target, station := icmp.Target(), packet.Ethernet(b).Src()
	vip := f.vip(p.Kind, &target)
	if !f.own(vip) {
		return drop(stats.UnknownVIP)
	}
	if p.ICMPType == packet.ICMPv6NeighborAdvert {
		return f.claimed(&target, vip, station)
	}
	if sender := f.vip(p.Kind, &p.Src); f.own(sender) {
		return f.claimed(&p.Src, sender, station)
	}
	detection := p.Src == [16]byte{}
	if detection && !validDetection(p, icmp, target) || !detection && !oneStation(p.Src) {
		return drop(stats.Malformed)
	}
	if detection {
		if f.isOurs(station) {
			return drop(stats.Reflected)
		}
		f.tell(&target, station, true)
	}
	if vip.Silent() {
		return drop(stats.NotAnnounced)
	}
	end := frame.Start + p.L3 + packet.IPv6Len + packet.NeighborAdvertLen
	if end > uint32(len(frame.Buf)) {
		return drop(stats.TooBig)
	}
	to, solicited := station, true
	dst := p.Src
	if detection {
		dst = [16]byte{0: 0xff, 1: 0x02, 15: 0x01}
		to, solicited = packet.MulticastMAC(dst), false
	}
	frame.End = end
	b = frame.Bytes()
	ip := packet.IPv6(b[p.L3:])
	ip.Encode(&packet.IPv6Fields{
		PayloadLength: packet.NeighborAdvertLen,
		NextHeader:    packet.ProtoICMPv6,
		HopLimit:      packet.NDPHopLimit,
		Src:           target, Dst: dst,
	})
	packet.ICMPv6(ip.Payload()).EncodeNeighborAdvert(&packet.NeighborAdvertFields{
		Solicited: solicited, Override: true,
		Target: target, TargetMAC: iface.MAC,
		Src: target, Dst: dst,
	})
	f.counters.NDPReplies++
	return reply(b, to, iface, ingress)
}

// validNeighbor checks what holds for solicitations and advertisements (RFC 4861
// sections 7.1.1 and 7.1.2).
func validNeighbor(p *packet.Parsed, icmp packet.ICMPv6) bool {
	if len(icmp) < packet.NeighborLen || p.TTL != packet.NDPHopLimit || p.ICMPCode != 0 ||
		packet.Checksum(icmp, packet.PseudoIPv6(p.Src, p.Dst, packet.ProtoICMPv6, uint32(len(icmp)))) != 0 {
		return false
	}
	if p.ICMPType == packet.ICMPv6NeighborAdvert && p.Dst[0] == 0xff && icmp.Solicited() {
		return false
	}
	const unit = 8 // option lengths count these, RFC 4861 section 4.6
	for options := icmp[packet.NeighborLen:]; len(options) > 0; {
		if len(options) < unit {
			return false
		}
		n := int(options[1]) * unit
		if n == 0 || n > len(options) {
			return false
		}
		options = options[n:]
	}
	return true
}

// validDetection checks what holds for a solicitation without a source address
// (RFC 4861 section 7.1.1): it asks the group, and says nothing of its sender.
func validDetection(p *packet.Parsed, icmp packet.ICMPv6, target [16]byte) bool {
	_, says := icmp.LinkAddr(packet.NDPOptionSourceLinkAddr)
	return p.Dst == packet.SolicitedNode(target) && !says
}

// claimed is the verdict on a message in which a station claims a VIP. If that
// is one of weir's own interfaces, its announcement has come back by another one
// on the same link.
func (f *Forwarder) claimed(addr *[16]byte, vip *snapshot.VIP, by packet.MAC) Verdict {
	if f.isOurs(by) {
		return drop(stats.Reflected)
	}
	f.tell(addr, by, false)
	if vip.Silent() {
		return drop(stats.AnnouncedElsewhere)
	}
	return drop(stats.AddressConflict)
}

// oneStation reports whether an address can be one station's, so that an
// answer may go there. Nobody else sends from any other (RFC 1122 section
// 3.2.1.3, RFC 4443 section 2.4 (e.5) and (e.6)).
func oneStation(a [16]byte) bool {
	addr := packet.NetipAddr(a)
	return !addr.IsUnspecified() && !addr.IsMulticast() && addr != limitedBroadcast()
}

func limitedBroadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// reply addresses an answer to a station on the link it was asked on.
func reply(b []byte, to packet.MAC, iface *snapshot.Interface, ingress uint16) Verdict {
	eth := packet.Ethernet(b)
	eth.SetDst(to)
	eth.SetSrc(iface.MAC)
	return Verdict{Action: Send, Egress: ingress}
}
