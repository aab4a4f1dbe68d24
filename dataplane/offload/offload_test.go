package offload

import (
	"bytes"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"weir/lab/labtest"
)

// inNewNS runs f on a thread in a network namespace of its own, in which there
// is a veth pair called n0 and n1. Both go away with the thread.
func inNewNS(t *testing.T, f func()) {
	t.Helper()
	labtest.NeedRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			t.Errorf("new network namespace: %v", err)
			return
		}
		defer func() { _ = ns.Close() }()
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "n0"}, PeerName: "n1"})
		if err != nil {
			t.Errorf("add veth: %v", err)
			return
		}
		f()
	}()
	<-done
}

func features(t *testing.T, ifname string) map[string]bool {
	nic, err := ethtool.NewEthtool()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	defer nic.Close()
	all, err := nic.Features(ifname)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return all
}

func set(t *testing.T, ifname, feature string, on bool) {
	nic, err := ethtool.NewEthtool()
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	defer nic.Close()
	if err := nic.Change(ifname, map[string]bool{feature: on}); err != nil {
		t.Error(err)
		runtime.Goexit()
	}
}

func TestDisableAndRestore(t *testing.T) {
	all := []Feature{LRO, HardwareGRO, GRO, VLANStripped}
	for _, tc := range []struct {
		name    string
		feature string // one that a veth has
		on      bool
	}{
		{"GRO was on", "rx-gro", true}, {"GRO was off", "rx-gro", false},
		{"tags were stripped", "rx-vlan-hw-parse", true}, {"tags were left", "rx-vlan-hw-parse", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inNewNS(t, func() {
				set(t, "n0", tc.feature, tc.on)
				before := features(t, "n0")
				var log bytes.Buffer
				s, err := Open("n0", "", slog.New(slog.NewTextHandler(&log, nil)))
				if err != nil {
					t.Error(err)
					return
				}
				// Some of it, and more later.
				for _, some := range [][]Feature{all[:2], all[1:]} {
					if err := s.Disable(some...); err != nil {
						t.Error(err)
					}
				}
				during := features(t, "n0")
				for _, f := range all {
					if during[string(f)] {
						t.Errorf("%s is on", f)
					}
					delete(during, string(f))
				}
				for name, on := range during {
					if on != before[name] {
						t.Errorf("%s was changed", name)
					}
				}
				if log.Len() > 0 {
					t.Errorf("logged %s", log.String())
				}

				// From another thread, thus another network namespace.
				restored := make(chan error)
				go func() { restored <- s.Restore() }()
				if err := <-restored; err != nil {
					t.Error(err)
				}
				if after := features(t, "n0"); !maps.Equal(after, before) {
					t.Errorf("before %v\nafter %v", before, after)
				}

				// Once restored, what others set is none of its business.
				set(t, "n0", tc.feature, !tc.on)
				if err := s.Restore(); err != nil {
					t.Error(err)
				}
				if features(t, "n0")[tc.feature] == tc.on {
					t.Error("restored twice")
				}
				if err := s.Disable(GRO); err == nil {
					t.Error("switches off what nobody will restore")
				}
			})
		})
	}
}

func TestInterfaceGone(t *testing.T) {
	dir := t.TempDir()
	inNewNS(t, func() {
		set(t, "n0", "rx-gro", true)
		s, err := Open("n0", dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Error(err)
			return
		}
		if err := s.Disable(GRO); err != nil {
			t.Error(err)
		}
		link, err := netlink.LinkByName("n0")
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
		if err := s.Restore(); err != nil {
			t.Errorf("restore: %v", err)
		}
		if files := list(t, dir); len(files) > 0 {
			t.Errorf("left behind: %v", files)
		}
		if _, err := Open("n0", dir, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "n0") {
			t.Errorf("open: %v, want an error that names the interface", err)
		}
	})
}
