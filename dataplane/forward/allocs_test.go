package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
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

// TestNoAllocs asserts that nothing is allocated for a packet, whatever becomes
// of it. Misses have a new flow in every frame, in a table that overflows.
func TestNoAllocs(t *testing.T) {
	type row struct {
		name   string
		frame  []byte
		reason stats.Reason
	}
	var rows []row
	add := func(name string, reason stats.Reason, frame []byte) { rows = append(rows, row{name, frame, reason}) }
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{
		{"dsr4", vipDSR4}, {"dsr6", vipDSR6}, {"4in4", vip4in4}, {"4in6", vip4in6}, {"6in6", vip6in6}, {"6in4", vip6in4},
		{"spread4", vipSpread4}, {"spread6", vipSpread6},
	} {
		add(v.name+" tcp", stats.ReasonNone, packettest.Frame(to(v.vip)))
		add(v.name+" udp", stats.ReasonNone, packettest.Frame(udpTo(v.vip)))
		add(v.name+" reset", stats.ReasonNone, packettest.Frame(with(to(v.vip),
			func(s *packettest.Spec) { s.TCPFlags = packet.TCPRst })))
		add(v.name+" tagged", stats.ReasonNone, packettest.Frame(with(to(v.vip), func(s *packettest.Spec) { s.VLAN = 9 })))
		add(v.name+" echo", stats.ReasonNone, packettest.EchoRequest(to(v.vip), 1, 1))
		add(v.name+" too big", stats.TooBig, packettest.Frame(with(to(v.vip),
			func(s *packettest.Spec) { s.Payload = make([]byte, 1500) })))
	}
	for _, c := range goldenCases() {
		if c.drop != stats.ReasonNone && c.name != "giant" {
			add(c.name, c.drop, c.frames[0])
		}
	}
	add("arp", stats.ReasonNone, arpCases()[0].frames[0])
	add("ndp", stats.ReasonNone, ndpCases()[0].frames[0])

	for _, row := range rows {
		in := make([][]byte, forward.BatchSize)
		for i := range in {
			in[i] = row.frame
		}
		t.Run(row.name, func(t *testing.T) { assertNoAllocs(t, in, row.reason, func(int) {}) })
		var p packet.Parsed
		p.Decode(row.frame)
		if row.reason != stats.ReasonNone || p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP {
			continue
		}
		for i := range in {
			in[i] = append([]byte(nil), row.frame...)
		}
		t.Run(row.name+" miss", func(t *testing.T) {
			assertNoAllocs(t, in, row.reason, func(n int) {
				for i := range in { // the source port
					in[i][p.L4], in[i][p.L4+1] = byte(n*len(in)+i>>8), byte(n*len(in)+i)
				}
			})
		})
	}
}

// assertNoAllocs processes the batch again and again. prepare is called before
// each time with its number.
func assertNoAllocs(t *testing.T, in [][]byte, want stats.Reason, prepare func(n int)) {
	r := newRig(t, 128, worldSnapshot())
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
		if v.Reason != want || (v.Action == forward.Send) != (want == stats.ReasonNone) {
			t.Fatalf("frame %d: verdict %+v (%v), want %v", i, v, v.Reason, want)
		}
	}
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
