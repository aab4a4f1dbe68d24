package afpacket

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/dataplane/queue"
)

func TestLinkDownAndUp(t *testing.T) {
	l := newLab(t)
	q := l.open(Options{}).Queues()[0]
	client := l.wire(l.client, "c0")
	set := func(what string, change func(netlink.Link) error) {
		l.in(l.weir, func() { l.run(what, change(l.link("d0"))) })
	}
	set("down", netlink.LinkSetDown)
	for range 3 {
		if err := q.Wait(time.Millisecond); err != nil {
			t.Fatalf("wait: %v", err)
		}
	}
	frames := make([]queue.Frame, 2)
	q.Alloc(frames)
	for i := range frames {
		f := &frames[i]
		f.End += uint32(copy(f.Buf[f.Start:], udpFrame(l.d0, l.c0, client4, 1, make([]byte, 64))))
	}
	if n, err := q.Send(frames); n != 0 || err != nil {
		t.Errorf("send: %d, %v", n, err)
	}
	if want := (queue.Stats{TransmitDropped: 2}); q.Stats() != want {
		t.Errorf("stats %+v, want %+v", q.Stats(), want)
	}

	set("up", netlink.LinkSetUp)
	n := 0
	for end := time.Now().Add(arrival); n == 0; {
		client.send(l.udp(vip4, 1, 1, 64)) // is lost while the carrier is coming up
		if err := q.Wait(50 * time.Millisecond); err != nil {
			t.Fatalf("wait: %v", err)
		}
		var err error
		if n, err = q.Receive(frames); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("nothing is received after the link came up")
		}
	}
	echo(t, q, frames[:n])
	if client.receive(arrival) == nil {
		t.Error("nothing is sent after the link came up")
	}
	wantAllBack(t, q)
}

// TestOpenWhileDown opens queues before the link is up.
func TestOpenWhileDown(t *testing.T) {
	l := newLab(t)
	l.in(l.weir, func() { l.run("down", netlink.LinkSetDown(l.link("d0"))) })
	q := l.open(Options{}).Queues()[0]
	l.in(l.weir, func() { l.up("d0") })
	client := l.wire(l.client, "c0")
	frames := make([]queue.Frame, 1)
	for end := time.Now().Add(arrival); ; time.Sleep(10 * time.Millisecond) {
		client.send(l.udp(vip4, 1, 1, 64))
		if n, _ := q.Receive(frames); n == 1 { // without Wait, which would clear the socket's error
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing is received")
		}
	}
	echo(t, q, frames) // the socket's pending ENETDOWN costs no frame
}

func TestGone(t *testing.T) {
	for _, tc := range []struct {
		name       string
		classifier bool
		learn      func(q queue.Queue) error
	}{
		{"wait", false, func(q queue.Queue) error {
			for {
				if err := q.Wait(-1); err != nil {
					return err
				}
			}
		}},
		{"send", true, func(q queue.Queue) error {
			for {
				frames := make([]queue.Frame, 1)
				q.Alloc(frames)
				frames[0].End += 60
				if _, err := q.Send(frames); err != nil {
					return err
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			d := l.open(Options{classifier: tc.classifier})
			q := d.Queues()[0]
			result := make(chan error, 1)
			go func() { result <- tc.learn(q) }()
			l.in(l.weir, func() { l.run("delete", netlink.LinkDel(l.link("d0"))) })
			select {
			case err := <-result:
				if !errors.Is(err, queue.ErrGone) {
					t.Errorf("got %v, want ErrGone", err)
				}
			case <-time.After(arrival):
				t.Fatal("the queue does not notice")
			}
			frames := make([]queue.Frame, 1)
			if _, err := q.Receive(frames); !errors.Is(err, queue.ErrGone) {
				t.Errorf("receive: %v", err)
			}
			if _, err := q.Send(frames[:0]); !errors.Is(err, queue.ErrGone) {
				t.Errorf("send: %v", err)
			}
			if err := q.Wait(-1); !errors.Is(err, queue.ErrGone) {
				t.Errorf("wait: %v", err)
			}
			wantAllBack(t, q)
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func TestWakeAndClose(t *testing.T) {
	l := newLab(t)
	d := l.open(Options{Queues: 2})
	q := d.Queues()[0]
	q.Wake()
	if err := q.Wait(-1); err != nil { // a Wake before counts
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { result <- q.Wait(-1) }()
	q.Wake()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	frames := make([]queue.Frame, 1)
	q.Alloc(frames)
	go func() { result <- q.Wait(-1) }()
	for r := q.(*ringQueue); r.waiting.TryLock(); r.waiting.Unlock() {
		time.Sleep(time.Millisecond) // until it is in Wait
	}
	for range 2 {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-result; !errors.Is(err, queue.ErrClosed) {
		t.Errorf("wait: %v", err)
	}

	if _, err := q.Receive(frames); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if n, err := q.Send(frames); n != 0 || !errors.Is(err, queue.ErrClosed) {
		t.Errorf("send: %d, %v", n, err)
	}
	if n := q.Alloc(frames); n != 0 {
		t.Errorf("alloc: %d", n)
	}
	q.Release(frames)
	q.Wake()
	q.Stats()
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}
