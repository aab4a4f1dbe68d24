package forward

import (
	"weir/dataplane/fragment"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// next is what is left to do about a frame once it is classified.
type next struct {
	kind    kind
	service uint32 // of a request
}

type kind uint8

const (
	settled   kind = iota // nothing: the verdict is final
	isRequest             // from a client, for a service
	isAnswer              // from a backend, to be translated back

	// Whole TCP and UDP packets, which are classified if their flow is not known.
	isForward  // no answer, surely
	isBackward // probably one
)

// classify says what a frame is, of which Decode has made p: it returns the verdict, or
// what else there is to do.
func (f *Forwarder) classify(p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) (Verdict, next) {
	b := frame.Bytes()
	if p.Problem != packet.ProblemNone {
		if fragment.Tiny(p, b) {
			return drop(stats.FragmentTiny), next{}
		}
		return drop(problemReason(p.Problem)), next{}
	}
	iface := &f.snap.Interfaces[meta.Ingress]
	to := packet.Ethernet(b).Dst()
	switch {
	case p.Kind == packet.KindOther:
		return drop(stats.NotIP), next{}
	case to != iface.MAC && !to.IsMulticast(), iface.MAC.IsZero():
		// Without an address of its own, as when it has just come back, an
		// interface is nobody yet: an answer would spread the zero address.
		return drop(stats.ForeignMAC), next{}
	case packet.Ethernet(b).Src().IsMulticast():
		return drop(stats.Malformed), next{} // IEEE 802.3 section 3.2.3
	case p.Kind == packet.KindIPv6 && packet.IsMapped(p.Src):
		return drop(stats.Malformed), next{} // it would pass for the IPv4 address; RFC 4942 section 2.2
	case p.Kind == packet.KindARP:
		return f.answerARP(frame, p, iface, meta.Ingress), next{}
	case p.Kind == packet.KindIPv6 && p.Proto == packet.ProtoICMPv6 &&
		(p.Dst[0] == 0xff || p.ICMPType == packet.ICMPv6NeighborAdvert):
		return f.answerICMPv6(frame, p, nil, meta), next{}
	case to != iface.MAC:
		return drop(stats.ForeignMAC), next{}
	}
	vip := f.vip(p.Kind, &p.Dst)
	if vip == nil && !f.inTransit(p) {
		return drop(stats.UnknownVIP), next{}
	}
	if p.Fragment {
		if verdict, known := f.reassemble(p, meta, frame); !known {
			return verdict, next{}
		}
	}
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		if vip == nil || vip.SNAT != nil {
			return f.classifyAnswer(p, vip, meta, frame)
		}
		return f.classifyRequest(p, vip, meta, frame)
	case packet.ProtoICMPv4:
		if p.Kind == packet.KindIPv4 {
			return f.answerICMPv4(frame, p, vip, meta), next{}
		}
	case packet.ProtoICMPv6:
		if p.Kind == packet.KindIPv6 {
			return f.answerICMPv6(frame, p, vip, meta), next{}
		}
	case packet.ProtoIPv4, packet.ProtoIPv6:
		return drop(stats.Tunnelled), next{}
	}
	return drop(stats.UnhandledProtocol), next{}
}

// vip returns the VIP or SNAT address that a packet of this kind names, or nil.
// An IPv4-mapped address in an IPv6 packet, which has no place on a link (RFC
// 4942 section 2.2), is not the IPv4 address.
func (f *Forwarder) vip(kind packet.Kind, addr *[16]byte) *snapshot.VIP {
	if kind == packet.KindIPv6 && packet.IsMapped(*addr) {
		return nil
	}
	return f.snap.VIP(addr)
}

// inTransit tells whether a packet to none of weir's addresses may be its all
// the same: a backend's answer to a client, or an ICMP error.
func (f *Forwarder) inTransit(p *packet.Parsed) bool {
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		return f.snap.HasAnswers()
	case packet.ProtoICMPv4, packet.ProtoICMPv6:
		return f.snap.HasAnswers() || f.snap.HasTunnels()
	}
	return false
}

func (f *Forwarder) classifyRequest(p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta, frame *queue.Frame) (Verdict, next) {
	service := vip.Service(p.Proto, p.DstPort)
	if service == snapshot.None {
		return f.rejectPort(p, vip, meta, frame), next{}
	}
	if f.snap.Services[service].Mode == snapshot.NATKeep {
		if owner := f.keeper(&p.Src, p.SrcPort); owner != f.self {
			return f.pass(owner, frame, meta), next{}
		}
	}
	return Verdict{}, next{isRequest, service}
}

// classifyAnswer finds the worker that has the flow of an answer: by the SNAT
// port, or where the client's address was left as it is, by the client.
func (f *Forwarder) classifyAnswer(p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta, frame *queue.Frame) (Verdict, next) {
	var owner int
	switch {
	case vip != nil:
		number, ok := f.nat.space.Owner(vip.SNAT.Range.Slot, p.DstPort)
		if owner = f.peer(number); !ok || owner < 0 {
			return drop(stats.NoFlow), next{}
		}
	case f.snap.IsAnswer(&p.Src, p.Proto, p.SrcPort):
		owner = f.keeper(&p.Dst, p.DstPort)
	default:
		return drop(stats.UnknownVIP), next{}
	}
	if owner != f.self {
		return f.pass(owner, frame, meta), next{}
	}
	if f.nat.index == nil {
		return drop(stats.NoFlow), next{}
	}
	return Verdict{}, next{kind: isAnswer}
}

func problemReason(p packet.Problem) stats.Reason {
	switch p {
	case packet.ProblemTruncated:
		return stats.Truncated
	case packet.ProblemBadChecksum:
		return stats.BadChecksum
	case packet.ProblemVLAN:
		return stats.StackedVLAN
	case packet.ProblemExtension:
		return stats.ExtensionHeaders
	default:
		return stats.Malformed
	}
}
