package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// An ICMP error quotes the packet that it is about, which went the other way:
// the flow is that of the quoted tuple turned around. It neither begins a flow
// nor keeps one alive.

// relayError is the verdict on an ICMP error to one of weir's addresses (vip,
// or nil for one that is in transit).
func (f *Forwarder) relayError(p *packet.Parsed, vip *snapshot.VIP, meta *handover.Meta, frame *queue.Frame) Verdict {
	var quoted packet.Quoted
	if p.Fragment || !quoted.Decode(frame.Bytes(), p) {
		return drop(stats.ICMPUnhandled)
	}
	if quoted.Src != p.Dst {
		return drop(stats.NoFlow) // it is for whoever sent the packet, and nobody else (RFC 1122 section 3.2.2)
	}
	if !meta.Admitted && !f.relays.Allow(&p.Src, f.now) {
		return drop(stats.ICMPLimited)
	}
	meta.Admitted = true
	about := quoted.Tuple.Reverse()
	switch {
	case quoted.Proto == packet.ProtoIPv4 || quoted.Proto == packet.ProtoIPv6:
		return f.learnTunnel(&quoted)
	case vip == nil || vip.SNAT != nil:
		return f.errorToClient(p, &quoted, &about, vip, meta, frame)
	}
	service := vip.Service(about.Proto, about.DstPort)
	if service == snapshot.None {
		return drop(stats.NoFlow)
	}
	return f.errorToBackend(p, &about, service, &quoted, meta, frame)
}

// learnTunnel notes what a packet-too-big message says about the outer packets
// of a tunnel. What was in the tunnel is not told: its sender will hear of the
// MTU when it sends the next packet of that size.
func (f *Forwarder) learnTunnel(quoted *packet.Quoted) Verdict {
	if quoted.MTU == 0 || !f.snap.IsTunnel(&quoted.Src, &quoted.Dst) {
		return drop(stats.NoFlow)
	}
	f.counters.PathMTULearned++
	f.outbox.Learn(quoted.Dst, int(quoted.MTU))
	return Verdict{Action: Taken}
}

// errorToBackend passes on an error about what a backend sent to a client.
func (f *Forwarder) errorToBackend(p *packet.Parsed, about *packet.Tuple, service uint32, quoted *packet.Quoted, meta *handover.Meta, frame *queue.Frame) Verdict {
	svc := &f.snap.Services[service]
	if svc.Mode == snapshot.NATKeep {
		if owner := f.keeper(&about.Src, about.SrcPort); owner != f.self {
			return f.pass(owner, frame, meta)
		}
	}
	e := f.flows.Peek(f.flows.Hash(about), about, f.now)
	if e == nil || !f.stays(e, service) {
		if svc.Mode != snapshot.NATKeep && f.askOn(frame, meta) == asked {
			return Verdict{Action: Taken}
		}
		if e == nil && svc.Spread() {
			if to := f.memberOf(about, svc, p, frame); to != nil {
				return f.give(to, p, meta, frame)
			}
		}
		return f.errorByTable(p, about, svc, meta, frame)
	}
	if svc.Mode == snapshot.Direct {
		return f.relayed(f.direct(e.Backend, p, meta, frame))
	}
	var answer packet.Tuple
	f.answerOf(e, &answer) // the flow holds, so its backend is known
	change := translate.ErrorChange{Src: answer.Dst, Dst: answer.Src, Quoted: answer}
	if e.NAT.Flags&natKeep != 0 {
		change.Src = p.Src // the backends know the network that the client is in
	}
	rw := &f.snap.Backend(e.Backend).Rewrite
	l3, reason := change.Packet(frame, p, quoted, rw.Room())
	if reason != stats.ReasonNone {
		return drop(reason)
	}
	rw.Frame(frame, l3)
	return f.relayed(Verdict{Action: Send, Egress: rw.Egress})
}

// errorByTable passes on an error about a flow that nobody remembers to where
// Maglev sends that flow: perhaps another weir has it.
func (f *Forwarder) errorByTable(p *packet.Parsed, about *packet.Tuple, svc *snapshot.Service, meta *handover.Meta, frame *queue.Frame) Verdict {
	if svc.Mode != snapshot.Direct {
		return drop(stats.NoFlow)
	}
	slot := svc.Choose(about)
	if slot == snapshot.None {
		return drop(svc.Empty)
	}
	return f.relayed(f.direct(slot, p, meta, frame))
}

// errorToClient passes on an error about what weir sent to a backend for a
// client. It comes from the VIP: what is behind that is not the client's to
// know.
func (f *Forwarder) errorToClient(p *packet.Parsed, quoted *packet.Quoted, about *packet.Tuple, vip *snapshot.VIP, meta *handover.Meta, frame *queue.Frame) Verdict {
	owner := -1
	switch {
	case vip != nil:
		if number, ok := f.nat.space.Owner(vip.SNAT.Range.Slot, about.DstPort); ok {
			owner = f.peer(number)
		}
	case f.snap.IsAnswer(&about.Src, about.Proto, about.SrcPort):
		owner = f.keeper(&about.Dst, about.DstPort)
	default:
		return drop(stats.UnknownVIP)
	}
	if owner < 0 || f.nat.index == nil {
		return drop(stats.NoFlow)
	}
	if owner != f.self {
		return f.pass(owner, frame, meta)
	}
	_, e := f.answered(f.flows.Hash(about), about)
	if !f.holds(e) {
		return drop(stats.NoFlow)
	}
	f.learnPath(e, quoted)
	st, mtu := f.wayBack(e)
	if mtu == 0 {
		return drop(stats.NoEgress)
	}
	change := translate.ErrorChange{Src: e.Tuple.Dst, Dst: e.Tuple.Src, Quoted: e.Tuple}
	l3, reason := change.Packet(frame, p, quoted, mtu)
	if reason != stats.ReasonNone {
		return drop(reason)
	}
	f.frameFor(st, frame, l3)
	return f.relayed(Verdict{Action: Send, Egress: st.Interface})
}

// learnPath notes what an error says about the path to a NAT flow's backend.
func (f *Forwarder) learnPath(e *flow.Entry, quoted *packet.Quoted) {
	b := f.snap.Backend(e.Backend)
	if quoted.MTU != 0 && quoted.MTU < b.Rewrite.Room() {
		f.counters.PathMTULearned++
		f.outbox.Learn(b.Addr, int(quoted.MTU))
	}
}

// relayed counts an error that was passed on.
func (f *Forwarder) relayed(v Verdict) Verdict {
	if v.Action == Send {
		f.counters.ErrorsRelayed++
	}
	return v
}
