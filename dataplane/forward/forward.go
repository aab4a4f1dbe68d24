// Package forward decides what becomes of each frame: frame, snapshot and flow
// table in, verdict out, with the frame rewritten in place. It does no I/O.
//
// The problem it solves: one place, free of sockets and time, that can be
// tested frame by frame and fuzzed, and that the worker drives in batches, so
// that the cache misses of a batch's flow look-ups overlap.
package forward

import (
	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// BatchSize is the largest number of frames that Process takes at once: enough
// to hide cache misses, few enough that the scratch space stays in the
// innermost cache.
const BatchSize = 64

// Action says what the worker does with a frame.
type Action uint8

const (
	Drop Action = iota // give the buffer back
	Send               // send the frame by Verdict.Egress
)

// Verdict is what Process decided about one frame.
type Verdict struct {
	Action Action
	Reason stats.Reason // why it is dropped
	Egress uint16       // index into Snapshot.Interfaces of where it leaves
}

// Forwarder decides for one worker. It owns the worker's flow table and writes
// its counters; only that worker's goroutine calls it.
type Forwarder struct {
	flows    *flow.Table
	counters *stats.Counters
	expired  func(*flow.Entry) // f.expire, bound once so that Sweep does not allocate

	snap *snapshot.Snapshot // the one in use since the last Adopt

	// Scratch for one batch, filled by the first pass and read by the second.
	parsed  [BatchSize]packet.Parsed
	pending [BatchSize]pending
	hashes  [BatchSize]uint64 // of pending
}

// pending is a frame that belongs to a service and waits for the second pass.
type pending struct {
	frame   int // index into the batch
	service uint32
}

// New makes a Forwarder that keeps flows in table and counts in counters.
func New(table *flow.Table, counters *stats.Counters) *Forwarder {
	f := &Forwarder{flows: table, counters: counters}
	f.expired = f.expire
	return f
}

// Adopt makes snap the one that Process goes by. Counters of backend slots
// that have changed hands start anew. It may allocate; it is called when the
// snapshot has changed and never per packet.
func (f *Forwarder) Adopt(snap *snapshot.Snapshot) {
	f.snap = snap
	c := f.counters
	if n := len(snap.Backends) - len(c.Backends); n > 0 {
		c.Backends = append(c.Backends, make([]stats.Backend, n)...)
	}
	for i := range snap.Backends {
		if gen := snap.Backends[i].Generation; c.Backends[i].Generation != gen {
			c.Backends[i] = stats.Backend{Generation: gen}
		}
	}
}

// Process decides about frames, at most BatchSize of them, which came in on
// the interface with index ingress, and puts one verdict per frame into
// verdicts. Frames to be sent have been rewritten.
func (f *Forwarder) Process(ingress uint16, now flow.Tick, frames []queue.Frame, verdicts []Verdict) {
	verdicts = verdicts[:len(frames)]
	waiting := 0
	for i := range frames {
		verdict, service := f.classify(&f.parsed[i], ingress, &frames[i])
		verdicts[i] = verdict
		if service != snapshot.None {
			f.pending[waiting] = pending{i, service}
			f.hashes[waiting] = f.flows.Hash(&f.parsed[i].Tuple)
			waiting++
		}
	}
	f.flows.Prefetch(f.hashes[:waiting])
	for k := range f.pending[:waiting] {
		i := f.pending[k].frame
		verdicts[i] = f.forward(&f.parsed[i], f.hashes[k], f.pending[k].service, now, &frames[i])
	}
	for i := range verdicts {
		if verdicts[i].Action == Drop {
			f.counters.Drop(verdicts[i].Reason)
		}
	}
}

func drop(reason stats.Reason) Verdict { return Verdict{Action: Drop, Reason: reason} }

// classify is the first pass over a frame: it returns the service that the
// frame is for, or else, with snapshot.None, the verdict.
func (f *Forwarder) classify(p *packet.Parsed, ingress uint16, frame *queue.Frame) (Verdict, uint32) {
	b := frame.Bytes()
	p.Decode(b)
	if p.Problem != packet.ProblemNone {
		return drop(problemReason(p.Problem)), snapshot.None
	}
	iface := &f.snap.Interfaces[ingress]
	to := packet.Ethernet(b).Dst()
	switch {
	case p.Kind == packet.KindOther:
		return drop(stats.NotIP), snapshot.None
	case to != iface.MAC && !to.IsMulticast(), iface.MAC.IsZero():
		// Without an address of its own, as when it has just come back, an
		// interface is nobody yet: an answer would spread the zero address.
		return drop(stats.ForeignMAC), snapshot.None
	case packet.Ethernet(b).Src().IsMulticast():
		return drop(stats.Malformed), snapshot.None // IEEE 802.3 section 3.2.3
	case p.Kind == packet.KindARP:
		return f.answerARP(frame, p, iface, ingress), snapshot.None
	case p.Kind == packet.KindIPv6 && p.Proto == packet.ProtoICMPv6 &&
		(p.Dst[0] == 0xff || p.ICMPType == packet.ICMPv6NeighborAdvert):
		return f.answerICMPv6(frame, p, iface, ingress), snapshot.None
	case to != iface.MAC:
		return drop(stats.ForeignMAC), snapshot.None
	}
	vip := f.vip(p.Kind, &p.Dst)
	switch {
	case vip == nil:
		return drop(stats.UnknownVIP), snapshot.None
	case p.Fragment:
		return drop(stats.Fragment), snapshot.None
	}
	switch p.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		if service := vip.Service(p.Proto, p.DstPort); service != snapshot.None {
			return Verdict{}, service
		}
		return drop(stats.NoService), snapshot.None
	case packet.ProtoICMPv4:
		if p.Kind == packet.KindIPv4 {
			return f.answerICMPv4(frame, p, iface, ingress), snapshot.None
		}
	case packet.ProtoICMPv6:
		if p.Kind == packet.KindIPv6 {
			return f.answerICMPv6(frame, p, iface, ingress), snapshot.None
		}
	case packet.ProtoIPv4, packet.ProtoIPv6:
		return drop(stats.Tunnelled), snapshot.None
	}
	return drop(stats.UnhandledProtocol), snapshot.None
}

// vip returns the VIP with the address that a packet of this kind names, or
// nil. An IPv4-mapped address in an IPv6 packet, which has no place on a link
// (RFC 4942 section 2.2), is not the IPv4 address.
func (f *Forwarder) vip(kind packet.Kind, addr *[16]byte) *snapshot.VIP {
	if kind == packet.KindIPv6 && packet.IsMapped(*addr) {
		return nil
	}
	return f.snap.VIP(addr)
}

// forward is the second pass over a frame: it finds the flow's backend, or
// chooses one, and rewrites the frame for it.
func (f *Forwarder) forward(p *packet.Parsed, hash uint64, service uint32, now flow.Tick, frame *queue.Frame) Verdict {
	slot, reason := f.backend(p, hash, service, now)
	if reason != stats.ReasonNone {
		return drop(reason)
	}
	rw := &f.snap.Backends[slot].Rewrite
	if reason := rw.Apply(frame, p); reason != stats.ReasonNone {
		return drop(reason)
	}
	f.counters.Backends[slot].Add(frame.Len())
	return Verdict{Action: Send, Egress: rw.Egress}
}

// backend returns the slot of the flow's backend. A flow stays where it is
// while its backend's slot still means the same backend of the same service
// and that one takes packets of old flows; otherwise Maglev decides anew.
func (f *Forwarder) backend(p *packet.Parsed, hash uint64, service uint32, now flow.Tick) (uint32, stats.Reason) {
	entry := f.flows.Lookup(hash, &p.Tuple, p.TCPFlags, now)
	if entry != nil && f.stays(entry, service) {
		return entry.Backend, stats.ReasonNone
	}
	svc := &f.snap.Services[service]
	slot := svc.Pick(stableHash(svc.Affinity, &p.Tuple))
	if slot == snapshot.None {
		return slot, svc.Empty
	}
	if entry != nil {
		f.forget(entry)
	} else if entry = f.insert(p, hash, now); entry == nil {
		return slot, stats.ReasonNone
	}
	c := &f.counters.Backends[slot]
	c.NewFlows++
	c.Flows++
	entry.Backend = slot
	entry.Generation = f.snap.Backends[slot].Generation
	return slot, stats.ReasonNone
}

func (f *Forwarder) stays(e *flow.Entry, service uint32) bool {
	if e.Backend >= uint32(len(f.snap.Backends)) {
		return false
	}
	b := &f.snap.Backends[e.Backend]
	return b.Generation == e.Generation && b.State != snapshot.Removed && b.Service == service
}

// insert makes an entry for a new flow. A reset gets none: nothing follows it.
func (f *Forwarder) insert(p *packet.Parsed, hash uint64, now flow.Tick) *flow.Entry {
	if p.TCPFlags&packet.TCPRst != 0 {
		return nil
	}
	entry, evicted, why := f.flows.Insert(hash, &p.Tuple, p.TCPFlags, now)
	switch why {
	case flow.EvictedOldest:
		f.forget(&evicted)
		f.counters.FlowsEvicted++
	case flow.EvictedEnded:
		f.expire(&evicted)
	}
	return entry
}

// forget takes a flow off its backend's gauge.
func (f *Forwarder) forget(e *flow.Entry) {
	if c := &f.counters.Backends[e.Backend]; c.Generation == e.Generation {
		c.Flows--
	}
}

// Sweep removes idle flows from the next sets of the flow table.
func (f *Forwarder) Sweep(now flow.Tick, sets int) {
	f.flows.Sweep(now, sets, f.expired)
}

func (f *Forwarder) expire(e *flow.Entry) {
	f.forget(e)
	f.counters.FlowsExpired++
}

// stableHash is what Maglev picks by. It is the same on every node, so that
// nodes agree on a flow's backend without talking to each other.
func stableHash(a snapshot.Affinity, t *packet.Tuple) uint64 {
	if a == snapshot.AffinitySource {
		return flow.HashStableSource(&t.Src)
	}
	return flow.HashStable(t)
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
