package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// request is the rest of what is done to a client's packet once it is classified: it
// finds the flow's backend, or chooses one, and rewrites the frame for it.
func (f *Forwarder) request(p *packet.Parsed, meta *handover.Meta, hash uint64, service uint32, frame *queue.Frame) Verdict {
	svc := &f.snap.Services[service]
	if !meta.Admitted {
		if reason := f.guards.admit(service, svc, p, f.now); reason != stats.ReasonNone {
			return drop(reason)
		}
		meta.Admitted = true
	}
	entry := f.lookup(p, hash)
	if entry == nil || !f.stays(entry, service) {
		if entry == nil && f.elsewhere(p, svc) {
			switch f.askOn(frame, meta) {
			case asked:
				return Verdict{Action: Taken}
			case tooMany:
				if !p.Fragment {
					return drop(stats.NoFlow) // and not reset: it may be somewhere
				}
			}
		}
		if entry == nil && svc.Spread() {
			if to := f.memberOf(&p.Tuple, svc, p, frame); to != nil {
				f.endReopened(p, hash)
				return f.give(to, p, meta, frame)
			}
		}
		var slot uint32
		var reason stats.Reason
		if entry, slot, reason = f.decide(entry, p, meta, hash, service, frame); reason != stats.ReasonNone {
			return f.undecided(reason, p, meta, svc, frame)
		}
		if svc.Mode == snapshot.Direct {
			return f.direct(slot, p, meta, frame)
		}
	} else if !svc.Guarded() {
		f.makeKnown(entry)
	}
	if svc.Mode == snapshot.Direct {
		return f.direct(entry.Backend, p, meta, frame)
	}
	return f.toBackend(entry, p, meta, frame)
}

// lookup returns the flow of a client's packet, or nil. A later fragment is no
// second packet, and has no header to note: the first one's was.
func (f *Forwarder) lookup(p *packet.Parsed, hash uint64) *flow.Entry {
	if p.Fragment && !p.FragmentFirst {
		return f.flows.Peek(hash, &p.Tuple, f.now)
	}
	return f.flows.Lookup(hash, &p.Tuple, segment(p), f.now)
}

// makeKnown has the next packets of a flow, which holds, be taken for what they are
// without a look at its service, until what that depends on may have changed.
func (f *Forwarder) makeKnown(e *flow.Entry) {
	if isNAT(e) {
		// Answers to an address that is weir's own are not in transit (classify), and
		// known ones are not looked at.
		if e.NAT.Flags&natKeep != 0 && f.snap.VIP(&e.Tuple.Src) != nil {
			return
		}
		var to packet.Tuple
		if !f.translated(e, &to) {
			return
		}
		e.Delta = translate.Delta(&e.Tuple, &to)
	} else if e.NAT.Flags &^= plain; f.short(e.Backend) {
		e.NAT.Flags |= plain
	}
	f.flows.Mark(e, f.mark)
}

// short puts in its slot what is done to a backend's packets in short, if that can be
// said so.
func (f *Forwarder) short(backend uint32) bool {
	direct := f.snap.Backend(backend).Rewrite.Direct()
	if direct.Applies() {
		f.targets[backend].direct = direct
	}
	return direct.Applies()
}

// elsewhere tells whether another worker may have the flow of a packet that
// this one does not know: a NIC spreads fragments in another way, and a client
// whose packets come by another interface from now on has its NAT flows at a
// worker of the old one.
func (f *Forwarder) elsewhere(p *packet.Parsed, svc *snapshot.Service) bool {
	return svc.Mode != snapshot.NATKeep && (p.Fragment || svc.Mode == snapshot.NAT && !opens(p))
}

// segment returns what the flow table wants to know of a packet.
func segment(p *packet.Parsed) flow.Segment {
	return flow.Segment{Flags: p.TCPFlags, Sequence: p.TCPSequence}
}

// opens tells whether a packet without a flow may be the first of one, and not
// one of a connection that is older than what weir remembers.
func opens(p *packet.Parsed) bool {
	return p.Proto != packet.ProtoTCP || p.TCPFlags&(packet.TCPSyn|packet.TCPAck|packet.TCPRst) == packet.TCPSyn
}

// direct sends a packet on as the backend's Rewrite says.
func (f *Forwarder) direct(slot uint32, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	rw := &f.snap.Backend(slot).Rewrite
	if reason := rw.Apply(frame, p); reason != stats.ReasonNone {
		return f.notDirect(reason, rw, p, meta, frame)
	}
	f.targets[slot].sent.Add(frame.Len())
	return Verdict{Action: Send, Egress: rw.Egress}
}

// notDirect is the verdict on a packet that a Rewrite does not apply to.
func (f *Forwarder) notDirect(reason stats.Reason, rw *rewrite.Rewrite, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if reason == stats.TooBig {
		return f.tooBig(p, meta, frame, rw.Room(), p.Kind == packet.KindIPv6)
	}
	return f.refused(reason, p, meta, frame)
}

// stays tells whether a flow keeps its backend. It does while the backend's
// slot still means the same backend of the same service, and that one takes
// packets of old flows; under NAT its SNAT address has to be there too.
func (f *Forwarder) stays(e *flow.Entry, service uint32) bool {
	if e.Backend >= uint32(f.snap.Slots()) {
		return false
	}
	b := f.snap.Backend(e.Backend)
	return b.Generation == e.Generation && b.State != snapshot.Removed && b.Service == service &&
		(!isNAT(e) || f.natStays(e))
}

// decide chooses the backend of a new flow, by Maglev, and records it. old is
// the flow's entry if it has one that does not hold any more. Without NAT a
// flow that finds no room in the table, or comes when too many new ones do,
// is decided all the same, and the entry is nil.
func (f *Forwarder) decide(old *flow.Entry, p *packet.Parsed, meta *handover.Meta, hash uint64, service uint32, frame *queue.Frame) (*flow.Entry, uint32, stats.Reason) {
	svc := &f.snap.Services[service]
	if old != nil {
		f.end(old)
	}
	if opens(p) {
		if reason := f.guards.admitFlow(service, svc, p, f.now); reason != stats.ReasonNone {
			return nil, 0, reason
		}
	} else if svc.Mode != snapshot.Direct {
		return nil, 0, stats.NoFlow // its SNAT port is not known, so no backend would know it
	}
	if f.own(f.vip(p.Kind, &p.Src)) || f.snap.IsStrayProbe(&p.Src, p.TTL) {
		return nil, 0, stats.Looped // nobody is behind that address, and two services could talk to each other for ever
	}
	slot := svc.Choose(&p.Tuple)
	if slot == snapshot.None {
		return nil, 0, svc.Empty
	}
	entry, reason := f.record(p, hash, slot, svc.Mode)
	if reason != stats.ReasonNone || svc.Mode == snapshot.Direct {
		return entry, slot, reason
	}
	if reason = f.translate(entry, p, meta, hash, svc.Mode, frame); reason == stats.ReasonNone {
		f.begun(slot, p)
	}
	return entry, slot, reason
}

// begun counts a flow that has got its entry, and all that it needs.
func (f *Forwarder) begun(slot uint32, p *packet.Parsed) {
	c := &f.counters.Backends[slot]
	c.NewFlows++
	if p.TCPFlags&(packet.TCPSyn|packet.TCPAck|packet.TCPRst|packet.TCPFin) == packet.TCPSyn {
		c.Opened++
	}
}

// came counts what the table has seen of a connection.
func (f *Forwarder) came(e *flow.Entry, what flow.Event) {
	c := &f.counters.Backends[e.Backend]
	if c.Generation != e.Generation {
		return // the slot is another backend's now
	}
	switch what {
	case flow.Established:
		c.Established++
	case flow.Retried:
		c.Retries++
	case flow.Reset:
		c.Resets++
	}
}

// record makes the entry of a new flow to a backend. A reset gets none, as
// nothing follows it.
func (f *Forwarder) record(p *packet.Parsed, hash uint64, slot uint32, mode snapshot.Mode) (*flow.Entry, stats.Reason) {
	c := &f.counters.Backends[slot]
	if mode == snapshot.Direct {
		if p.TCPFlags&packet.TCPRst != 0 {
			return nil, stats.ReasonNone
		}
		if f.snap.NewFlows != (limit.Rate{}) && !f.guards.newFlows.Allow(f.snap.NewFlows, f.now) {
			c.NewFlows++
			f.counters.FlowsUnrecorded++
			return nil, stats.ReasonNone
		}
	}
	entry, evicted, why := f.flows.Insert(hash, &p.Tuple, segment(p), f.now)
	if why != flow.EvictedNone {
		f.forget(evicted, f.flows.Number(entry))
	}
	switch why {
	case flow.EvictedOldest:
		f.counters.FlowsEvicted++
	case flow.EvictedUntrusted:
		f.counters.FlowsUntrustedEvicted++
	case flow.EvictedEnded:
		f.counters.FlowsExpired++
	}
	if entry == nil {
		f.counters.FlowsRefused++
		if mode != snapshot.Direct {
			return nil, stats.TableFull
		}
		c.NewFlows++
		return nil, stats.ReasonNone
	}
	if mode == snapshot.Direct {
		f.begun(slot, p)
	}
	c.Flows++
	entry.Backend = slot
	entry.Generation = f.snap.Backend(slot).Generation
	return entry, stats.ReasonNone
}

// undecided is the verdict on a packet for which there is no backend. A client
// whose connection NAT has forgotten, in a restart say, is told to give it up.
func (f *Forwarder) undecided(reason stats.Reason, p *packet.Parsed, meta *handover.Meta, svc *snapshot.Service, frame *queue.Frame) Verdict {
	if reason == stats.NoFlow && p.Proto == packet.ProtoTCP && !p.Fragment && svc.Mode != snapshot.Direct {
		return f.reset(reason, p, meta, frame)
	}
	return drop(reason)
}

// end takes a flow out of the table.
func (f *Forwarder) end(e *flow.Entry) {
	number := f.flows.Number(e)
	if gone, ok := f.flows.DeleteAt(number); ok {
		f.forget(&gone, number)
	}
}

// forget takes a flow that has left its place in the table off all that is
// kept about it.
func (f *Forwarder) forget(e *flow.Entry, number uint32) {
	if c := &f.counters.Backends[e.Backend]; c.Generation == e.Generation {
		c.Flows--
	}
	if isNAT(e) {
		f.unassign(e, number)
		f.nat.stations.Release(e.NAT.Station)
		f.counters.NATFlows--
	}
}

func (f *Forwarder) expire(e *flow.Entry) {
	f.forget(e, f.flows.Number(e))
	f.counters.FlowsExpired++
}
