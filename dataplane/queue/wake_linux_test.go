package queue

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns two connected sockets.
func pair(t *testing.T) (mine, other int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func newWaker(t *testing.T) *Waker {
	t.Helper()
	w, err := NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// wait runs Wait without a time-out, and fails the test if it does not end.
func wait(t *testing.T, w *Waker, sock int) int16 {
	t.Helper()
	type result struct {
		events int16
		err    error
	}
	done := make(chan result, 1)
	go func() {
		events, err := w.Wait(sock, -1)
		done <- result{events, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.events
	case <-time.After(20 * time.Second):
		t.Fatal("Wait does not end")
		return 0
	}
}

func TestWakeEndsTheNextWaitOnce(t *testing.T) {
	w := newWaker(t)
	sock, _ := pair(t)
	w.Wake()
	w.Wake() // counts as one
	if events := wait(t, w, sock); events != 0 {
		t.Errorf("events %#x on a silent socket", events)
	}
	var fds = []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		t.Errorf("a wake-up is left after Wait: %d, %v", n, err)
	}
}

func TestWakeEndsAWaitThatRuns(t *testing.T) {
	w := newWaker(t)
	sock, _ := pair(t)
	go func() {
		time.Sleep(50 * time.Millisecond)
		w.Wake()
	}()
	wait(t, w, sock)
}

func TestInputEndsAWait(t *testing.T) {
	w := newWaker(t)
	sock, other := pair(t)
	if _, err := unix.Write(other, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if events := wait(t, w, sock); events&unix.POLLIN == 0 {
		t.Errorf("events %#x, want input", events)
	}
}

func TestWaitTimesOut(t *testing.T) {
	w := newWaker(t)
	sock, _ := pair(t)
	if events, err := w.Wait(sock, time.Microsecond); events != 0 || err != nil {
		t.Errorf("events %#x, %v", events, err)
	}
}

func TestWakeAfterCloseTouchesNothing(t *testing.T) {
	w := newWaker(t)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// The number of the descriptor is free for somebody else now.
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	w.Wake()
	if other == w.fd {
		fds := []unix.PollFd{{Fd: int32(other), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
			t.Errorf("Wake wrote to a descriptor that is not its own: %d, %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
