package forward_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
)

// remembered is what the model knows of a flow.
type remembered struct {
	slot, generation uint32
	state            flow.State
	seen             flow.Tick
}

// model is a map that does what the flow table and the Forwarder do together,
// for a table that is never full.
type model struct {
	flows    map[int]remembered
	timeouts map[flow.State]flow.Tick
	pool     *pool
	snap     *snapshot.Snapshot
}

func newModel(p *pool) *model {
	d := flow.DefaultTimeouts()
	m := &model{flows: map[int]remembered{}, timeouts: map[flow.State]flow.Tick{
		flow.StateSYN: flow.TickAt(d.TCPSYN), flow.StateEstablished: flow.TickAt(d.TCPEstablished),
		flow.StateFIN: flow.TickAt(d.TCPFIN), flow.StateClosed: flow.TickAt(d.TCPClosed),
	}}
	m.adopt(p)
	return m
}

func (m *model) adopt(p *pool) { m.pool, m.snap = p, p.snapshot() }

// packet returns the slot, or the node, that a client's packet has to go to, which
// is given by another node or comes from the client.
func (m *model) packet(client int, flags uint8, given bool, now flow.Tick) uint32 {
	f, known := m.flows[client]
	ended := f.state == flow.StateFIN || f.state == flow.StateClosed
	if known && (now-f.seen > m.timeouts[f.state] || ended && flags == packet.TCPSyn) {
		known = false
	}
	if known {
		f.state, f.seen = flow.NextState(f.state, flags), now
		m.flows[client] = f
		if m.mayKeep(f) {
			return f.slot
		}
		delete(m.flows, client)
	}
	tuple := clientTuple(client)
	if !known && !given && len(m.pool.nodes) > 0 {
		if node := nodeOf(m.pool, &tuple); node != 0 {
			if flags&packet.TCPSyn != 0 {
				delete(m.flows, client)
			}
			return otherNode | uint32(node)
		}
	}
	slot := m.snap.Services[m.pool.owner].Pick(flow.HashStable(&tuple))
	if slot == snapshot.None {
		return slot
	}
	if flags&packet.TCPRst != 0 {
		delete(m.flows, client)
		return slot
	}
	m.flows[client] = remembered{
		slot: slot, generation: m.snap.Backend(slot).Generation,
		state: flow.NextState(flow.StateNone, flags), seen: now,
	}
	return slot
}

// nodeOf returns the node that has the flow of a tuple, 0 for this one.
func nodeOf(p *pool, t *packet.Tuple) int {
	spread := spreadOver(vipDSR4, 0, p.nodes)
	member := spread.Member(&snapshot.Service{}, t)
	for i, n := range p.nodes {
		if member == &spread.Members[i+1] {
			return n
		}
	}
	return 0
}

func (m *model) mayKeep(f remembered) bool {
	if int(f.slot) >= len(m.pool.backends) {
		return false
	}
	b := m.pool.backends[f.slot]
	return b.generation == f.generation && b.state != snapshot.Removed && m.pool.service == m.pool.owner
}

// gauge counts the flows of each slot's present user that are not over.
func (m *model) gauge(now flow.Tick) []int64 {
	n := make([]int64, len(m.pool.backends))
	for _, f := range m.flows {
		if now-f.seen <= m.timeouts[f.state] && int(f.slot) < len(n) && m.pool.backends[f.slot].generation == f.generation {
			n[f.slot]++
		}
	}
	return n
}

// change makes a new pool out of p, as an operator, the health checks or a
// reload would.
func change(p *pool, rng *rand.Rand) *pool {
	next := *p
	next.backends = append([]member(nil), p.backends...)
	b := &next.backends[rng.IntN(len(next.backends))]
	switch rng.IntN(8) {
	case 0, 1, 2:
		b.state = snapshot.BackendState(rng.IntN(3))
	case 3:
		b.weight = 1 + rng.Uint32N(200)
	case 4:
		b.generation++
	case 5:
		if len(next.backends) < 12 {
			next.backends = append(next.backends, member{snapshot.Active, 100, 1 + rng.Uint32N(1000)})
		}
	case 6:
		next.owner = (next.owner + 1) % 2
	case 7:
		next.nodes = rng.Perm(4)[:rng.IntN(4)]
		for i := range next.nodes {
			next.nodes[i]++
		}
	}
	return &next
}

// Random packets, changes, time and sweeps: each packet goes where the model
// says, no gauge is ever negative, and after a sweep each is what the model and
// the table count.
func TestChurnAgreesWithModel(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		p := newPool(5)
		r := newRig(t, 1<<14, p.snapshot())
		m := newModel(p)
		now := flow.Tick(0)
		spread := uint64(0)
		flags := []uint8{
			packet.TCPSyn, packet.TCPSyn, packet.TCPAck, packet.TCPAck, packet.TCPAck | packet.TCPPsh,
			packet.TCPFin | packet.TCPAck, packet.TCPRst, packet.TCPSyn | packet.TCPAck,
		}
		for step := range 20_000 {
			switch n := rng.IntN(200); {
			case n == 0:
				p = change(p, rng)
				m.adopt(p)
				r.Adopt(m.snap)
			case n == 1:
				now += flow.Tick(rng.IntN(40 * flow.TicksPerSecond))
			case n == 2:
				r.Sweep(now, rng.IntN(r.table.Sets()))
			}
			client, f := rng.IntN(200), flags[rng.IntN(len(flags))]
			frame, given := clientFrame(client, f), len(p.nodes) > 0 && rng.IntN(2) == 0
			if given {
				fromMAC(frame, nodeMAC(p.nodes[rng.IntN(len(p.nodes))]))
			}
			want := m.packet(client, f, given, now)
			if got := r.slot(frame, now); got != want {
				t.Fatalf("seed %d step %d: client %d flags %#x given %t went to %#x, want %#x", seed, step, client, f, given, got, want)
			}
			if want != snapshot.None && want&otherNode != 0 {
				spread++
			}
			for slot, b := range r.counters.Backends {
				if b.Flows < 0 {
					t.Fatalf("seed %d step %d: slot %d has %d flows", seed, step, slot, b.Flows)
				}
			}
			if step%1000 == 999 {
				checkGauges(t, r, now)
				compareGauges(t, r, m.gauge(now))
			}
		}
		if r.counters.FlowsEvicted+r.counters.FlowsUntrustedEvicted+r.counters.FlowsRefused != 0 {
			t.Fatalf("seed %d: flows were evicted, so the model does not hold", seed)
		}
		if got := r.counters.Spread.Packets; got != spread || got == 0 {
			t.Errorf("seed %d: %d frames counted as given away, want %d", seed, got, spread)
		}
		r.Sweep(now+flow.TickAt(24*time.Hour), r.table.Sets())
		compareGauges(t, r, make([]int64, len(p.backends)))
		if t.Failed() {
			return
		}
	}
}

func compareGauges(t *testing.T, r *rig, want []int64) {
	t.Helper()
	for slot, n := range want {
		if got := r.counters.Backends[slot].Flows; got != n {
			t.Errorf("slot %d: gauge says %d flows, the model has %d", slot, got, n)
		}
	}
}

// In a table that is far too small the model does not hold, but the gauges do.
func TestGaugesUnderEviction(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	p := newPool(5)
	r := newRig(t, 32, p.snapshot())
	now := flow.Tick(0)
	for range 20_000 {
		if rng.IntN(100) == 0 {
			p = change(p, rng)
			r.Adopt(p.snapshot())
		}
		if rng.IntN(10) == 0 {
			now += flow.Tick(rng.IntN(60))
			checkGauges(t, r, now)
		}
		frames, verdicts := batch(clientFrame(rng.IntN(100), packet.TCPSyn), clientFrame(rng.IntN(100), packet.TCPRst),
			clientFrame(rng.IntN(100), packet.TCPAck))
		r.Process(0, now, frames, verdicts)
		for slot, b := range r.counters.Backends {
			if b.Flows < 0 {
				t.Fatalf("slot %d has %d flows", slot, b.Flows)
			}
		}
		if t.Failed() {
			return
		}
	}
	if c := &r.counters; c.FlowsUntrustedEvicted == 0 || c.FlowsExpired == 0 {
		t.Errorf("%d flows evicted, %d expired: the test tests nothing", c.FlowsUntrustedEvicted, c.FlowsExpired)
	}
}
