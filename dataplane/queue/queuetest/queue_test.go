package queuetest

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"weir/dataplane/queue"
)

func receive(t *testing.T, q *Queue, n int) []queue.Frame {
	t.Helper()
	frames := make([]queue.Frame, n)
	got, err := q.Receive(frames)
	if err != nil || got != n {
		t.Fatalf("Receive = %d, %v, want %d", got, err, n)
	}
	return frames
}

func TestFramesGoRound(t *testing.T) {
	q := New(3)
	for _, p := range []string{"one", "two", "three"} {
		if !q.Inject([]byte(p)) {
			t.Fatalf("no room for %q", p)
		}
	}
	if q.Inject([]byte("four")) {
		t.Error("a fourth packet fits into three frames")
	}
	if q.Inject(make([]byte, FrameSize)) {
		t.Error("a packet as long as the frame leaves no headroom, but fits")
	}
	if got, want := q.Stats(), (queue.Stats{ReceiveDropped: 1, ReceiveInvalid: 1}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	frames := receive(t, q, 3)
	for i, want := range []string{"one", "two", "three"} {
		if f := &frames[i]; string(f.Bytes()) != want || f.Start != queue.Headroom {
			t.Errorf("frame %d is %q at %d, want %q at %d", i, f.Bytes(), f.Start, want, queue.Headroom)
		}
	}
	if q.Held() != 3 || q.Free() != 0 {
		t.Errorf("held %d, free %d, want 3 and 0", q.Held(), q.Free())
	}
	frames[0].Start -= 2
	copy(frames[0].Bytes(), "st")
	q.LimitSend(1)
	if n, err := q.Send(frames[:2]); n != 1 || err != nil {
		t.Errorf("Send = %d, %v, want 1", n, err)
	}
	q.Release(frames[2:])
	if got := q.Sent(); len(got) != 1 || string(got[0]) != "stone" {
		t.Errorf("sent %q, want one packet", got)
	}
	if q.Held() != 0 || q.Free() != 3 || q.Stats().TransmitDropped != 1 {
		t.Errorf("held %d, free %d, lost %d, want 0, 3 and 1", q.Held(), q.Free(), q.Stats().TransmitDropped)
	}
	if want := bytes.Repeat([]byte{poison}, FrameSize); !bytes.Equal(frames[2].Buf, want) {
		t.Error("a frame given back still has its old content")
	}
	alloc := make([]queue.Frame, 4)
	if n := q.Alloc(alloc); n != 3 || alloc[0].Len() != 0 || alloc[0].Start < queue.Headroom {
		t.Errorf("Alloc = %d with %+v, want 3 empty frames", n, alloc[0])
	}
}

func TestMisusePanics(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(q *Queue, f []queue.Frame)
		want string
	}{
		"released twice":  {func(q *Queue, f []queue.Frame) { q.Release(f[:1]); q.Release(f[:1]) }, "given back twice"},
		"sent, released":  {func(q *Queue, f []queue.Frame) { q.Send(f[:1]); q.Release(f[:1]) }, "given back twice"},
		"twice in one":    {func(q *Queue, f []queue.Frame) { q.Release([]queue.Frame{f[0], f[0]}) }, "given back twice"},
		"another's frame": {func(q *Queue, f []queue.Frame) { f[0].ID = 9; q.Release(f[:1]) }, "no such frame"},
		"swapped buffers": {func(q *Queue, f []queue.Frame) { f[0].ID, f[1].ID = f[1].ID, f[0].ID; q.Release(f) }, "another frame's"},
		"buffer cut":      {func(q *Queue, f []queue.Frame) { f[0].Buf = f[0].Buf[1:]; q.Release(f) }, "another frame's"},
		"outside":         {func(q *Queue, f []queue.Frame) { f[0].End = FrameSize + 1; q.Send(f) }, "packet is"},
		"empty":           {func(q *Queue, f []queue.Frame) { f[0].End = f[0].Start; q.Send(f) }, "empty"},
		"after close":     {func(q *Queue, f []queue.Frame) { q.Close(); q.Release(f) }, "after Close"},
	} {
		t.Run(name, func(t *testing.T) {
			q := New(2)
			q.Inject([]byte("a"))
			q.Inject([]byte("b"))
			frames := receive(t, q, 2)
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, test.want) {
					t.Errorf("panic %q, want one with %q", got, test.want)
				}
			}()
			test.do(q, frames)
		})
	}
}

func TestOneWorkerOnly(t *testing.T) {
	q := New(1)
	var wg sync.WaitGroup
	wg.Go(func() { _ = q.Wait(-1) })
	if err := q.AwaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Receive beside Wait does not panic")
			}
		}()
		_, _ = q.Receive(nil)
	}()
	q.Wake()
	wg.Wait()
}

func TestWaitAndWake(t *testing.T) {
	for name, wake := range map[string]func(q *Queue){
		"arrival": func(q *Queue) { q.Inject([]byte("x")) },
		"wake":    func(q *Queue) { q.Wake() },
		"remove":  func(q *Queue) { q.Remove() },
		"close":   func(q *Queue) { _ = q.Close() },
	} {
		t.Run(name+" before", func(t *testing.T) {
			q := New(1)
			wake(q)
			_ = q.Wait(-1)
		})
		t.Run(name+" during", func(t *testing.T) {
			q := New(1)
			done := make(chan error)
			go func() { done <- q.Wait(-1) }()
			if err := q.AwaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			wake(q)
			<-done
		})
	}
	t.Run("timeout", func(t *testing.T) {
		if err := New(1).Wait(1); err != nil {
			t.Error(err)
		}
	})
	t.Run("one wake-up ends one wait", func(t *testing.T) {
		q := New(1)
		q.Wake()
		q.Wake()
		_ = q.Wait(-1)
		done := make(chan error)
		go func() { done <- q.Wait(-1) }()
		if err := q.AwaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		q.Wake()
		<-done
	})
}

func TestEndOfLife(t *testing.T) {
	q := New(2)
	q.Inject([]byte("x"))
	frames := receive(t, q, 1)
	q.Remove()
	for _, step := range []struct {
		end  func()
		want error
	}{
		{func() {}, queue.ErrGone},
		{func() { _ = q.Close() }, queue.ErrClosed},
		{func() { _ = q.Close() }, queue.ErrClosed},
		{q.Remove, queue.ErrClosed},
	} {
		step.end()
		if _, err := q.Receive(frames); !errors.Is(err, step.want) {
			t.Errorf("Receive: %v, want %v", err, step.want)
		}
		if err := q.Wait(-1); !errors.Is(err, step.want) {
			t.Errorf("Wait: %v, want %v", err, step.want)
		}
		if n, err := q.Send(frames); n != 0 || !errors.Is(err, step.want) {
			t.Errorf("Send = %d, %v, want %v", n, err, step.want)
		}
		frames = nil // the first Send took it
		if q.Inject([]byte("y")) || q.Alloc(make([]queue.Frame, 1)) != 0 {
			t.Error("frames still move")
		}
	}
	if q.Held() != 0 {
		t.Error("Send on a removed interface did not take the frame")
	}
}

func TestAwaitGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := New(1)
	if err := q.AwaitIdle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitIdle: %v", err)
	}
	if _, err := q.AwaitSent(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitSent: %v", err)
	}
	q.Inject([]byte("x"))
	if _, err := q.Send(receive(t, q, 1)); err != nil {
		t.Fatal(err)
	}
	if got, err := q.AwaitSent(t.Context(), 1); err != nil || len(got) != 1 {
		t.Errorf("AwaitSent = %d packets, %v", len(got), err)
	}
}
