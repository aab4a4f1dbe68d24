package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// assign finds the second key of a flow that is not in use, and puts it into
// the index. Where every port is in use, one that belongs to a flow that is
// over, or untrusted, is taken over.
func (f *Forwarder) assign(e *flow.Entry, hash uint64, mode snapshot.Mode) stats.Reason {
	number := f.flows.Number(e)
	if mode == snapshot.NATKeep {
		e.NAT.Flags = natKeep
		var answer packet.Tuple
		f.answerOf(e, &answer) // the backend has just been chosen
		ahash := f.flows.Hash(&answer)
		if old, other := f.answered(ahash, &answer); other != nil {
			f.takeOver(old) // the same client came by another VIP
		}
		if !f.nat.index.Insert(ahash, number) {
			return stats.TableFull
		}
		return stats.ReasonNone
	}
	var fallback candidate
	if f.freePort(e, number, hash, &fallback) {
		return stats.ReasonNone
	}
	if !fallback.found {
		return stats.PortsExhausted
	}
	// Counted twice meanwhile, the port's block is not given back in between.
	f.nat.ports.Take(fallback.slot, fallback.port)
	f.takeOver(fallback.number)
	taken := f.tryPort(e, number, fallback.slot, fallback.port, &fallback)
	f.nat.ports.Free(fallback.slot, fallback.port)
	if !taken {
		return stats.PortsExhausted
	}
	return stats.ReasonNone
}

// freePort gives a flow a port that is free for its backend. It tries
// nat.MaxCandidates in all: half of what is left at one address, and half of the
// rest at the next. Where a search finds none, it has cost hundreds of cache
// misses, so that until the next tick the others settle sooner for a fallback, if
// there is one. If freePort returns false, fallback is the best one it has seen.
func (f *Forwarder) freePort(e *flow.Entry, number uint32, hash uint64, fallback *candidate) bool {
	n := &f.nat
	addrs := f.snap.SNAT(&f.snap.Backend(e.Backend).Addr)
	// All flows of a client get the same address while it has free ports (RFC
	// 4787 section 4.1, "paired").
	first := int(flow.HashStableSource(&e.Tuple.Src) % uint64(max(len(addrs), 1)))
	hurry := n.scarce == f.now
	n.tried = 0
	var search nat.Search
	for i := range addrs {
		left := nat.MaxCandidates - n.tried
		if i < len(addrs)-1 {
			// At least so many that the worker asks for another block.
			left = min(left, max(left/2, nat.Patience+1))
		}
		a := &addrs[(first+i)%len(addrs)]
		if a.Silent {
			continue // answers would go to another station
		}
		r := a.Range
		for n.ports.Begin(&search, r.Slot, hash); left > 0; left-- {
			if hurry && n.tried >= nat.Patience && fallback.found {
				return false
			}
			port, ok := n.ports.Next(&search)
			if !ok {
				break
			}
			n.tried++
			if f.tryPort(e, number, r.Slot, port, fallback) {
				return true
			}
		}
	}
	n.scarce = f.now
	return false
}

// candidate is a port in use that may be taken over.
type candidate struct {
	found  bool
	over   bool      // its flow is over, and not just untrusted
	idle   flow.Tick // for how long its flow was not seen
	number uint32
	slot   uint16
	port   uint16
}

// before tells whether c is to be taken over rather than other. Of flows that
// are over, the one that was over first: the backend may still have the end of a
// connection that was closed just now (RFC 9293 section 3.6.1), and refuse a
// new one in its place.
func (c *candidate) before(other *candidate) bool {
	if !other.found || c.over != other.over {
		return !other.found || c.over
	}
	return c.idle > other.idle
}

// tryPort gives a flow a port of a SNAT address if it is free for this backend.
// If not, and who has it may lose it, that is the fallback if it is better than
// the one before.
func (f *Forwarder) tryPort(e *flow.Entry, number uint32, slot, port uint16, fallback *candidate) bool {
	e.NAT.Slot, e.NAT.Port = slot, port
	var answer packet.Tuple
	if !f.answerOf(e, &answer) {
		return false
	}
	ahash := f.flows.Hash(&answer)
	if holder, other := f.answered(ahash, &answer); other != nil {
		if over, untrusted := f.flows.Reusable(holder, f.now); over || untrusted {
			c := candidate{true, over, f.flows.Idle(holder, f.now), holder, slot, port}
			if c.before(fallback) {
				*fallback = c
			}
		}
		return false
	}
	if !f.nat.index.Insert(ahash, number) {
		return false
	}
	f.nat.ports.Take(slot, port)
	return true
}

// takeOver ends a flow for the sake of its second key.
func (f *Forwarder) takeOver(number uint32) {
	if gone, ok := f.flows.DeleteAt(number); ok {
		f.forget(&gone, number)
		f.counters.NATTakenOver++
	}
}

// unassign gives back what assign has given to the flow with a number.
func (f *Forwarder) unassign(e *flow.Entry, number uint32) {
	var answer packet.Tuple
	if f.answerOf(e, &answer) {
		f.nat.index.Remove(f.flows.Hash(&answer), number)
	}
	if e.NAT.Flags&natKeep == 0 {
		f.nat.ports.Free(e.NAT.Slot, e.NAT.Port)
	}
}
