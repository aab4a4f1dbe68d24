package forward

import (
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// Where several nodes share the flows to a VIP, this one gets all packets and
// gives most of them away. It remembers nothing of what it gives: whose a flow
// is follows from its tuple, so that another node that gets the packets gives
// them to the same members. Only what is not in the flow table is given away,
// and only once: what comes from a member is for this node.
//
// A flow is counted, and limited, by the node that serves it, but for the rate of
// packets of a service and for its access list: those hold where packets come
// in, so that what is refused does not cross the network once more, and so that
// more nodes do not let more through.

// memberOf returns the node that a packet is to be given to, for the flow of the
// tuple about, or nil if this one serves it. There must be no entry of the flow.
func (f *Forwarder) memberOf(about *packet.Tuple, svc *snapshot.Service, p *packet.Parsed, frame *queue.Frame) *snapshot.SpreadMember {
	spread := f.snap.VIP(&about.Dst).Spread
	switch {
	case spread == nil, spread.Is(packet.Ethernet(frame.Bytes()).Src()):
		return nil
	case p.TTL <= 1:
		return nil // nodes that do not agree who the members are have given it to each other for long enough
	}
	if member := spread.Member(svc, about); !member.Self {
		return member
	}
	return nil
}

// give sends a packet to another node.
func (f *Forwarder) give(to *snapshot.SpreadMember, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if to.Rewrite.Relay(frame, p) == stats.TooBig {
		return f.tooBig(p, meta, frame, to.Rewrite.MTU(), p.Kind == packet.KindIPv6)
	}
	f.counters.Spread.Add(frame.Len())
	return Verdict{Action: Send, Egress: to.Rewrite.Egress}
}

// endReopened takes the entry of a connection that has ended out of the table if
// p opens the next one on the same tuple, which is another node's: what follows
// must not find it.
func (f *Forwarder) endReopened(p *packet.Parsed, hash uint64) {
	if p.TCPFlags&packet.TCPSyn == 0 {
		return
	}
	if old := f.flows.Peek(hash, &p.Tuple, f.now); old != nil {
		f.end(old)
	}
}
