package forward

import (
	"weir/dataplane/fragment"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/refuse"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// ipv6MinMTU is what every IPv6 link carries (RFC 8200 section 5), in bytes.
const ipv6MinMTU = 1280

// tooBig is the verdict on a packet that is longer than the room bytes an IP
// packet may have where it leaves, in the version of IP that it leaves in. An
// IPv4 packet whose sender allows it is taken apart, and each piece goes through
// everything again. Of all others the sender is told the MTU (RFC 1191 section
// 4, RFC 8201 section 3).
func (f *Forwarder) tooBig(p *packet.Parsed, meta *handover.Meta, frame *queue.Frame, room uint32, toIPv6 bool) Verdict {
	// What a piece, in IPv6 with a fragment header, may grow by. No IPv4 link
	// has less to spare (RFC 791: 68 bytes), unless it is just going away.
	const grows = packet.IPv6Len + packet.IPv6FragmentLen - packet.IPv4MinLen
	if room <= grows {
		return drop(stats.TooBig)
	}
	b := frame.Bytes()
	if p.Kind == packet.KindIPv4 && !p.DontFragment {
		if toIPv6 {
			if p.Proto == packet.ProtoUDP && !p.Fragment && packet.UDP(b[p.L4:p.End]).Checksum() == 0 {
				return drop(stats.Untranslatable) // the pieces could not get one (RFC 7915 section 4.5)
			}
			room -= grows
		}
		return f.split(p, meta, frame, room)
	}
	mtu := room + (p.End - p.L3) - translate.Grown(p, toIPv6)
	if !refuse.Allowed(p, b) || !f.pathMTUs.Allow(&p.Src, f.now) {
		return drop(stats.TooBig)
	}
	ok := false
	if p.Kind == packet.KindIPv4 {
		ok = refuse.FragmentationNeeded(frame, p, uint16(min(mtu, 0xffff)))
	} else if mtu >= ipv6MinMTU {
		// Below that no answer would help: the sender goes no lower.
		ok = refuse.PacketTooBig(frame, p, mtu)
	}
	if !ok {
		return drop(stats.TooBig)
	}
	f.counters.PathMTUAnswers++
	return f.back(frame, meta)
}

// split takes an IPv4 packet apart into fragments of at most mtu bytes.
func (f *Forwarder) split(p *packet.Parsed, meta *handover.Meta, frame *queue.Frame, mtu uint32) Verdict {
	b := frame.Bytes()
	link := copy(f.piece[:], b[:p.L3])
	pieces := fragment.NewSplitter(b[p.L3:p.End], int(mtu))
	its := *meta // with what it has been let in by: the pieces are not counted again
	its.HasFlow, its.Proto, its.SrcPort, its.DstPort = true, p.Proto, p.SrcPort, p.DstPort
	for n := 0; ; n++ {
		size, ok := pieces.Next(f.piece[link:])
		if !ok {
			if n == 0 {
				return drop(stats.TooBig) // no room for eight bytes after its options
			}
			break
		}
		f.outbox.Pass(f.self, f.piece[:link+size], its)
	}
	f.counters.Fragmented++
	return Verdict{Action: Taken}
}

// back sends a frame, made from one that came in, to the station that sent that.
func (f *Forwarder) back(frame *queue.Frame, meta *handover.Meta) Verdict {
	b := frame.Bytes()
	return reply(b, packet.Ethernet(b).Src(), &f.snap.Interfaces[meta.Ingress], meta.Ingress)
}
