package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// refill puts a batch of frames back into the buffers that Process has
// rewritten.
func refill(frames []queue.Frame, in [][]byte) {
	for i := range frames {
		frames[i].Start = queue.Headroom
		frames[i].End = queue.Headroom + uint32(len(in[i]))
		copy(frames[i].Bytes(), in[i])
	}
}

// quiet is a way to this worker itself that allocates nothing.
type quiet struct {
	frames  [64]queue.Frame
	metas   [64]handover.Meta
	first   int
	waiting int
}

func newQuiet() *quiet {
	q := &quiet{}
	for i := range q.frames {
		q.frames[i].Buf = make([]byte, queue.Headroom+handover.MaxFrame)
	}
	return q
}

func (q *quiet) push(frame []byte, meta handover.Meta) {
	i := (q.first + q.waiting) % len(q.frames)
	f := &q.frames[i]
	f.Start, f.End = queue.Headroom, uint32(queue.Headroom+len(frame))
	copy(f.Bytes(), frame)
	q.metas[i] = meta
	q.waiting++
}

// decide has the worker take up all that waits.
func (q *quiet) decide(r *rig, now flow.Tick, verdicts []forward.Verdict) {
	for q.waiting > 0 {
		i := q.first
		q.first = (q.first + 1) % len(q.frames)
		q.waiting--
		r.Decide(q.metas[i:i+1], now, q.frames[i:i+1], verdicts)
	}
}

// TestNoAllocs asserts that nothing is allocated for a packet, whatever becomes
// of it: every golden case again and again, with all that it had made over and
// swept in between.
func TestNoAllocs(t *testing.T) {
	for _, c := range goldenCases() {
		t.Run(c.name, func(t *testing.T) {
			r := c.rig(t)
			r.quiet = newQuiet()
			all := append(append([]step(nil), c.before...), c.steps...)
			frames, in := make([][]queue.Frame, len(all)), make([][][]byte, len(all))
			for i, s := range all {
				in[i] = [][]byte{s.frame}
				frames[i], _ = batch(s.frame)
			}
			verdicts := make([]forward.Verdict, 1)
			start := flow.Tick(0)
			if n := testing.AllocsPerRun(5, func() {
				for i, s := range all {
					now := start + s.at
					refill(frames[i], in[i])
					r.Process(s.ingress, now, frames[i], verdicts)
					r.quiet.decide(r, now, verdicts)
				}
				start += later()
				r.Sweep(start, r.table.Sets())
			}); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if r.table.Len() != 0 || r.NATUse() != (forward.NATUse{}) {
				t.Errorf("%d flows are left, and of NAT %+v", r.table.Len(), r.NATUse())
			}
		})
	}
}

// Full batches, of one flow, and with a new flow in every frame, in a table that
// overflows.
func TestNoAllocsOfBatches(t *testing.T) {
	type row struct {
		name  string
		frame []byte
	}
	var rows []row
	add := func(name string, frame []byte) { rows = append(rows, row{name, frame}) }
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{
		{"dsr4", vipDSR4}, {"dsr6", vipDSR6}, {"4in4", vip4in4}, {"4in6", vip4in6}, {"6in6", vip6in6}, {"6in4", vip6in4},
		{"spread4", vipSpread4}, {"spread6", vipSpread6}, {"nat44", vipNAT44}, {"nat66", vipNAT66}, {"nat46", vipNAT46},
		{"nat64", vipNAT64}, {"keep4", vipKeep4}, {"keep6", vipKeep6},
	} {
		add(v.name+" tcp", packettest.Frame(to(v.vip)))
		add(v.name+" udp", packettest.Frame(udpTo(v.vip)))
		add(v.name+" tagged", packettest.Frame(with(to(v.vip), func(s *packettest.Spec) { s.VLAN = 9 })))
	}
	for _, row := range rows {
		in := make([][]byte, forward.BatchSize)
		for i := range in {
			in[i] = append([]byte(nil), row.frame...)
		}
		t.Run(row.name, func(t *testing.T) { assertNoAllocs(t, in, func(int) {}) })
		var p packet.Parsed
		p.Decode(row.frame)
		t.Run(row.name+" miss", func(t *testing.T) {
			assertNoAllocs(t, in, func(n int) {
				for i := range in { // the source port
					in[i][p.L4], in[i][p.L4+1] = byte(n*len(in)+i>>8), byte(n*len(in)+i)
				}
			})
		})
	}
}

// assertNoAllocs processes the batch again and again. prepare is called before
// each time with its number.
func assertNoAllocs(t *testing.T, in [][]byte, prepare func(n int)) {
	r := newRigIn(t, 128, func(space *nat.Space) *snapshot.Snapshot {
		return must(snapshot.New(natSpec(space, 1024, 4095)))
	})
	frames, verdicts := batch(in...)
	run := 0
	if n := testing.AllocsPerRun(50, func() {
		run++
		prepare(run)
		refill(frames, in)
		r.Process(0, 0, frames, verdicts)
		r.Sweep(0, 8)
	}); n != 0 {
		t.Errorf("%v allocations per batch", n)
	}
	for i, v := range verdicts {
		// The index of answers has no room for some of more flows than the
		// table takes; where the client's port is kept, no other one helps.
		if v.Action != forward.Send && v.Reason != stats.TableFull {
			t.Fatalf("frame %d: verdict %+v (%v)", i, v, v.Reason)
		}
	}
	checkGauges(t, r, 0)
}

// Letting idle flows go allocates nothing either.
func TestSweepAllocatesNothing(t *testing.T) {
	p := newPool(2)
	r := newRig(t, 1<<12, p.snapshot())
	in := make([][]byte, forward.BatchSize)
	for i := range in {
		in[i] = clientFrame(i, packet.TCPSyn)
	}
	frames, verdicts := batch(in...)
	now := flow.Tick(0)
	if n := testing.AllocsPerRun(20, func() {
		refill(frames, in)
		r.Process(0, now, frames, verdicts)
		now += flow.TickAt(flow.DefaultTimeouts().TCPSYN) + 1
		r.Sweep(now, r.table.Sets())
	}); n != 0 {
		t.Errorf("%v allocations per round", n)
	}
	if r.table.Len() != 0 || r.counters.FlowsExpired == 0 {
		t.Errorf("%d flows are left, %d have expired", r.table.Len(), r.counters.FlowsExpired)
	}
}
