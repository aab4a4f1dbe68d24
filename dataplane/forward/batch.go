package forward

import (
	"encoding/binary"

	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/prefetch"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// batch is scratch for the frames of one batch, filled by the first pass and read
// by the second. What says nothing else is by the frame's index.
type batch struct {
	fresh    [BatchSize]handover.Meta // of frames of which nothing is known yet, from the latest interface
	metas    [BatchSize]handover.Meta
	parsed   [BatchSize]packet.Parsed
	kinds    [BatchSize]kind
	services [BatchSize]uint32 // of requests
	hashes   [BatchSize]uint64 // of those that the second pass is about, else 0
	places   [BatchSize]uint32 // of these, in the flow table

	// Of answers, and of what may be one, in the order in which they came.
	answers [BatchSize]uint8  // their frames' indexes
	ahashes [BatchSize]uint64 // their hashes
	numbers [BatchSize]uint32 // numbers of the flows that they seem to be of

	// Of those of them that seem to be of none.
	strangers      [BatchSize]uint64 // their hashes
	strangerPlaces [BatchSize]uint32 // what Prefetch says of them, which nobody reads
}

// came makes the metas of n frames that have come in on an interface.
func (b *batch) came(ingress uint16, n int) {
	if b.fresh[0].Ingress != ingress {
		for i := range b.fresh {
			b.fresh[i] = handover.Meta{Ingress: ingress}
		}
	}
	copy(b.metas[:], b.fresh[:n])
}

func (f *Forwarder) process(now flow.Tick, frames []queue.Frame, verdicts []Verdict) {
	f.now = now
	frames, verdicts = frames[:min(len(frames), BatchSize)], verdicts[:len(frames)]
	whole, answers := f.first(frames, verdicts)
	if f.second(frames, verdicts, whole) == len(frames) {
		return // all are sent
	}
	for n, at := range f.batch.answers[:answers] {
		verdicts[at] = f.answer(n, &frames[at])
	}
	for i := range verdicts {
		if verdicts[i].Action == Drop {
			f.counters.Drop(verdicts[i].Reason)
		}
	}
}

// first is the pass that parses. It settles what needs no flow, and returns how many
// whole packets and answers it leaves for later.
func (f *Forwarder) first(frames []queue.Frame, verdicts []Verdict) (whole, answers int) {
	others := 0
	b, snap, flows, stations := &f.batch, f.snap, f.flows, f.stations
	sum, before := uint64(0), uint64(0) // a sum, or the compiler would drop the loads
	if snap.HasTunnels() {
		before = 1
	}
	for i := range frames {
		sum += read(&frames[i], before)
	}
	for i := range frames {
		at := i % BatchSize
		if at%flow.Group == 0 && answers+others < at {
			flows.Ahead(b.hashes[at-flow.Group : at])
		}
		p := &b.parsed[at]
		bytes := frames[i].Bytes()
		p.Decode(bytes)
		isWhole := p.Flow && forUs(bytes) == stations[b.metas[at].Ingress]
		if isWhole && !snap.MayBeAnswer(&p.Src, &p.Dst) {
			b.kinds[at] = isForward
			b.hashes[at] = flows.Hash(&p.Tuple)
			whole++
			continue
		}
		if isWhole && f.nat.index != nil {
			b.kinds[at] = isBackward
		} else {
			verdict, next := f.classify(p, &b.metas[at], &frames[i])
			verdicts[i], b.kinds[at], b.services[at] = verdict, next.kind, next.service
		}
		b.hashes[at] = 0
		switch b.kinds[at] {
		case settled:
			others++
		case isRequest:
			b.hashes[at] = flows.Hash(&p.Tuple)
		case isAnswer, isBackward:
			b.answers[answers], b.ahashes[answers] = uint8(at), flows.Hash(&p.Tuple)
			if answers++; answers%flow.Group == 0 {
				f.nat.index.Ahead(b.ahashes[answers-flow.Group : answers])
			}
		}
	}
	f.touched += sum
	n := len(frames)
	if answers > 0 {
		f.nat.index.Ahead(b.ahashes[answers&^(flow.Group-1) : answers])
	}
	if answers+others < n {
		flows.Ahead(b.hashes[(n-1)&^(flow.Group-1) : n])
		flows.Prefetch(b.hashes[:n], b.places[:n])
	}
	if answers > 0 {
		f.prefetchAnswers(answers)
	}
	return whole, answers
}

// second is the pass that finds the flows of clients' packets, but for those that may be
// answers, in the order in which they came. It returns how many it has sent without
// further ado.
func (f *Forwarder) second(frames []queue.Frame, verdicts []Verdict, whole int) (sent int) {
	b, end := &f.batch, 0 // end of the whole packets that follow each other
	if whole == len(frames) {
		end = whole
	}
	for i := 0; i < len(frames); i++ {
		switch b.kinds[i%BatchSize] {
		case isForward:
			if end <= i {
				end = b.whole(i, len(frames))
			}
			known := f.flows.Known(b.places[i:end], b.parsed[i:end], f.mark, f.now)
			if f.snap.Slots() > f.many {
				f.prefetchBackends(b.places[i : i+known])
			}
			sent += f.known(i, frames[i:i+known], verdicts)
			if i += known; i < end {
				verdicts[i] = f.unknown(&b.parsed[i], &b.metas[i], b.hashes[i], &frames[i])
			} else {
				i-- // the next is of another kind
			}
		case isRequest:
			verdicts[i] = f.request(&b.parsed[i], &b.metas[i], b.hashes[i], b.services[i], &frames[i])
		}
	}
	return sent
}

// whole returns the end of the whole packets that follow each other from i on.
func (b *batch) whole(i, end int) int {
	for i < end && b.kinds[i%BatchSize] == isForward {
		i++
	}
	return i
}

// known sends packets of known flows, from the one with index at in the batch on.
func (f *Forwarder) known(at int, frames []queue.Frame, verdicts []Verdict) (sent int) {
	b, flows, targets := &f.batch, f.flows, f.targets
	for i := range frames {
		frame, i := &frames[i], at+i
		p, e := &b.parsed[i%BatchSize], flows.Found(b.places[i%BatchSize])
		meta := &b.metas[i%BatchSize]
		if e.NAT.Flags&plain != 0 {
			if to := &targets[e.Backend]; to.direct.Apply(frame, p) {
				to.sent.Add(frame.Len())
				verdicts[i] = Verdict{Action: Send, Egress: to.direct.Egress()}
				sent++
				continue
			}
		}
		if verdicts[i] = f.knownOther(e, p, meta, frame); verdicts[i].Action == Send {
			sent++
		}
	}
	return sent
}

// knownOther is what becomes of a packet of a known flow if that is more than a Direct.
func (f *Forwarder) knownOther(e *flow.Entry, p *packet.Parsed, meta *handover.Meta, frame *queue.Frame) Verdict {
	if isNAT(e) {
		meta.Admitted = true // for what may become of it; nothing limits its service
		return f.knownToBackend(e, p, meta, frame)
	}
	rw := &f.snap.Backend(e.Backend).Rewrite
	if reason := rw.Apply(frame, p); reason != stats.ReasonNone {
		meta.Admitted = true
		return f.notDirect(reason, rw, p, meta, frame)
	}
	f.targets[e.Backend].sent.Add(frame.Len())
	return Verdict{Action: Send, Egress: rw.Egress}
}

// unknown is what becomes of a whole packet whose flow is not known.
func (f *Forwarder) unknown(p *packet.Parsed, meta *handover.Meta, hash uint64, frame *queue.Frame) Verdict {
	verdict, next := f.classify(p, meta, frame)
	if next.kind == settled {
		return verdict
	}
	return f.request(p, meta, hash, next.service, frame) // no answer: MayBeAnswer has said so
}

// read brings what Decode reads of a frame into this processor's cache, as it comes from
// the NIC, or from the CPU that has received it; and what lies before it, which an outer
// header reaches into. All frames of a batch are read at once: they push each other out of
// the first level of the cache, as their buffers are a power of two apart, but the second
// is much nearer than the other CPU.
func read(frame *queue.Frame, before uint64) uint64 {
	if start := uint64(frame.Start); start < uint64(len(frame.Buf)) {
		return uint64(frame.Buf[start]) + uint64(frame.Buf[start-min(start, before)])
	}
	return 0
}

// manyBackends is up to how many backends all of them stay in the cache.
const manyBackends = 4096

// prefetchBackends brings into the cache what the flows in these places, which Known
// has found, are going to need besides their entries.
func (f *Forwarder) prefetchBackends(places []uint32) {
	var slots [BatchSize]uint32
	for i, place := range places {
		slots[i%BatchSize] = f.flows.Found(place).Backend
	}
	prefetch.Elements(f.targets, slots[:len(places)])
	sum := uint64(0) // else the compiler would drop the loads
	for i, place := range places {
		if f.flows.Found(place).NAT.Flags&plain == 0 {
			sum += uint64(f.snap.Backend(slots[i%BatchSize]).Rewrite.Egress)
		}
	}
	f.touched += sum
}

// forUs returns the same of a frame as is in stations for an interface, if the frame
// is addressed to that and sent by one station.
func forUs(b []byte) uint64 { return binary.LittleEndian.Uint64(b) & forUsMask }

// forUsMask leaves of the first 8 bytes of a frame, read from the lowest, the
// destination and the bit that makes the source a group.
const forUsMask = 1<<49 - 1

// adoptStations prepares what forUs is compared with.
func (f *Forwarder) adoptStations(interfaces []snapshot.Interface) {
	f.stations = make([]uint64, len(interfaces))
	for i := range interfaces {
		var b [8]byte
		copy(b[:], interfaces[i].MAC[:])
		if f.stations[i] = binary.LittleEndian.Uint64(b[:]); f.stations[i] == 0 {
			f.stations[i] = ^uint64(0) // an interface that has no address is nobody
		}
	}
}
