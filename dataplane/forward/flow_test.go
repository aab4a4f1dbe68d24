package forward_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// clientFrame is a TCP packet of client n, one flow each.
func clientFrame(n int, flags uint8) []byte {
	return packettest.Frame(with(to(vipDSR4), func(s *packettest.Spec) {
		s.Src, s.TCPFlags = clientAddr(n), flags
	}))
}

func clientAddr(n int) netip.AddrPort {
	a := [4]byte{198, 18, 0, 0}
	binary.BigEndian.PutUint16(a[2:], uint16(n))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+n))
}

func clientTuple(n int) packet.Tuple {
	src := clientAddr(n)
	return packet.Tuple{
		Src: src.Addr().As16(), Dst: vipDSR4.As16(), SrcPort: src.Port(), DstPort: 80, Proto: packet.ProtoTCP,
	}
}

// maglevSlot is where a client goes if nothing is known of it.
func maglevSlot(p *pool, n int) uint32 {
	s := p.snapshot()
	tuple := clientTuple(n)
	return s.Services[p.service].Pick(flow.HashStable(&tuple))
}

const clients = 400

// settle sends every client's first packet and returns where each went.
func settle(t *testing.T, r *rig, p *pool) []uint32 {
	t.Helper()
	slots := make([]uint32, clients)
	for n := range slots {
		slots[n] = r.slot(clientFrame(n, packet.TCPSyn), 0)
		if want := maglevSlot(p, n); slots[n] != want {
			t.Fatalf("client %d went to slot %d, Maglev says %d", n, slots[n], want)
		}
	}
	if evicted := r.counters.FlowsEvicted; evicted != 0 {
		t.Fatalf("%d flows were evicted, the table is too small for the test", evicted)
	}
	return slots
}

// A flow stays with its backend, whatever happens to the others, for as long as
// that one may keep it; else it moves at once, to where Maglev says.
func TestFlowStaysOrMoves(t *testing.T) {
	for name, test := range map[string]struct {
		change func(p *pool)
		moves  func(slot uint32) bool // flows of which slot; nil for none
	}{
		"nothing":         {func(*pool) {}, nil},
		"pool grows":      {func(p *pool) { p.backends = append(p.backends, newPool(5).backends...) }, nil},
		"reweighted":      {func(p *pool) { p.backends[0].weight = 1; p.backends[1].weight = 900 }, nil},
		"drains":          {func(p *pool) { p.backends[0].state = snapshot.Keeps }, nil},
		"everybody keeps": {func(p *pool) { setAll(p, snapshot.Keeps) }, nil},
		"another is removed": {func(p *pool) { p.backends[3].state = snapshot.Removed },
			func(slot uint32) bool { return slot == 3 }},
		"removed": {func(p *pool) { p.backends[0].state = snapshot.Removed },
			func(slot uint32) bool { return slot == 0 }},
		"slot is another's": {func(p *pool) { p.backends[0].generation++ },
			func(slot uint32) bool { return slot == 0 }},
		"slots are fewer": {func(p *pool) { p.backends = p.backends[:2] },
			func(slot uint32) bool { return slot >= 2 }},
		"VIP is another service's": {func(p *pool) { p.service, p.owner = 1, 1; p.replaceBackends(5) },
			func(uint32) bool { return true }},
		"service is renumbered": {func(p *pool) { p.service, p.owner = 1, 1 }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(5)
			r := newRig(t, 1<<14, p.snapshot())
			before := settle(t, r, p)
			test.change(p)
			r.Adopt(p.snapshot())
			moved := 0
			for n, was := range before {
				want := was
				if test.moves != nil && test.moves(was) {
					want = maglevSlot(p, n)
					moved++
				}
				for range 2 { // once moved, it stays there
					if got := r.slot(clientFrame(n, packet.TCPAck), 1); got != want {
						t.Fatalf("client %d was on slot %d, is on %d, want %d", n, was, got, want)
					}
				}
			}
			if (moved > 0) != (test.moves != nil) {
				t.Errorf("%d flows had to move", moved)
			}
			checkGauges(t, r, 1)
		})
	}
}

func setAll(p *pool, s snapshot.BackendState) {
	for i := range p.backends {
		p.backends[i].state = s
	}
}

// replaceBackends removes all backends and adds n of another service.
func (p *pool) replaceBackends(n int) {
	setAll(p, snapshot.Removed)
	p.backends = append(p.backends, newPool(n).backends...)
}

// The backends are still there and as good as before, but the VIP's port is
// now another service's, which has none.
func TestFlowOfAnotherServiceDoesNotStay(t *testing.T) {
	p := newPool(3)
	r := newRig(t, 1<<14, p.snapshot())
	settle(t, r, p)
	p.owner = 1
	r.Adopt(p.snapshot())
	if _, v := r.one(clientFrame(0, packet.TCPAck), 1); v.Reason != stats.NoBackend {
		t.Errorf("verdict %+v (%v), want no_backend", v, v.Reason)
	}
	p.owner = 0
	r.Adopt(p.snapshot())
	if got, want := r.slot(clientFrame(0, packet.TCPAck), 1), maglevSlot(p, 0); got != want {
		t.Errorf("back with its service, the flow is on slot %d, want %d", got, want)
	}
	checkGauges(t, r, 1)
}

// A draining backend keeps its flows and gets no new one, not even from an
// old client.
func TestDrainingBackendGetsNoNewFlow(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<14, p.snapshot())
	before := settle(t, r, p)
	p.backends[0].state = snapshot.Keeps
	r.Adopt(p.snapshot())
	for n := clients; n < 2*clients; n++ {
		if got := r.slot(clientFrame(n, packet.TCPSyn), 1); got == 0 {
			t.Fatalf("new client %d went to the draining backend", n)
		}
	}
	on := slices.Index(before, 0)
	for _, step := range []struct {
		flags uint8
		stays bool
	}{
		{packet.TCPSyn, true}, {packet.TCPAck, true}, {packet.TCPFin | packet.TCPAck, true},
		{packet.TCPAck, true}, {packet.TCPSyn, false}, // the connection after
	} {
		if got := r.slot(clientFrame(on, step.flags), 2); (got == 0) != step.stays {
			t.Errorf("flags %#x: slot %d, want to stay %t", step.flags, got, step.stays)
		}
	}
	checkGauges(t, r, 2)
}

func TestExpiredFlowIsDecidedAnew(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<14, p.snapshot())
	before := settle(t, r, p)
	setAll(p, snapshot.Keeps)
	p.backends = append(p.backends, newPool(5).backends...)
	r.Adopt(p.snapshot())
	timeout := flow.TickAt(flow.DefaultTimeouts().TCPSYN)
	if got := r.slot(clientFrame(0, packet.TCPSyn), timeout); got != before[0] {
		t.Errorf("at the timeout, the flow has moved to slot %d", got)
	}
	late := timeout + 1
	if got, want := r.slot(clientFrame(1, packet.TCPSyn), late), maglevSlot(p, 1); got != want {
		t.Errorf("after the timeout, the flow is on slot %d, want %d", got, want)
	}
	if r.counters.FlowsExpired != 1 {
		t.Errorf("%d flows have expired, want 1", r.counters.FlowsExpired)
	}
	r.Sweep(late, r.table.Sets())
	if got := r.counters.FlowsExpired; got != clients-1 || r.table.Len() != 2 {
		t.Errorf("%d flows have expired and %d are left, want %d and 2", got, r.table.Len(), clients-1)
	}
	checkGauges(t, r, late)
}

// What does not fit into the table is forwarded all the same.
func TestTinyTable(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 8, p.snapshot())
	for range 3 {
		for n := range clients {
			if got, want := r.slot(clientFrame(n, packet.TCPSyn), 0), maglevSlot(p, n); got != want {
				t.Fatalf("client %d went to slot %d, want %d", n, got, want)
			}
		}
	}
	if r.table.Len() != 8 {
		t.Errorf("%d flows in a table of 8", r.table.Len())
	}
	var decided uint64
	for _, b := range r.counters.Backends {
		decided += b.NewFlows
	}
	if got := r.counters.FlowsUntrustedEvicted; got != decided-8 || got < clients {
		t.Errorf("%d flows evicted, %d decided", got, decided)
	}
	checkGauges(t, r, 0)
}

func TestResetMakesNoFlow(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<10, p.snapshot())
	if got, want := r.slot(clientFrame(0, packet.TCPRst|packet.TCPAck), 0), maglevSlot(p, 0); got != want {
		t.Errorf("a reset went to slot %d, want %d", got, want)
	}
	b := r.counters.Backends[maglevSlot(p, 0)]
	if r.table.Len() != 0 || b.NewFlows != 0 || b.Flows != 0 || r.report().Sent[maglevSlot(p, 0)].Packets != 1 {
		t.Errorf("%d flows, backend %+v", r.table.Len(), b)
	}
	r.slot(clientFrame(0, packet.TCPSyn), 0)
	r.slot(clientFrame(0, packet.TCPRst), 0)
	if r.table.Len() != 1 {
		t.Errorf("%d flows after the reset of one, want 1 until it times out", r.table.Len())
	}
	checkGauges(t, r, 0)
}

func TestAffinitySource(t *testing.T) {
	p := newPool(5)
	p.affinity = snapshot.AffinitySource
	r := newRig(t, 1<<14, p.snapshot())
	slots := map[uint32]bool{}
	for n := range 40 {
		src := clientAddr(n).Addr()
		as16 := src.As16()
		want := p.snapshot().Services[0].Pick(flow.HashStableSource(&as16))
		slots[want] = true
		for port := range uint16(10) {
			s := to(vipDSR4)
			if port%2 == 1 {
				s = udpTo(vipDSR4)
			}
			s.Src = netip.AddrPortFrom(src, 2000+port)
			if got := r.slot(packettest.Frame(s), 0); got != want {
				t.Fatalf("client %d, port %d: slot %d, want %d", n, port, got, want)
			}
		}
	}
	if len(slots) != 5 {
		t.Errorf("40 clients use %d of 5 backends", len(slots))
	}
	checkGauges(t, r, 0)
}

// The frames of a batch see each other: the second packet of a flow finds what
// the first has put into the table.
func TestFlowWithinABatch(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<10, p.snapshot())
	frames, verdicts := batch(clientFrame(0, packet.TCPSyn), lldp(), clientFrame(0, packet.TCPAck), clientFrame(1, packet.TCPSyn))
	r.Process(0, 0, frames, verdicts)
	for i, want := range []forward.Action{forward.Send, forward.Drop, forward.Send, forward.Send} {
		if verdicts[i].Action != want {
			t.Errorf("frame %d: verdict %+v", i, verdicts[i])
		}
	}
	if r.table.Len() != 2 {
		t.Errorf("%d flows, want 2", r.table.Len())
	}
	if packet.MAC(frames[0].Bytes()) != packet.MAC(frames[2].Bytes()) {
		t.Error("two packets of a flow went to two backends")
	}
	checkGauges(t, r, 0)
}

// The counts of a slot's old user are not the new user's.
func TestCountersStartAnewWithTheSlot(t *testing.T) {
	p := newPool(2)
	r := newRig(t, 1<<14, p.snapshot())
	settle(t, r, p)
	kept := r.counters.Backends[1]
	p.backends[0].generation++
	r.Adopt(p.snapshot())
	if got, want := r.counters.Backends[0], (stats.Backend{Generation: 2}); got != want {
		t.Errorf("slot 0 counts %+v, want %+v", got, want)
	}
	if r.counters.Backends[1] != kept {
		t.Errorf("slot 1 counts %+v, want %+v", r.counters.Backends[1], kept)
	}
	r.Sweep(flow.TickAt(time.Hour), r.table.Sets())
	checkGauges(t, r, flow.TickAt(time.Hour))
}

// checkGauges compares each backend's number of flows with the table, and all
// that NAT keeps beside it.
func checkGauges(t *testing.T, r *rig, now flow.Tick) {
	t.Helper()
	// Range leaves out what is over and not swept yet; the gauges count it.
	r.Sweep(now, r.table.Sets())
	want := make([]int64, len(r.counters.Backends))
	n := 0
	var natUse forward.NATUse
	stations := map[uint16]bool{}
	r.table.Range(0, r.table.Sets(), now, func(e *flow.Entry, _ flow.State, _ time.Duration) {
		n++
		if e.NAT.Flags&forward.NATFlow != 0 {
			natUse.Index++
			stations[e.NAT.Station] = true
			if e.NAT.Flags&forward.NATKept == 0 {
				natUse.Flows++
			}
		}
		if int(e.Backend) < len(want) && r.counters.Backends[e.Backend].Generation == e.Generation {
			want[e.Backend]++
		}
	})
	if n != r.table.Len() {
		t.Errorf("%d flows seen, the table says %d", n, r.table.Len())
	}
	for slot, b := range r.counters.Backends {
		if b.Flows != want[slot] {
			t.Errorf("slot %d: gauge says %d flows, the table has %d", slot, b.Flows, want[slot])
		}
	}
	natUse.Stations = len(stations)
	if got := r.NATUse(); got != natUse {
		t.Errorf("NAT has %+v in use, the table says %+v", got, natUse)
	}
	if got := r.counters.NATFlows; got != int64(natUse.Index) {
		t.Errorf("gauge says %d NAT flows, the table has %d", got, natUse.Index)
	}
}
