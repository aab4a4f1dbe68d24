package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/fragment"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// Fragments after the first do not say which flow they are of. So all of a
// datagram's go to one worker, whatever queue they came in on, which learns the
// ports from the first, lets those that were faster wait for it, and from then
// on takes each for a packet of its flow. If that flow is another worker's,
// which a NIC may choose by the ports that a fragment does not have, the workers
// are asked one after the other.

// reassemble finds the ports of a fragment. known is false if the verdict is
// final: the fragment went elsewhere, waits, or is refused.
func (f *Forwarder) reassemble(p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) (verdict Verdict, known bool) {
	if meta.HasFlow {
		p.Proto, p.SrcPort, p.DstPort = meta.Proto, meta.SrcPort, meta.DstPort
		return Verdict{}, true
	}
	b := frame.Bytes()
	switch {
	case p.Proto == packet.ProtoICMPv4 || p.Proto == packet.ProtoICMPv6:
		return drop(stats.ICMPUnhandled), false
	case p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP && !extended(p):
		return drop(stats.UnhandledProtocol), false
	case fragment.Tiny(p, b):
		return drop(stats.FragmentTiny), false
	}
	key, span := fragment.KeyOf(b, p)
	if home := f.home(&key); home != f.self {
		return f.pass(home, frame, meta), false
	}
	var first *fragment.Ports
	if p.FragmentFirst {
		first = &fragment.Ports{Src: p.SrcPort, Dst: p.DstPort, Proto: p.Proto}
	}
	result := f.fragments.Track(&key, span, first, f.now)
	switch result.Action {
	case fragment.Drop:
		return drop(result.Reason), false
	case fragment.Hold:
		if !f.fragments.Hold(&key, b, fragment.Meta{Ingress: meta.Ingress}) {
			return drop(stats.FragmentLost), false
		}
		f.counters.FragmentsHeld++
		return Verdict{Action: Taken}, false
	}
	meta.HasFlow, meta.Proto, meta.SrcPort, meta.DstPort = true, result.Ports.Proto, result.Ports.Src, result.Ports.Dst
	p.Proto, p.SrcPort, p.DstPort = meta.Proto, meta.SrcPort, meta.DstPort
	if p.FragmentFirst {
		f.releaseHeld(&key, meta)
	}
	return Verdict{}, true
}

// extended tells whether a later fragment does not say its protocol: the first
// one has extension headers before its transport header (RFC 8200 section 4.5).
func extended(p *packet.Parsed) bool {
	return p.Kind == packet.KindIPv6 && !p.FragmentFirst &&
		(p.Proto == packet.ProtoDestOptions || p.Proto == packet.ProtoRouting)
}

// releaseHeld has the worker take up the fragments that waited for the first.
func (f *Forwarder) releaseHeld(key *fragment.Key, first *handover.Meta) {
	for {
		held, its, ok := f.fragments.Next(key)
		if !ok {
			return
		}
		f.outbox.Pass(f.self, held, handover.Meta{
			HasFlow: true, Proto: first.Proto, SrcPort: first.SrcPort, DstPort: first.DstPort, Ingress: its.Ingress,
		})
	}
}

// home returns the index of the worker that all fragments of a datagram go to.
func (f *Forwarder) home(key *fragment.Key) int {
	if len(f.peers) == 1 {
		return f.self
	}
	hash := flow.HashStable(&packet.Tuple{Src: key.Src, Dst: key.Dst, SrcPort: uint16(key.ID >> 16), DstPort: uint16(key.ID)})
	return int(hash % uint64(len(f.peers)))
}
