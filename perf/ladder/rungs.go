package ladder

import (
	"fmt"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// counted has a rung's counts told by what its step has counted.
func (r *rig) counted(c *counts) {
	r.count = func() (counts, error) { return *c, nil }
}

func (r *rig) nothing() {
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) { c.packets += uint64(len(frames)) }
}

func (r *rig) parse() {
	var p packet.Parsed
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) {
		for i := range frames {
			if p.Decode(frames[i].Bytes()); p.Problem != packet.ProblemNone {
				c.dropped++
			}
		}
		c.packets += uint64(len(frames))
	}
}

func (r *rig) service() {
	var p packet.Parsed
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) {
		for i := range frames {
			if serviceOf(r.snap, &p, &frames[i]) == snapshot.None {
				c.dropped++
			}
		}
		c.packets += uint64(len(frames))
	}
}

// serviceOf parses a frame and returns the service it is for, or None.
func serviceOf(s *snapshot.Snapshot, p *packet.Parsed, f *queue.Frame) uint32 {
	if p.Decode(f.Bytes()); p.Problem != packet.ProblemNone {
		return snapshot.None
	}
	vip := s.VIP(&p.Dst)
	if vip == nil {
		return snapshot.None
	}
	return vip.Service(p.Proto, p.DstPort)
}

// newForwarder returns the forwarder of a worker that is alone, and where it counts
// what it does and what it has for others.
func newForwarder(flows *flow.Table, space *nat.Space) (*forward.Forwarder, *stats.Counters, *nowhere) {
	counters, out := new(stats.Counters), new(nowhere)
	return forward.New(forward.Config{Flows: flows, Space: space, Counters: counters, Outbox: out}), counters, out
}

// forward is everything.
func (r *rig) forward() {
	f, counters, out := newForwarder(r.flows, r.space)
	f.SetPeers([]uint16{0})
	f.Adopt(r.snap)
	var (
		verdicts [forward.BatchSize]forward.Verdict
		batches  uint64
	)
	r.step = func(frames []queue.Frame) {
		f.Process(0, ticksOf(batches), frames, verdicts[:])
		batches++
	}
	r.count = func() (counts, error) {
		if out.passed > 0 {
			return counts{}, fmt.Errorf("%d frames or messages were for somebody else", out.passed)
		}
		return countsOf(counters, batches*forward.BatchSize), nil
	}
}

// naiveFlow is what the naive flow table has of a flow.
type naiveFlow struct {
	backend *snapshot.Backend
	mac     packet.MAC
	packets uint64
}

// naive is the load balancer that one would write first: a map, and nothing in
// batches.
func (r *rig) naive() {
	flows := make(map[packet.Tuple]*naiveFlow)
	var p packet.Parsed
	c := new(counts)
	r.counted(c)
	r.step = func(frames []queue.Frame) {
		c.packets += uint64(len(frames))
		for i := range frames {
			service := serviceOf(r.snap, &p, &frames[i])
			if service == snapshot.None {
				c.dropped++
				continue
			}
			f := flows[p.Tuple]
			if f == nil {
				slot := r.snap.Services[service].Choose(&p.Tuple)
				f = &naiveFlow{backend: r.snap.Backend(slot), mac: backendMAC(slot)}
				flows[p.Tuple] = f
			} else {
				c.known++
			}
			if f.backend.State != snapshot.Active {
				c.dropped++
				continue
			}
			f.packets++
			ethernet := packet.Ethernet(frames[i].Bytes())
			ethernet.SetDst(f.mac)
			ethernet.SetSrc(weirMAC)
		}
	}
}
