package afxdp

import (
	"testing"
	"time"

	"weir/dataplane/queue"
)

// Nobody receives: the rings fill up, then frames are dropped and counted. It
// goes on afterwards as if nothing had been.
func TestOverload(t *testing.T) {
	const ring, total = 64, 1000
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		q := l.open(Options{Modes: []Mode{mode}, RingSize: ring}).Queues()[0]
		frame := udp(t, vip, 1000, []byte("too much"))
		for round := 1; round <= 3; round++ {
			for range total {
				l.send(frame)
			}
			frames := receive(t, q, ring)
			wantHeld(t, q, ring)
			if n, err := q.Receive(make([]queue.Frame, 1)); n != 0 || err != nil {
				t.Errorf("more than the ring holds: %d, %v", n, err)
			}
			if got, want := q.Stats().ReceiveDropped, uint64(round*(total-ring)); got != want {
				t.Errorf("%d dropped, want %d", got, want)
			}
			q.Release(frames)
			wantHeld(t, q, 0)
		}
		kernel, err := statistics(q.(*xsk).fd)
		l.must(err)
		if n := kernel.Rx_dropped + kernel.Rx_ring_full; n == 0 || n > 3*total/64 {
			t.Errorf("of %d frames too many the socket was to drop one in 64: %+v", 3*(total-ring), kernel)
		}
		// The worker holds all frames there are.
		var held []queue.Frame
		for end := time.Now().Add(patience); len(held) < 6*ring && time.Now().Before(end); {
			l.send(frame)
			held = append(held, receiveSome(t, q)...)
			if a := accountOf(t, q); a.Free+a.Fill+a.Received == 0 {
				break
			}
		}
		if a := accountOf(t, q); a.Free+a.Fill+a.Received != 0 {
			t.Errorf("frames are left that cannot be received into: %+v", a)
		}
		wantHeld(t, q, len(held))
		q.Release(held)
		wantHeld(t, q, 0)
		l.send(frame)
		q.Release(receive(t, q, 1))
	})
}

// Frames that fit no buffer take no room from those that do, though nobody takes
// them: the worker sleeps all the while.
func TestLongFramesShutNobodyOut(t *testing.T) {
	const ring = 64
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		q := l.open(Options{Modes: []Mode{mode}, RingSize: ring}).Queues()[0]
		if n, err := q.Receive(make([]queue.Frame, 1)); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		q.(*xsk).room.Took(-ring) // as if so many had been given and lost
		frame := udp(t, vip, 1000, []byte("fits"))
		for range 64 {
			l.send(frame)
		}
		q.Release(receive(t, q, 1)) // waits for it
		if n, err := q.Receive(make([]queue.Frame, 1)); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		for range ring {
			l.send(frame)
		}
		q.Release(receive(t, q, ring)) // as the queue was found empty
	})
}

func receiveSome(t *testing.T, q queue.Queue) []queue.Frame {
	t.Helper()
	frames := make([]queue.Frame, 16)
	n, err := q.Receive(frames)
	if err != nil {
		t.Fatal(err)
	}
	return frames[:n]
}
