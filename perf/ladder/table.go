package ladder

import (
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
)

// mark is what known flows have.
const mark = 1

// table finds flows in batches, as package forward does, and does no more. Of a
// known flow nobody asks for the service.
func (r *rig) table() {
	var (
		parsed  [forward.BatchSize]packet.Parsed
		hashes  [forward.BatchSize]uint64
		places  [forward.BatchSize]uint32
		batches uint64
	)
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) {
		for i := range frames {
			p := &parsed[i]
			p.Decode(frames[i].Bytes())
			if !p.Flow {
				c.dropped++
			}
			hashes[i] = r.flows.Hash(&p.Tuple)
			if i%flow.Group == flow.Group-1 {
				r.flows.Ahead(hashes[i+1-flow.Group : i+1])
			}
		}
		r.flows.Prefetch(hashes[:len(frames)], places[:len(frames)])
		now := ticksOf(batches)
		batches++
		for i := 0; i < len(frames); i++ {
			n := r.flows.Known(places[i:len(frames)], parsed[i:len(frames)], mark, now)
			c.known += uint64(n)
			if i += n; i == len(frames) {
				break
			}
			p := &parsed[i]
			segment := flow.Segment{Flags: p.TCPFlags, Sequence: p.TCPSequence}
			if e := r.flows.Lookup(hashes[i], &p.Tuple, segment, now); e != nil {
				c.known++
				r.flows.Mark(e, mark)
				continue
			}
			r.flows.Insert(hashes[i], &p.Tuple, segment, now)
		}
		c.packets += uint64(len(frames))
	}
}
