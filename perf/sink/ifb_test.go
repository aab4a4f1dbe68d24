package sink

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// send sends a frame out of the host's eth0, or of another interface.
func send(t *testing.T, h *netlab.Host, frame []byte, name ...string) {
	t.Helper()
	iface := "eth0"
	if len(name) > 0 {
		iface = name[0]
	}
	err := h.Do(func() error {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits for what is bound to come.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

func TestIfb(t *testing.T) {
	host, _ := newHosts(t, 0)
	i, err := OpenIfb(host, "hole", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := Tally{}
	for n := range 100 {
		frame := frameOf(Kind{}, make([]byte, 18+n))
		send(t, host, frame, "hole")
		want.Packets++
		want.Bytes += uint64(len(frame))
	}
	if got, err := i.Taken(); err != nil || got != want {
		t.Errorf("taken %+v, %v; want %+v", got, err, want)
	}
	if again, err := OpenIfb(host, "hole", 1); err == nil {
		t.Errorf("a second one of the same name: %v", again)
	}
	for range 2 {
		if err := i.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := host.Link("hole"); err == nil {
		t.Error("it is still there")
	}
	if _, err := i.Taken(); err == nil {
		t.Error("it can still be read")
	}
}
