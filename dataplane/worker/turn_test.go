package worker

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// endless is a queue that always has a full batch of the same frames, unless
// it is empty, and never allocates.
type endless struct {
	frames [forward.BatchSize]queue.Frame
	packet [forward.BatchSize][]byte
	alloc  [forward.BatchSize]queue.Frame
	empty  bool
	sent   int
	last   [][]byte // the frames of the last Send, if it is not nil before
	waits  int
	wakes  int
}

func newEndless(packets func(i int) []byte) *endless {
	q := &endless{}
	for i := range q.frames {
		q.packet[i] = packets(i)
		q.frames[i].Buf = make([]byte, 2048)
		q.alloc[i] = queue.Frame{Buf: make([]byte, 2048), Start: queue.Headroom, End: queue.Headroom}
	}
	return q
}

func (q *endless) Receive(frames []queue.Frame) (int, error) {
	if q.empty {
		return 0, nil
	}
	for i := range q.frames {
		f := &q.frames[i]
		f.Start = queue.Headroom
		f.End = f.Start + uint32(copy(f.Buf[f.Start:], q.packet[i]))
	}
	return copy(frames, q.frames[:]), nil
}

func (q *endless) Alloc(frames []queue.Frame) int { return copy(frames, q.alloc[:]) }

func (q *endless) Send(frames []queue.Frame) (int, error) {
	q.sent += len(frames)
	for i := range min(len(frames), len(q.last)) {
		q.last[i] = append(q.last[i][:0], frames[i].Bytes()...)
	}
	return len(frames), nil
}

func (q *endless) Release([]queue.Frame)    {}
func (q *endless) Wait(time.Duration) error { q.waits++; return nil }
func (q *endless) Wake()                    { q.wakes++ }
func (q *endless) Stats() queue.Stats       { return queue.Stats{} }
func (q *endless) Close() error             { return nil }

// pair makes the worker of interface 0, whose every frame leaves by egress, and
// the worker of interface 1.
func pair(t testing.TB, egress uint16) (in, out *Worker, inQ, outQ *endless) {
	t.Helper()
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	rw, err := rewrite.DSR(rewrite.Link{Egress: egress, Dst: mac, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	vip := netip.MustParseAddr("203.0.113.10")
	snap, err := snapshot.New(snapshot.Spec{
		Interfaces: []snapshot.Interface{{MAC: mac, MTU: 1500}, {MAC: mac, MTU: 1500}},
		Services:   []snapshot.Service{{Table: []uint16{0}, Members: []uint32{0}, Empty: stats.NoBackend}},
		Backends:   []snapshot.Backend{{Rewrite: rw, State: snapshot.Active, Generation: 1}},
		VIPs:       []snapshot.VIPSpec{{Addr: packet.Addr16(vip), Proto: packet.ProtoUDP, Lo: 53, Hi: 53}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[snapshot.Snapshot]
	current.Store(snap)
	frame := func(i int) []byte {
		return packettest.Frame(packettest.Spec{
			DstMAC: mac, Proto: packet.ProtoUDP,
			Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 4000),
			Dst: netip.AddrPortFrom(vip, 53),
		})
	}
	inQ, outQ = newEndless(frame), newEndless(frame)
	outQ.empty = true
	make1 := func(i uint16, q queue.Queue) *Worker {
		table, err := flow.New(1<<12, flow.DefaultTimeouts())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Close() })
		return New(Config{Number: i, Interface: i, CPU: -1, Queue: q, Flows: table, Snapshot: &current, Log: slog.New(slog.DiscardHandler)})
	}
	in, out = make1(0, inQ), make1(1, outQ)
	connect(in, out)
	return in, out, inQ, outQ
}

// connect makes the workers of interfaces 0 and 1 known to each other.
func connect(workers ...*Worker) {
	rings := make(map[[2]int]*handover.Ring)
	for from := range workers {
		for to := range workers {
			rings[[2]int{from, to}] = handover.NewRing()
		}
	}
	for self, w := range workers {
		peers := &Peers{}
		for i, peer := range workers {
			peers.All = append(peers.All, Peer{rings[[2]int{self, i}], peer})
			peers.Egress = append(peers.Egress, i)
			peers.Inbound = append(peers.Inbound, rings[[2]int{i, self}])
		}
		w.Connect(peers)
		w.adopt()
	}
}

func TestTurnDoesNotAllocate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		egress uint16
	}{{"out of the same interface", 0}, {"handed over", 1}} {
		t.Run(tc.name, func(t *testing.T) {
			in, out, inQ, outQ := pair(t, tc.egress)
			turn := func() {
				for _, w := range []*Worker{in, out} {
					if err := w.turn(); err != nil {
						t.Fatal(err)
					}
				}
			}
			turn() // the ring gets its memory
			if n := testing.AllocsPerRun(200, turn); n != 0 {
				t.Errorf("%v allocations per batch, want 0", n)
			}
			if sent := inQ.sent + outQ.sent; sent != 202*forward.BatchSize {
				t.Errorf("%d frames were sent, want %d", sent, 202*forward.BatchSize)
			}
			if outQ.sent > 0 != (tc.egress == 1) {
				t.Errorf("interface 1 has sent %d frames", outQ.sent)
			}
		})
	}
}

// Whoever adds work wakes the worker only if it has said that it sleeps. So work
// that was added just before it did has to be found by a last look.
func TestLooksAgainBeforeSleeping(t *testing.T) {
	for _, tc := range []struct {
		name  string
		add   func(in, out *Worker)
		waits int
	}{
		{"nothing", func(_, _ *Worker) {}, 1},
		{"a hand-over", func(in, _ *Worker) { in.peers.All[1].Ring.Push([]byte{1}, handover.Meta{}) }, 0},
		{"a request", func(_, out *Worker) { out.requests <- request{} }, 0},
		{"the end", func(_, out *Worker) { out.stopping.Store(true) }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in, out, _, outQ := pair(t, 1)
			tc.add(in, out)
			if err := out.sleep(); err != nil {
				t.Fatal(err)
			}
			if outQ.waits != tc.waits {
				t.Errorf("slept %d times, want %d", outQ.waits, tc.waits)
			}
			if out.sleeping.Load() {
				t.Error("awake, and still said to sleep")
			}
		})
	}
}

func BenchmarkTurn(b *testing.B) {
	for _, tc := range []struct {
		name   string
		egress uint16
	}{{"same", 0}, {"handover", 1}} {
		b.Run(tc.name, func(b *testing.B) {
			in, out, _, _ := pair(b, tc.egress)
			b.ReportAllocs()
			for range b.N {
				if err := in.turn(); err != nil {
					b.Fatal(err)
				}
				if err := out.turn(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*forward.BatchSize), "ns/packet")
		})
	}
}

// An answer that comes in at another worker than the one that has the flow is
// handed over, translated there, and sent by that one, exactly once.
func TestNATAnswerElsewhere(t *testing.T) {
	in, other, inQ, otherQ := natPair(t, 0)
	turn := func(w *Worker) {
		t.Helper()
		if err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
	inQ.last = make([][]byte, forward.BatchSize)
	turn(in)
	questions := inQ.packet
	for i, question := range inQ.last {
		otherQ.packet[i] = answerTo(question)
	}
	inQ.empty, otherQ.empty = true, false
	turn(other)
	otherQ.empty = true
	if otherQ.sent != 0 || other.counters.HandedOver.Packets != forward.BatchSize {
		t.Errorf("the other worker sent %d answers and handed %d over, want none and all",
			otherQ.sent, other.counters.HandedOver.Packets)
	}
	turn(in)
	if inQ.sent != 2*forward.BatchSize || in.counters.Drops != [stats.NumReasons]uint64{} {
		t.Fatalf("%d frames sent, want %d; dropped %v", inQ.sent, 2*forward.BatchSize, in.counters.Drops)
	}
	for i, answer := range inQ.last {
		var got, question packet.Parsed
		got.Decode(answer)
		question.Decode(questions[i])
		if got.Src != question.Dst || got.Dst != question.Src || got.SrcPort != question.DstPort || got.DstPort != question.SrcPort {
			t.Fatalf("answer %d is %+v, its question was %+v", i, got.Tuple, question.Tuple)
		}
		if err := packettest.CheckWellFormed(answer); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	turn(in)
	if inQ.sent != 2*forward.BatchSize {
		t.Error("an answer was sent again")
	}
}

// An answer may be longer than the buffers of the worker that has the flow: the
// backend's interface has the larger MTU. It is taken apart, or the backend is
// told.
func TestNATAnswerLongerThanTheBuffers(t *testing.T) {
	for _, tc := range []struct {
		name         string
		dontFragment bool
	}{{"taken apart", false}, {"refused", true}} {
		t.Run(tc.name, func(t *testing.T) {
			in, other, inQ, otherQ := natPair(t, 1)
			turn := func(w *Worker) {
				t.Helper()
				if err := w.turn(); err != nil {
					t.Fatal(err)
				}
			}
			inQ.last, otherQ.last = make([][]byte, forward.BatchSize), make([][]byte, forward.BatchSize)
			turn(in)
			turn(other)
			inQ.empty = true
			var question packet.Parsed
			question.Decode(otherQ.last[0])
			const payload = 4000
			answer := packettest.Frame(packettest.Spec{
				SrcMAC: packet.MAC{2, 0, 0, 0, 0, 2}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 1}, Proto: packet.ProtoUDP,
				Src:          netip.AddrPortFrom(packet.NetipAddr(question.Dst), question.DstPort),
				Dst:          netip.AddrPortFrom(packet.NetipAddr(question.Src), question.SrcPort),
				DontFragment: tc.dontFragment, Payload: make([]byte, payload),
			})
			inQ.sent, otherQ.sent, otherQ.wakes = 0, 0, 0
			other.sleeping.Store(true)
			(*outbox)(other).Pass(0, answer, handover.Meta{Ingress: 1})
			for range 2 { // what it is taken apart into comes back in the second
				turn(in)
				turn(other)
			}
			if in.counters.Drops != [stats.NumReasons]uint64{} || other.counters.Drops != [stats.NumReasons]uint64{} {
				t.Errorf("dropped %v and %v", in.counters.Drops, other.counters.Drops)
			}
			if tc.dontFragment {
				if inQ.sent != 0 || otherQ.sent != 1 || otherQ.wakes != 1 {
					t.Fatalf("%d frames sent to the client and %d to the backend, whose worker was woken %d times; want none, one, once",
						inQ.sent, otherQ.sent, otherQ.wakes)
				}
				reply := otherQ.last[0]
				if err := packettest.CheckWellFormed(reply); err != nil {
					t.Error(err)
				}
				icmp := reply[14+20:]
				if icmp[0] != 3 || icmp[1] != 4 || binary.BigEndian.Uint16(icmp[6:]) != 1500 { // RFC 1191 section 4
					t.Errorf("the backend was sent %x", reply)
				}
				return
			}
			if inQ.sent != 3 || otherQ.sent != 0 {
				t.Fatalf("%d frames sent to the client and %d to the backend, want three and none", inQ.sent, otherQ.sent)
			}
			total := 0
			for _, piece := range inQ.last[:inQ.sent] {
				if len(piece) > 14+1500 {
					t.Errorf("a piece of %d bytes", len(piece))
				}
				total += len(piece) - 14 - 20
			}
			if total != 8+payload {
				t.Errorf("the pieces have %d bytes, want %d", total, 8+payload)
			}
		})
	}
}

// A frame that no ring takes is too big. That is not for want of room.
func TestPassTooLong(t *testing.T) {
	in, _, _, _ := pair(t, 0)
	in.adopt()
	(*outbox)(in).Pass(1, make([]byte, handover.MaxFrame+1), handover.Meta{})
	if d := in.counters.Drops; d[stats.TooBig] != 1 || d[stats.HandoverFull] != 0 || in.counters.HandedOver.Packets != 0 {
		t.Errorf("dropped %v, handed over %v", d, in.counters.HandedOver)
	}
}

// What goes round comes to this worker too, and is decided in the next turn.
func TestPassToItself(t *testing.T) {
	in, _, inQ, _ := pair(t, 0)
	in.adopt()
	inQ.empty = true
	(*outbox)(in).Pass(0, inQ.packet[0], handover.Meta{})
	if err := in.turn(); err != nil {
		t.Fatal(err)
	}
	if inQ.sent != 1 || inQ.waits != 0 {
		t.Errorf("%d frames sent, slept %d times; want 1 and not at all", inQ.sent, inQ.waits)
	}
}

// A worker of the list that has ended by now, or an interface that nobody works.
func TestEmitTowardsNobody(t *testing.T) {
	in, _, inQ, _ := pair(t, 0)
	in.adopt()
	for egress := range uint16(4) {
		(*outbox)(in).Emit(egress, inQ.packet[0])
	}
	if n := in.counters.Drops[stats.NoEgress]; n != 2 {
		t.Errorf("%d frames dropped for want of an egress, want those of interfaces 2 and 3", n)
	}
}

// BenchmarkNAT is what it costs to take a packet through NAT: towards the
// backend, back where the answer comes in at the worker that has the flow, and
// back where it comes in at another one, which hands it over.
func BenchmarkNAT(b *testing.B) {
	in, other, inQ, otherQ := natPair(b, 0)
	report := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*forward.BatchSize), "ns/packet")
	}
	turns := func(b *testing.B, workers ...*Worker) {
		b.ReportAllocs()
		for range b.N {
			for _, w := range workers {
				if err := w.turn(); err != nil {
					b.Fatal(err)
				}
			}
		}
		report(b)
	}
	inQ.last = make([][]byte, forward.BatchSize)
	b.Run("question", func(b *testing.B) { turns(b, in) })
	answers := make([][]byte, len(inQ.last))
	for i, question := range inQ.last {
		answers[i] = answerTo(question)
	}
	inQ.last = nil
	inQ.packet = [forward.BatchSize][]byte(answers)
	sent := inQ.sent
	b.Run("answer", func(b *testing.B) { turns(b, in) })
	inQ.empty, otherQ.empty = true, false
	otherQ.packet = inQ.packet
	b.Run("answer-elsewhere", func(b *testing.B) { turns(b, other, in) })
	if inQ.sent == sent || in.counters.Drops != [stats.NumReasons]uint64{} {
		b.Fatalf("%d answers sent, dropped %v", inQ.sent-sent, in.counters.Drops)
	}
}

// natPair makes a worker of interface 0 that gets the packets for a service with
// NAT, and another one of the interface that its backend is behind, 0 or 1. The
// MTU of interface 1 is 9000.
func natPair(t testing.TB, backends uint16) (in, other *Worker, inQ, otherQ *endless) {
	t.Helper()
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	rw, err := rewrite.NAT(rewrite.Link{Egress: backends, Src: mac, Dst: packet.MAC{2, 0, 0, 0, 0, 2}, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	space := nat.NewSpace()
	snat := packet.Addr16(netip.MustParseAddr("10.0.0.240"))
	slots, err := space.Slots([][16]byte{snat})
	if err != nil {
		t.Fatal(err)
	}
	vip := netip.MustParseAddr("203.0.113.10")
	snap, err := snapshot.New(snapshot.Spec{
		Interfaces: []snapshot.Interface{{MAC: mac, MTU: 1500}, {MAC: mac, MTU: 9000}},
		Services:   []snapshot.Service{{Mode: snapshot.NAT, Table: []uint16{0}, Members: []uint32{0}}},
		Backends: []snapshot.Backend{{
			Rewrite: rw, State: snapshot.Active, Generation: 1, Addr: packet.Addr16(netip.MustParseAddr("10.0.0.11")),
		}},
		VIPs: []snapshot.VIPSpec{{Addr: packet.Addr16(vip), Proto: packet.ProtoUDP, Lo: 53, Hi: 53}},
		SNAT: []snapshot.SNAT{{Addr: snat, Range: nat.Range{Slot: slots[0], Lo: 1024, Hi: 65535}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[snapshot.Snapshot]
	current.Store(snap)
	inQ = newEndless(func(i int) []byte {
		return packettest.Frame(packettest.Spec{
			SrcMAC: packet.MAC{2, 0, 0, 0, 0, 3}, DstMAC: mac, Proto: packet.ProtoUDP,
			Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 4000),
			Dst: netip.AddrPortFrom(vip, 53),
		})
	})
	otherQ = newEndless(func(int) []byte { return nil })
	otherQ.empty = true
	worker := func(n, iface uint16, q queue.Queue) *Worker {
		table, err := flow.New(1<<12, flow.DefaultTimeouts())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = table.Close() })
		return New(Config{
			Number: n, Interface: iface, CPU: -1, Queue: q, Flows: table, Space: space, Snapshot: &current,
			Log: slog.New(slog.DiscardHandler),
		})
	}
	in, other = worker(0, 0, inQ), worker(1, backends, otherQ)
	connect(in, other)
	return in, other, inQ, otherQ
}

// answerTo returns what a backend sends back on a UDP packet over IPv4.
func answerTo(question []byte) []byte {
	answer := append([]byte(nil), question...)
	swap := func(at, size int) {
		copy(answer[at:], question[at+size:at+2*size])
		copy(answer[at+size:], question[at:at+size])
	}
	swap(0, 6)
	swap(14+12, 4)
	swap(14+20, 2)
	return answer
}
