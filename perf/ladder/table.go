package ladder

import (
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
)

// table finds flows in batches, as package forward does, and does no more.
func (r *rig) table() {
	var (
		parsed   [forward.BatchSize]packet.Parsed
		hashes   [forward.BatchSize]uint64
		segments [forward.BatchSize]flow.Segment
		batches  uint64
	)
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) {
		for i := range frames {
			p := &parsed[i]
			if serviceOf(r.snap, p, &frames[i]) == snapshot.None {
				c.dropped++
			}
			hashes[i] = r.flows.Hash(&p.Tuple)
			segments[i] = flow.Segment{Flags: p.TCPFlags, Sequence: p.TCPSequence}
		}
		r.flows.Prefetch(hashes[:len(frames)])
		now := ticksOf(batches)
		batches++
		for i := range frames {
			if e := r.flows.Lookup(hashes[i], &parsed[i].Tuple, segments[i], now); e != nil {
				c.known++
				continue
			}
			r.flows.Insert(hashes[i], &parsed[i].Tuple, segments[i], now)
		}
		c.packets += uint64(len(frames))
	}
}
