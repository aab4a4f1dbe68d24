package worker

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
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
	waits  int
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
	return len(frames), nil
}

func (q *endless) Release([]queue.Frame)    {}
func (q *endless) Wait(time.Duration) error { q.waits++; return nil }
func (q *endless) Wake()                    {}
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
		Interfaces: []snapshot.Interface{{MAC: mac}, {MAC: mac}},
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
		return New(Config{Interface: i, CPU: -1, Queue: q, Flows: table, Snapshot: &current, Log: slog.New(slog.DiscardHandler)})
	}
	in, out = make1(0, inQ), make1(1, outQ)
	ring := handover.NewRing()
	in.Connect([]Outbound{{}, {Ring: ring, To: out}}, nil)
	out.Connect(nil, []*handover.Ring{ring})
	return in, out, inQ, outQ
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
			turn()
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
		{"a hand-over", func(in, _ *Worker) { (*in.outbound.Load())[1].Ring.Push([]byte{1}) }, 0},
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
