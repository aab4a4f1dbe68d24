package appliance

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/dataplane/engine"
)

// The service manager hears when weir forwards, then that it is well, and that it
// leaves.
func TestServiceManagerIsTold(t *testing.T) {
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	told := func() string {
		b := make([]byte, 256)
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", address.Name)
	t.Setenv("WATCHDOG_USEC", "40000")
	b := boot(t)
	if got := told(); got != "READY=1\nSTATUS=1 services on 1 interfaces" {
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
	for got := told(); got != "STOPPING=1"; got = told() {
		if got != "WATCHDOG=1" {
			t.Fatalf("told %q", got)
		}
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

func TestAnyStuck(t *testing.T) {
	for _, test := range []struct {
		interfaces []engine.InterfaceStatus
		want       bool
	}{
		{nil, false},
		{[]engine.InterfaceStatus{{Name: "a"}, {Name: "b", Up: true}}, false},
		{[]engine.InterfaceStatus{{Name: "a", Up: true}, {Name: "b", Up: true, Stuck: true}}, true},
	} {
		if got := anyStuck(test.interfaces); got != test.want {
			t.Errorf("%+v: %t", test.interfaces, got)
		}
	}
}
