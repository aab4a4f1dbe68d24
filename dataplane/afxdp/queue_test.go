package afxdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

func TestReceiveAndSend(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		kernel := listen(t, "0.0.0.0:7777")
		d := l.open(Options{Modes: []Mode{mode}})
		if d.Mode() != mode || len(d.Queues()) != 1 {
			t.Fatalf("mode %s, %d queues", d.Mode(), len(d.Queues()))
		}
		q := d.Queues()[0]

		for size := 30; size <= 1450; size += 103 {
			sent := udp(t, vip, 1000, bytes.Repeat([]byte{byte(size)}, size))
			l.send(udp(t, hostIP, 1000, []byte("for the kernel")))
			l.send(sent)
			frames := receive(t, q, 1)
			f := &frames[0]
			if !bytes.Equal(f.Bytes(), sent) {
				t.Fatalf("received\n% x, sent\n% x", f.Bytes(), sent)
			}
			if f.Start < queue.Headroom {
				t.Errorf("headroom is %d bytes", f.Start)
			}
			turn(f)
			want := bytes.Clone(f.Bytes())
			if size%2 == 0 { // as for a tunnel: the frame begins in the headroom
				f.Start -= 20
				copy(f.Buf[f.Start:], f.Buf[f.Start+20:f.Start+34])
				copy(f.Buf[f.Start+14:], bytes.Repeat([]byte{0xee}, 20))
				want = bytes.Clone(f.Bytes())
			}
			if n, err := q.Send(frames); n != 1 || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
			if got := l.expect(); !bytes.Equal(got, want) {
				t.Fatalf("other end got\n% x, want\n% x", got, want)
			}
			if got := kernel(); got != "for the kernel" {
				t.Fatalf("kernel got %q", got)
			}
		}
		wantHeld(t, q, 0)
		if got := q.Stats(); got != (queue.Stats{}) {
			t.Errorf("lost: %+v", got)
		}
	})
}

func TestAlloc(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		q := l.open(Options{Modes: []Mode{mode}, RingSize: 64, Frames: 512}).Queues()[0]

		frames := make([]queue.Frame, 1000)
		n := q.Alloc(frames)
		if n != 512-128 { // all that is not in the fill ring
			t.Fatalf("%d frames, want %d", n, 512-128)
		}
		if more := q.Alloc(frames[n:]); more != 0 {
			t.Fatalf("%d more", more)
		}
		wantHeld(t, q, n)
		body := udp(t, vip, 1, []byte("made by weir"))
		for i := range frames[:n] {
			f := &frames[i]
			if f.Start != f.End || f.Start < queue.Headroom || len(f.Buf) != 2048 {
				t.Fatalf("frame %d: start %d, end %d, %d bytes", i, f.Start, f.End, len(f.Buf))
			}
			f.End += uint32(copy(f.Buf[f.Start:], body))
			turn(f)
		}
		// More than the ring holds: the kernel sends while the caller adds.
		sent := 0
		for i := 0; i < n; i += 32 {
			m, err := q.Send(frames[i : i+32])
			l.must(err)
			sent += m
		}
		if sent != n {
			t.Errorf("sent %d of %d", sent, n)
		}
		for range n {
			l.expect()
		}
		wantHeld(t, q, 0)
	})
}

// What the kernel would swallow is given up before it gets there.
func TestSendRefuses(t *testing.T) {
	l := newLab(t, 1)
	q := l.open(Options{Modes: []Mode{Copy}, RingSize: 64}).Queues()[0]
	good := udp(t, vip, 1, []byte("good"))
	frames := made(t, q, 8, good)
	frames[0].End = frames[0].Start
	frames[2].End = frames[2].Start + minFrame - 1
	frames[3].Start = frames[3].End + 1
	frames[5].End = 2049
	frames[7].End = frames[7].Start
	n, err := q.Send(frames)
	if n != 3 || err != nil {
		t.Errorf("sent %d, %v, want 3", n, err)
	}
	for range 3 {
		if !bytes.Contains(l.expect(), []byte("good")) {
			t.Error("a bad frame got out")
		}
	}
	wantHeld(t, q, 0)
	if got := q.Stats().TransmitDropped; got != 5 {
		t.Errorf("%d dropped, want 5", got)
	}

	// More at once than the ring holds: the rest is given up, not lost.
	n, err = q.Send(made(t, q, 200, good))
	if n != 64 || err != nil {
		t.Errorf("sent %d, %v, want 64", n, err)
	}
	wantHeld(t, q, 0)
	if got := q.Stats().TransmitDropped; got != 5+200-64 {
		t.Errorf("%d dropped, want %d", got, 5+200-64)
	}
}

func TestBurst(t *testing.T) {
	const total, window = 10000, 256
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		q := l.open(Options{Modes: []Mode{mode}}).Queues()[0]
		stop := make(chan struct{})
		var worker sync.WaitGroup
		worker.Go(func() {
			frames := make([]queue.Frame, 64)
			for {
				if echo(t, q, frames) > 0 {
					continue
				}
				select {
				case <-stop:
					return
				default:
				}
				if err := q.Wait(-1); err != nil {
					t.Error(err)
					return
				}
			}
		})

		// One window after the other: every frame comes back.
		frame := udp(t, vip, 1000, make([]byte, 64))
		counter := frame[len(frame)-8:]
		for sent := 0; sent < total; sent += window {
			for i := range window {
				binary.BigEndian.PutUint64(counter, uint64(sent+i))
				l.send(frame)
			}
			for i := range window {
				got := l.expect()
				if n := binary.BigEndian.Uint64(got[len(got)-8:]); n != uint64(sent+i) {
					t.Fatalf("frame %d came back where %d was due", n, sent+i)
				}
			}
		}
		// All at once: some may be lost, but no buffer.
		for range total {
			l.send(frame)
		}
		back := 0
		for l.read() != nil {
			back++
		}
		close(stop)
		q.Wake()
		worker.Wait()
		wantHeld(t, q, 0)
		if back == 0 || back > total {
			t.Errorf("%d of %d came back", back, total)
		}
		t.Logf("%d of %d came back, %+v", back, total, q.Stats())
	})
}

func TestLinkDownAndUp(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		q := l.open(Options{Modes: []Mode{mode}, RingSize: 64}).Queues()[0]
		frame := udp(t, vip, 1000, []byte("up and down"))
		for range 3 {
			for _, end := range []netlink.Link{l.host, l.peer} {
				l.must(netlink.LinkSetDown(end))
				// Sending does not fail, wait for anything, or lose buffers.
				for range 100 {
					if _, err := q.Send(made(t, q, 16, frame)); err != nil {
						t.Fatal(err)
					}
				}
				if err := q.Wait(0); err != nil {
					t.Fatal(err)
				}
				if a := accountOf(t, q); a.Held != 0 || a.Send > 16 {
					t.Errorf("with the link down frames got lost, or more than one batch is stuck: %+v", a)
				}
				l.must(netlink.LinkSetUp(end))
			}
			if q.Stats().TransmitDropped == 0 {
				t.Error("nothing was counted")
			}
			wantHeld(t, q, 0)
			for l.read() != nil { // the few that were on their way
			}
			// Which of the frames sent first find the link up is not known.
			echoed := false
			for end := time.Now().Add(patience); !echoed && time.Now().Before(end); {
				l.send(frame)
				l.must(q.Wait(10 * time.Millisecond))
				echo(t, q, make([]queue.Frame, 16))
				echoed = l.read() != nil
			}
			if !echoed {
				t.Fatal("no echo after the link came up again")
			}
			wantHeld(t, q, 0)
		}
	})
}

// A worker that always has frames to send never waits.
func TestSendFindsLinkUp(t *testing.T) {
	l := newLab(t, 1)
	q := l.open(Options{Modes: []Mode{Copy}, RingSize: 64}).Queues()[0]
	frame := udp(t, vip, 1000, []byte("up again"))
	l.must(netlink.LinkSetDown(l.host))
	for range 10 {
		if n, err := q.Send(made(t, q, 16, frame)); n != 0 && q.(*xsk).send.pending() != 16 || err != nil {
			t.Errorf("sent %d, %v", n, err)
		}
	}
	l.must(netlink.LinkSetUp(l.host))
	sent := 0
	for end := time.Now().Add(patience); sent == 0 && time.Now().Before(end); {
		n, err := q.Send(made(t, q, 16, frame))
		l.must(err)
		if l.read() != nil {
			sent = n
		}
	}
	if sent != 16 {
		t.Errorf("sent %d with the link up", sent)
	}
	wantHeld(t, q, 0)
}

func TestGone(t *testing.T) {
	modes(t, func(t *testing.T, mode Mode) {
		l := newLab(t, 1)
		d := l.open(Options{Modes: []Mode{mode}})
		q := d.Queues()[0]
		l.send(udp(t, vip, 1000, []byte("the last one")))
		frames := receive(t, q, 1)

		waits := make(chan error)
		go func() {
			for {
				if err := q.Wait(-1); err != nil {
					waits <- err
					return
				}
			}
		}()
		l.must(netlink.LinkDel(l.host))
		select {
		case err := <-waits:
			if !errors.Is(err, queue.ErrGone) {
				t.Errorf("Wait: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Wait does not end")
		}
		if n, err := q.Send(frames); n != 0 || !errors.Is(err, queue.ErrGone) {
			t.Errorf("Send: %d, %v", n, err)
		}
		if n, err := q.Receive(frames); n != 0 || !errors.Is(err, queue.ErrGone) {
			t.Errorf("Receive: %d, %v", n, err)
		}
		if n := q.Alloc(frames); n != 0 {
			t.Errorf("Alloc: %d", n)
		}
		l.must(d.Close())
	})
}

// A worker that is busy learns it from Send.
func TestGoneWhileSending(t *testing.T) {
	l := newLab(t, 1)
	q := l.open(Options{Modes: []Mode{Copy}}).Queues()[0]
	l.send(udp(t, vip, 1000, []byte("the last one")))
	frames := receive(t, q, 1)
	l.must(netlink.LinkDel(l.host))
	if _, err := q.Send(frames); !errors.Is(err, queue.ErrGone) {
		t.Errorf("Send: %v", err)
	}
}

func TestWake(t *testing.T) {
	l := newLab(t, 1)
	q := l.open(Options{Modes: []Mode{Copy}}).Queues()[0]
	q.Wake() // ends the next Wait
	l.must(q.Wait(-1))
	for range 100 {
		done := make(chan error)
		go func() { done <- q.Wait(-1) }()
		q.Wake()
		select {
		case err := <-done:
			l.must(err)
		case <-time.After(patience):
			t.Fatal("Wake does not end Wait")
		}
	}
}

func TestCloseEndsWait(t *testing.T) {
	l := newLab(t, 1)
	d := l.open(Options{Modes: []Mode{Copy}})
	q := d.Queues()[0]
	done := make(chan error)
	go func() {
		for {
			if err := q.Wait(-1); err != nil {
				done <- err
				return
			}
		}
	}()
	stats := make(chan struct{})
	go func() {
		defer close(stats)
		for range 1000 {
			q.Stats()
			q.Wake()
		}
	}()
	l.must(q.Close())
	select {
	case err := <-done:
		if !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Wait: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not end Wait")
	}
	<-stats
	frames := make([]queue.Frame, 1)
	if _, err := q.Receive(frames); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Receive: %v", err)
	}
	if _, err := q.Send(frames); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Send: %v", err)
	}
	if n := q.Alloc(frames); n != 0 {
		t.Errorf("Alloc: %d", n)
	}
	q.Release(frames)
	q.Wake()
	q.Stats()
	l.must(q.Close())
	l.must(d.Close())
	l.must(d.Close())
}

func TestNoAllocs(t *testing.T) {
	l := newLab(t, 1)
	q := l.open(Options{Modes: []Mode{Copy}}).Queues()[0]
	frame := udp(t, vip, 1000, []byte("nothing is allocated for this"))
	frames := make([]queue.Frame, 64)
	one := func() []queue.Frame {
		if _, err := unix.Write(l.wire, frame); err != nil {
			t.Fatal(err)
		}
		for {
			if n, err := q.Receive(frames); n > 0 || err != nil {
				return frames[:n]
			}
		}
	}
	for name, f := range map[string]func(){
		"Receive and Release": func() { q.Release(one()) },
		"Receive and Send": func() {
			got := one()
			for i := range got {
				turn(&got[i])
			}
			if _, err := q.Send(got); err != nil {
				t.Fatal(err)
			}
		},
		"Alloc and Release": func() { q.Release(frames[:q.Alloc(frames)]) },
		"Wait": func() {
			if err := q.Wait(0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if got := testing.AllocsPerRun(1000, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	wantHeld(t, q, 0)
}
