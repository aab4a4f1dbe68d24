package via

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/controlplane/health"
	"weir/dataplane/queue"
)

// output is a log that may be read while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Somebody deletes the device: checks cannot be made until there is another one,
// and Run goes on.
func TestDeviceDeleted(t *testing.T) {
	w := newWorld(t)
	var n *Network
	var out output
	w.must(w.box.Do(func() (err error) {
		n, err = Open(slog.New(slog.NewTextHandler(&out, nil)))
		return err
	}))
	n.SetWays(map[string]Way{"b1": w.dsr(w.backends[0])})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.box.Do(func() error { return n.Run(ctx) }) }()
	all := func() (failed error) {
		for _, vip := range vips {
			_, err := w.ask(n, "tcp", vip, "b1", patience)
			failed = errors.Join(failed, err, w.ping(n, vip, "b1", patience))
		}
		return failed
	}
	w.must(all())

	// A probe that is under way when the device goes.
	w.must(w.backends[0].host.UnserveVIP(vip4))
	silent := make(chan error)
	go func() {
		_, err := w.ask(n, "tcp", vip4, "b1", 2*firstRepair)
		silent <- err
	}()
	for limit := time.Now().Add(patience); n.flows.isEmpty() && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // until its SYN is out
	w.ip("link delete weir0")
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		_, err := w.ask(n, "tcp", vip6, "b1", brief)
		if errors.Is(err, health.ErrUnable) && strings.Contains(err.Error(), "the device weir0 was lost") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("without the device: %v", err)
		}
	}
	if err := <-silent; !errors.Is(err, health.ErrUnable) {
		t.Errorf("a probe that was under way: %v", err)
	}
	w.must(w.backends[0].host.ServeVIP(vip4))
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := all()
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("it does not come back: %v\n%s", err, w.state())
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	w.must(n.Close())
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "checked through backends again") {
		t.Errorf("logged\n%s", text)
	}
	if left := w.state(); strings.Contains(left, "weir0") || strings.Contains(left, "0x77650001") {
		t.Errorf("left\n%s", left)
	}
}

// Run ends though the device cannot be made again.
func TestEndsWithoutDevice(t *testing.T) {
	for _, end := range []string{"context", "Close"} {
		t.Run(end, func(t *testing.T) {
			w := newWorld(t)
			n := w.openBare()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- w.box.Do(func() error { return n.Run(ctx) }) }()
			w.ip("link delete weir0")
			for limit := time.Now().Add(patience); n.losses.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("nobody notices")
				}
			}
			if end == "Close" {
				w.must(n.Close())
			} else {
				cancel()
			}
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
			w.must(n.Close())
		})
	}
}

// An ended context and a wake-up end the wait; others do not.
func TestRest(t *testing.T) {
	waker, err := queue.NewWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer waker.Close()
	n := &Network{waker: waker, flows: newFlows(waker.Wake)}
	n.flows.wake() // a socket is to be wound up
	started := time.Now()
	if !n.rest(t.Context(), 20*time.Millisecond) || time.Since(started) < 20*time.Millisecond {
		t.Error("did not wait")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n.rest(ctx, time.Hour) {
		t.Error("an ended context does not end it")
	}
	n.flows.stop()
	if n.rest(t.Context(), time.Hour) {
		t.Error("Close does not end it")
	}
}
