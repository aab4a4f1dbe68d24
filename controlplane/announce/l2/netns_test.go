package l2

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// newWire puts the test's thread into a new network namespace with a veth pair,
// and returns a packet socket on its far end. All ends with the test.
func newWire(t *testing.T) int {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: makes a network namespace")
		}
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth1"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	for _, name := range []string{"eth1", "peer"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		if name == "peer" {
			all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestAnnouncesOnTheWire(t *testing.T) {
	wire := newWire(t)
	a := New(slog.New(slog.DiscardHandler))
	vips := []netip.Addr{vip4(), vip6()}
	a.Set(vips, []Interface{{"eth1", mac1(), true}, {"eth9", mac1(), true}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := make(map[netip.Addr]bool)
	go func() {
		// Run keeps to this thread, which is the one in the namespace, so the
		// reading is done by another; a socket stays in its namespace.
		defer cancel()
		buf := make([]byte, 2048)
		for deadline := time.Now().Add(20 * time.Second); len(seen) < len(vips) && time.Now().Before(deadline); {
			n, err := unix.Read(wire, buf)
			if err != nil {
				continue
			}
			for _, v := range vips {
				if bytes.Equal(buf[:n], Frame(v, mac1())) {
					seen[v] = true
				}
			}
		}
	}()
	if err := a.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(vips) {
		t.Errorf("seen on the wire: %v, want %v", seen, vips)
	}
	if s := a.Status()[Key{vip6(), "eth1"}]; s.Sent == 0 || s.Err != "" {
		t.Errorf("status %+v", s)
	}
	if s := a.Status()[Key{vip6(), "eth9"}]; s.Sent != 0 || !strings.Contains(s.Err, "no such network interface") {
		t.Errorf("status on an interface that is not there: %+v", s)
	}
}
