package appliance

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// listen returns what the service manager is told, in the order in which it is.
func listen(t *testing.T) (told func() string) {
	t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", address.Name)
	return func() string {
		t.Helper()
		b := make([]byte, 256)
		if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

const forwarding = "READY=1\nSTATUS=forwarding"

// The service manager hears when weir forwards, then that it is well, and that it
// leaves.
func TestServiceManagerIsTold(t *testing.T) {
	told := listen(t)
	t.Setenv("WATCHDOG_USEC", "80000")
	b := boot(t)
	if got := told(); got != forwarding {
		t.Fatalf("told %q", got)
	}
	if b.info().Generation == 0 {
		t.Error("told before there was a snapshot")
	}
	for range 3 {
		if got := told(); got != "WATCHDOG=1" {
			t.Fatalf("told %q", got)
		}
	}
	b.stop()
	got := told()
	for ; got == "WATCHDOG=1"; got = told() {
	}
	if got != "STOPPING=1\nSTATUS=leaving\nEXTEND_TIMEOUT_USEC=25000000" {
		t.Fatalf("told %q", got)
	}
}

// It is not told that weir is well while that hangs, nor before it is ready.
func TestServiceManagerIsNotTold(t *testing.T) {
	told := listen(t)
	t.Setenv("WATCHDOG_USEC", "4000")
	var ready, asked atomic.Bool
	hangs := make(chan bool)
	ctx, cancel := context.WithCancel(t.Context())
	m := manager{
		ready: func() bool { asked.Store(true); return ready.Load() },
		hangs: func() bool {
			select {
			case h := <-hangs:
				return h
			case <-ctx.Done():
				return true
			}
		},
		warn: func(msg string, _ ...any) { t.Error(msg) },
	}
	ended := make(chan struct{})
	go func() { defer close(ended); m.run(ctx) }()
	for !asked.Load() {
		time.Sleep(time.Millisecond)
	}
	ready.Store(true)
	if got := told(); got != forwarding {
		t.Fatalf("told %q", got)
	}
	for _, h := range []bool{true, false, true, true, true, false} {
		hangs <- h
	}
	cancel()
	<-ended
	if err := tellStopping(0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"WATCHDOG=1", "WATCHDOG=1", "STOPPING=1\nSTATUS=leaving\nEXTEND_TIMEOUT_USEC=0"} { // one for each false
		if got := told(); got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	}
}

// A manager that cannot be told at first is told later; without a watchdog, nothing
// follows.
func TestServiceManagerComesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	warned := make(chan string, 100)
	m := manager{ready: func() bool { return true }, warn: func(msg string, _ ...any) { warned <- msg }}
	ended := make(chan struct{})
	go func() { defer close(ended); m.run(t.Context()) }()
	if got := <-warned; !strings.Contains(got, "cannot be told") {
		t.Errorf("warned %q", got)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	<-ended
	b := make([]byte, 256)
	if n, err := socket.Read(b); err != nil || string(b[:n]) != forwarding {
		t.Errorf("told %q, error %v", b[:n], err)
	}
}

func TestWatchdogThatCannotBe(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	b := boot(t)
	b.await("warning", b.log.has("watchdog is not fed"))
	if s := b.log.String(); strings.Contains(s, "level=ERROR") {
		t.Error(s)
	}
}
