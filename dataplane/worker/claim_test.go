package worker_test

import (
	"net/netip"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
	"weir/dataplane/stats"
	"weir/dataplane/worker"
)

func TestTellsClaims(t *testing.T) {
	s := newStation(t, 1, pointer(compile(t, 1, serverMAC))).start()
	say := func(sender netip.Addr, n byte) packet.MAC {
		by := packet.MAC{2, 0, 0, 0, 4, n}
		s.queue.Inject(packettest.ARPRequest(packettest.Spec{SrcMAC: by, Src: netip.AddrPortFrom(sender, 0)}, vip(1)))
		return by
	}
	for _, want := range []worker.Claim{
		{Address: vip(0), MAC: say(vip(0), 1), Interface: "eth1"},
		{Address: vip(1), MAC: say(netip.IPv4Unspecified(), 2), Interface: "eth1", Probe: true},
	} {
		select {
		case got := <-s.claims:
			if got != want {
				t.Errorf("told %+v, want %+v", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("never told %+v", want)
		}
	}
	// Nobody listens: what there is no room for is lost, and nothing else is.
	for n := range byte(5) {
		say(vip(0), 10+n)
	}
	s.queue.Inject(datagram(1, 1, 1))
	s.idle()
	if c := s.status().Counters; len(s.claims) != cap(s.claims) || c.Drops[stats.AddressConflict] != 6 || c.Transmitted.Packets != 2 {
		t.Errorf("%d claims wait, %d counted, %d frames sent", len(s.claims), c.Drops[stats.AddressConflict], c.Transmitted.Packets)
	}
}

// jammed is a queue whose Receive does not return until it is let go.
type jammed struct {
	queue.Queue
	in  chan struct{}
	let chan struct{}
}

func (q jammed) Receive(frames []queue.Frame) (int, error) {
	select {
	case q.in <- struct{}{}:
	default:
	}
	<-q.let
	return q.Queue.Receive(frames)
}

// stationAt makes a worker whose queue is what wrap makes of q.
func stationAt(t *testing.T, wrap func(q *queuetest.Queue) queue.Queue) *station {
	t.Helper()
	table, err := flow.New(32, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(queueFrames)
	return assemble(t, 0, pointer(compile(t, 1, serverMAC)), q, wrap(q), table)
}

func TestTurnsOfAWorkerWithoutWork(t *testing.T) {
	s := stationAt(t, func(q *queuetest.Queue) queue.Queue { return q }).start()
	for deadline := time.Now().Add(patience); s.Turns() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d turns, and no more", s.Turns())
		}
	}
}

func TestTurnsOfAWorkerThatHangs(t *testing.T) {
	var q jammed
	s := stationAt(t, func(inner *queuetest.Queue) queue.Queue {
		q = jammed{inner, make(chan struct{}, 1), make(chan struct{})}
		return q
	})
	if s.Turns() != 0 {
		t.Errorf("%d turns before it runs", s.Turns())
	}
	s.start()
	<-q.in
	if s.Turns() != 1 {
		t.Errorf("%d turns of a worker that hangs in its first", s.Turns())
	}
	close(q.let)
	s.await("more turns", func(worker.Status) bool { return s.Turns() > 1 })
}
