package netlab

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestPort checks that a switch's port is the one that the cable is in.
func TestPort(t *testing.T) {
	lab := newLab(t)
	sw, other := must(lab.Switch("sw"))(t), must(lab.Switch("other"))(t)
	a, b := must(lab.Host("a"))(t), must(lab.Host("b"))(t)
	for _, h := range []*Host{a, b} {
		must(h.Connect(sw, Iface{Name: "eth0"}))(t)
	}
	for _, h := range []*Host{a, b} {
		port := must(sw.Port(h, "eth0"))(t)
		check(t, sw.Do(func() error {
			link, err := netlink.LinkByIndex(port.Index)
			if err == nil && (link.Attrs().Name != port.Name || link.Attrs().Alias != h.Name()+" eth0") {
				t.Errorf("the port of %s is %+v, and says of itself %q", h.Name(), port, link.Attrs().Alias)
			}
			return err
		}))
		if port, err := other.Port(h, "eth0"); err == nil {
			t.Errorf("a switch has port %+v for a cable to another", port)
		}
	}
	if err := sw.Do(func() error { return unix.EXDEV }); !errors.Is(err, unix.EXDEV) {
		t.Errorf("do returns %v", err)
	}
}
