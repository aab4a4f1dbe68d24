package worker_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
	"weir/dataplane/stats"
	"weir/dataplane/worker"
)

func TestForwardsInOrder(t *testing.T) {
	s := one(t)
	var want [][]byte
	bytesIn := 0
	for n := range 500 {
		frame := datagram(0, 0, n)
		if !s.queue.Inject(frame) {
			t.Fatalf("frame %d found no room", n)
		}
		want = append(want, forwarded(frame, 0, serverMAC))
		bytesIn += len(frame)
	}
	sameFrames(t, s.sent(500), want)
	c := s.status().Counters
	traffic := stats.Traffic{Packets: 500, Bytes: uint64(bytesIn)}
	if c.Received != traffic || c.Transmitted != traffic || c.HandedOver != (stats.Traffic{}) {
		t.Errorf("received %v, transmitted %v, handed over %v; want %v twice and none", c.Received, c.Transmitted, c.HandedOver, traffic)
	}
	if b := c.Backends[0]; c.Sent[0] != traffic || b.NewFlows != 500 || b.Flows != 500-int64(c.FlowsUntrustedEvicted) {
		t.Errorf("backend was sent %v, and counts %+v", c.Sent[0], b)
	}
}

func TestDropsAreReleasedAndCounted(t *testing.T) {
	s := one(t)
	frames := map[stats.Reason][]byte{
		stats.ForeignMAC: datagram(1, 0, 1),
		stats.UnknownVIP: packettest.Frame(packettest.Spec{
			DstMAC: ifaceMAC(0), Proto: packet.ProtoUDP,
			Src: netip.MustParseAddrPort("198.51.100.1:1"), Dst: netip.MustParseAddrPort("192.0.2.1:53"),
		}),
		stats.NoService: packettest.Frame(packettest.Spec{
			DstMAC: ifaceMAC(0), Proto: packet.ProtoUDP,
			Src: netip.MustParseAddrPort("198.51.100.1:1"), Dst: netip.AddrPortFrom(vip(0), 54),
		}),
		stats.Truncated: datagram(0, 0, 1)[:30],
		stats.NotIP:     append(append([]byte{2, 0, 0, 0, 1, 0}, 2, 0, 0, 0, 3, 1), 0x88, 0xcc, 0, 0),
		stats.NoEgress:  datagram(0, 1, 1), // nobody works interface 1
	}
	for _, frame := range frames {
		s.queue.Inject(frame)
	}
	s.queue.Inject(datagram(0, 0, 7))
	s.sent(1)
	c := s.status().Counters
	for reason := range stats.NumReasons {
		want := uint64(0)
		if frames[reason] != nil {
			want = 1
		}
		if c.Drops[reason] != want {
			t.Errorf("%d frames dropped as %s, want %d", c.Drops[reason], reason, want)
		}
	}
	if c.Received.Packets != uint64(len(frames)+1) || c.Transmitted.Packets != 1 {
		t.Errorf("received %d, sent %d", c.Received.Packets, c.Transmitted.Packets)
	}
	s.idle()
	if free := s.queue.Free(); free != queueFrames {
		t.Errorf("%d of %d buffers are free", free, queueFrames)
	}
}

func TestWhatTheQueueDoesNotTakeIsCounted(t *testing.T) {
	s := newStation(t, 0, pointer(compile(t, 1, serverMAC)))
	s.queue.LimitSend(3)
	for n := range 10 {
		s.queue.Inject(datagram(0, 0, n)) // one batch, since the worker does not run yet
	}
	s.start()
	s.sent(3)
	c := s.status().Counters
	if c.Transmitted.Packets != 3 || c.Drops[stats.TransmitFull] != 7 {
		t.Errorf("transmitted %d, dropped %d; want 3 and 7", c.Transmitted.Packets, c.Drops[stats.TransmitFull])
	}
}

func TestAnswersLeaveByTheInterfaceThatAsked(t *testing.T) {
	s := one(t)
	ask := packettest.Spec{
		SrcMAC: clientMAC(), DstMAC: ifaceMAC(0),
		Src: netip.MustParseAddrPort("198.51.100.1:0"), Dst: netip.AddrPortFrom(vip(1), 0),
	}
	s.queue.Inject(packettest.ARPRequest(ask, vip(1))) // the VIP's backend is behind the other one
	s.queue.Inject(packettest.EchoRequest(ask, 7, 9))
	for i, frame := range s.sent(2) {
		if err := packettest.CheckWellFormed(frame); err != nil {
			t.Errorf("answer %d: %v", i, err)
		}
		to, from := clientMAC(), ifaceMAC(0)
		if !bytes.Equal(frame[:6], to[:]) || !bytes.Equal(frame[6:12], from[:]) {
			t.Errorf("answer %d goes from %x to %x", i, frame[6:12], frame[:6])
		}
	}
	c := s.status().Counters
	if c.ARPReplies != 1 || c.EchoReplies != 1 {
		t.Errorf("%d ARP and %d echo replies", c.ARPReplies, c.EchoReplies)
	}
}

func TestHandsOverBothWays(t *testing.T) {
	pair := two(t)
	const frames = 400
	var want [2][][]byte
	for in := range pair {
		pair[in].start()
	}
	for n := range frames {
		for in, s := range pair {
			frame := datagram(in, 1-in, n)
			if !s.queue.Inject(frame) {
				t.Fatal("no room")
			}
			want[1-in] = append(want[1-in], forwarded(frame, 1-in, serverMAC))
		}
	}
	for out, s := range pair {
		sameFrames(t, s.sent(frames), want[out])
	}
	for i, s := range pair {
		c := s.status().Counters
		if c.Received.Packets != frames || c.HandedOver != c.Received || c.Transmitted != c.Received {
			t.Errorf("worker %d: received %v, handed over %v, transmitted %v", i, c.Received, c.HandedOver, c.Transmitted)
		}
		if c.Drops != [stats.NumReasons]uint64{} {
			t.Errorf("worker %d dropped: %v", i, c.Drops)
		}
	}
}

// A worker that never runs is one that does not keep up.
func TestHandOverToAWorkerThatDoesNotKeepUp(t *testing.T) {
	pair := two(t)
	const frames = handover.Slots + 100
	for n := range frames {
		if !pair[0].queue.Inject(datagram(0, 1, n)) {
			t.Fatal("no room")
		}
	}
	pair[0].start()
	pair[0].idle()
	c := pair[0].status().Counters
	if c.HandedOver.Packets != handover.Slots || c.Drops[stats.HandoverFull] != 100 {
		t.Errorf("handed over %d, dropped %d; want %d and 100", c.HandedOver.Packets, c.Drops[stats.HandoverFull], handover.Slots)
	}
	// Once it runs, it sends what has waited, the oldest first.
	pair[1].start()
	sent := pair[1].sent(handover.Slots)
	for n, frame := range sent {
		if want := forwarded(datagram(0, 1, n), 1, serverMAC); !bytes.Equal(frame, want) {
			t.Fatalf("frame %d:\n got %x\nwant %x", n, frame, want)
		}
	}
}

func TestHandOverWhenThePeerHasStopped(t *testing.T) {
	pair := two(t)
	pair[0].start()
	pair[1].start()
	pair[0].queue.Inject(datagram(0, 1, 1))
	pair[1].sent(1)
	if err := pair[1].stop(); err != nil {
		t.Fatal(err)
	}
	if err := pair[1].queue.Close(); err != nil {
		t.Fatal(err)
	}
	for n := range handover.Slots + 10 { // a peer that has ended takes nothing out any more
		pair[0].queue.Inject(datagram(0, 1, n))
		if n%64 == 0 {
			pair[0].idle()
		}
	}
	pair[0].idle()
	c := pair[0].status().Counters
	if c.HandedOver.Packets != 1+handover.Slots || c.Drops[stats.HandoverFull] != 10 {
		t.Errorf("handed over %d, dropped %d", c.HandedOver.Packets, c.Drops[stats.HandoverFull])
	}
	// The engine then takes the way out.
	connect(pair[0])
	pair[0].status() // after this turn, the next one begins with what is new
	pair[0].queue.Inject(datagram(0, 1, 1))
	pair[0].idle()
	if n := pair[0].status().Counters.Drops[stats.NoEgress]; n != 1 {
		t.Errorf("%d frames dropped for want of an egress, want 1", n)
	}
}

// bare is a queue that has no buffer to give, as when the link is down and all
// of them wait to be sent.
type bare struct{ sound }

func (bare) Alloc([]queue.Frame) int { return 0 }

func TestHandedOverFramesWithoutBuffers(t *testing.T) {
	ring := handover.NewRing()
	table, err := flow.New(1024, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(queueFrames)
	s := assemble(t, 0, pointer(compile(t, 1, serverMAC)), q, bare{sound{q}}, table)
	s.Connect(&worker.Peers{All: []worker.Peer{{Ring: ring, To: s.Worker}}, Inbound: []*handover.Ring{ring}})
	for n := range 5 {
		ring.Push(datagram(0, 0, n), handover.Meta{})
	}
	s.start()
	s.idle() // it does not spin on what it cannot send
	if n := s.status().Counters.Drops[stats.TransmitFull]; n != 5 || ring.Len() != 0 {
		t.Errorf("%d frames dropped and %d left, want 5 and none", n, ring.Len())
	}
}

func TestHandedOverFrameThatFitsNoBuffer(t *testing.T) {
	ring := handover.NewRing()
	s := newStation(t, 0, pointer(compile(t, 1, serverMAC)))
	s.Connect(&worker.Peers{All: []worker.Peer{{Ring: ring, To: s.Worker}}, Inbound: []*handover.Ring{ring}})
	ring.Push(make([]byte, 9000), handover.Meta{})
	ring.Push(datagram(0, 0, 1), handover.Meta{})
	s.start()
	sameFrames(t, s.sent(1), [][]byte{datagram(0, 0, 1)})
	if n := s.status().Counters.Drops[stats.TooBig]; n != 1 {
		t.Errorf("%d frames dropped as too big, want 1", n)
	}
}

func TestSleepsAndWakes(t *testing.T) {
	pair := two(t)
	for _, s := range pair {
		s.start()
		s.idle()
	}
	t.Run("for a frame", func(t *testing.T) {
		pair[0].queue.Inject(datagram(0, 0, 1))
		pair[0].sent(1)
		pair[0].idle()
	})
	t.Run("for a hand-over", func(t *testing.T) {
		pair[0].queue.Inject(datagram(0, 1, 1))
		pair[1].sent(1)
		pair[1].idle()
	})
	t.Run("for a request", func(t *testing.T) {
		ran := false
		if err := pair[0].Do(within(t), func() { ran = true }); err != nil || !ran {
			t.Errorf("ran %v, error %v", ran, err)
		}
		pair[0].idle()
	})
	t.Run("for the end", func(t *testing.T) {
		if err := pair[0].stop(); err != nil {
			t.Errorf("a worker told to stop returned %v", err)
		}
	})
}

func TestEndsWhenTheInterfaceIsGone(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before func(*station)
	}{
		{"while asleep", func(s *station) { s.idle() }},
		{"while busy", func(s *station) {
			for n := range 200 {
				s.queue.Inject(datagram(0, 0, n))
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := one(t)
			tc.before(s)
			s.queue.Remove()
			if err := s.wait(); !errors.Is(err, queue.ErrGone) {
				t.Errorf("Run returned %v, want %v", err, queue.ErrGone)
			}
			if err := s.Do(context.Background(), func() {}); !errors.Is(err, worker.ErrStopped) {
				t.Errorf("Do returned %v, want %v", err, worker.ErrStopped)
			}
		})
	}
}

func TestAdoptsANewSnapshot(t *testing.T) {
	s := one(t)
	s.queue.Inject(datagram(0, 0, 1))
	s.sent(1)
	moved := func(i int) packet.MAC { return packet.MAC{2, 0, 0, 0, 9, byte(i)} }
	s.snap.Store(compile(t, 2, moved))
	s.queue.Inject(datagram(0, 0, 1)) // the same flow stays on its backend, which has another MAC
	got := s.sent(2)
	if want := forwarded(datagram(0, 0, 1), 0, moved); !bytes.Equal(got[1], want) {
		t.Errorf("\n got %x\nwant %x", got[1], want)
	}
	if c := s.status().Counters; c.Backends[0].NewFlows != 1 || c.Sent[0].Packets != 2 {
		t.Errorf("backend counts %+v, and was sent %v; the flow was decided anew", c.Backends[0], c.Sent[0])
	}
}

func TestIdleFlowsExpire(t *testing.T) {
	timeouts := flow.DefaultTimeouts()
	timeouts.UDP = time.Millisecond // one tick, as it is rounded up
	table, err := flow.New(32, timeouts)
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(queueFrames)
	s := assemble(t, 0, pointer(compile(t, 1, serverMAC)), q, q, table).start()
	for n := range 4 {
		s.queue.Inject(datagram(0, 0, n))
	}
	s.sent(4)
	st := s.await("empty flow table", func(st worker.Status) bool { return st.Flows == 0 })
	if st.Counters.FlowsExpired != 4 || st.Counters.Backends[0].Flows != 0 {
		t.Errorf("%d flows expired, %d on the backend's gauge", st.Counters.FlowsExpired, st.Counters.Backends[0].Flows)
	}
}
