package forward_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/snapshot"
)

// machine is several workers with rings between them, driven by hand. Which of
// the rings moves next is the random generator's choice, as it is the
// scheduler's in a real one; each ring keeps its order.
type machine struct {
	t       testing.TB
	rng     *rand.Rand
	space   *nat.Space
	workers []*rig
	rings   map[[2]int][]passedFrame // from, to
	now     flow.Tick
	sent    []sentFrame
}

// newMachine makes a machine of n workers. Their numbers are not their places in
// the list.
func newMachine(t testing.TB, n, entries int, rng *rand.Rand) *machine {
	m := &machine{t: t, rng: rng, space: nat.NewSpace(), rings: map[[2]int][]passedFrame{}}
	numbers := make([]uint16, n)
	for i := range n {
		numbers[i] = uint16(5*(n-i) + 2)
		m.workers = append(m.workers, newWorker(t, entries, numbers[i], m.space))
	}
	for _, w := range m.workers {
		w.SetPeers(numbers)
	}
	return m
}

func (m *machine) adopt(s *snapshot.Snapshot) {
	for _, w := range m.workers {
		w.Adopt(s)
	}
}

func (m *machine) any() int { return m.rng.IntN(len(m.workers)) }

// note keeps what a worker has decided about one frame.
func (m *machine) note(worker int, frame []byte, v forward.Verdict) {
	if v.Action == forward.Send {
		m.sent = append(m.sent, sentFrame{v.Egress, bytes.Clone(frame)})
	}
	w := m.workers[worker]
	for _, p := range w.passed {
		if p.peer < 0 || p.peer >= len(m.workers) {
			m.t.Fatalf("worker %d passed a frame to %d", worker, p.peer)
		}
		key := [2]int{worker, p.peer}
		m.rings[key] = append(m.rings[key], p)
	}
	w.passed = nil
}

// put gives a frame to a worker.
func (m *machine) put(worker int, ingress uint16, frame []byte) {
	frames, verdicts := batch(frame)
	m.workers[worker].Process(ingress, m.now, frames, verdicts)
	m.note(worker, frames[0].Bytes(), verdicts[0])
}

// move lets one frame go through one ring, and reports whether there was one.
func (m *machine) move() bool {
	var ready [][2]int
	for from := range m.workers {
		for to := range m.workers {
			if key := [2]int{from, to}; len(m.rings[key]) > 0 {
				ready = append(ready, key)
			}
		}
	}
	if len(ready) == 0 {
		return false
	}
	key := ready[m.rng.IntN(len(ready))]
	next := m.rings[key][0]
	m.rings[key] = m.rings[key][1:]
	frames, verdicts := batch(next.frame)
	m.workers[key[1]].Decide([]handover.Meta{next.meta}, m.now, frames, verdicts)
	m.note(key[1], frames[0].Bytes(), verdicts[0])
	return true
}

// settle empties all rings and returns what was sent since it was last called.
func (m *machine) settle() []sentFrame {
	const most = 10_000
	for n := 0; m.move(); n++ {
		if n == most {
			m.t.Fatal("frames go round and round")
		}
	}
	sent := m.sent
	m.sent = nil
	return sent
}

// over lets everything time out that there is, and checks that nothing is left.
func (m *machine) over() {
	m.t.Helper()
	m.now += later()
	for i, w := range m.workers {
		w.Sweep(m.now, w.table.Sets())
		if use := w.NATUse(); use != (forward.NATUse{}) || w.table.Len() != 0 || w.counters.NATFlows != 0 {
			m.t.Fatalf("worker %d: all is over, but %d flows are left, %d by the gauge of NAT, and in use are %+v",
				i, w.table.Len(), w.counters.NATFlows, use)
		}
		for slot, b := range w.counters.Backends {
			if b.Flows != 0 {
				m.t.Fatalf("worker %d: all is over, but backend %d has %d flows", i, slot, b.Flows)
			}
		}
	}
}

func (m *machine) check(t *testing.T) {
	t.Helper()
	for i, w := range m.workers {
		checkGauges(t, w, m.now)
		if t.Failed() {
			t.Fatalf("worker %d", i)
		}
	}
}

// drops sums up why frames were dropped.
func (m *machine) drops() map[string]uint64 {
	sum := map[string]uint64{}
	for _, w := range m.workers {
		for reason, n := range w.counters.Drops {
			if n > 0 {
				sum[reasonName(reason)] += n
			}
		}
	}
	return sum
}
