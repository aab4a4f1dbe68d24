package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/site"
)

// traces is all of an interface that weir may change while it runs.
type traces struct {
	XDP      uint32 // id of the program
	TCX      int    // programs on ingress and egress
	Qdiscs   []string
	Multi    bool // receives all multicast
	Promisc  bool
	Features []string // offloads that are on, sorted
}

// without returns those of a that are not in b.
func without(a, b []string) (only []string) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			only = append(only, x)
		}
	}
	return only
}

// difference says in words what is not as it was, "" if all is.
func difference(before, after traces) string {
	on, off := without(after.Features, before.Features), without(before.Features, after.Features)
	before.Features, after.Features = nil, nil
	if reflect.DeepEqual(before, after) && on == nil && off == nil {
		return ""
	}
	return fmt.Sprintf("before %+v, after %+v, offloads switched on %v, off %v", before, after, on, off)
}

// tracesOf looks at one of weir's interfaces.
func (s *testSite) tracesOf(name string) (found traces, err error) {
	err = s.WeirHost.Do(func() error {
		ifi, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		attrs := ifi.Attrs()
		if attrs.Xdp != nil && attrs.Xdp.Attached {
			found.XDP = max(attrs.Xdp.ProgId, 1)
		}
		found.Promisc, found.Multi = attrs.Promisc != 0, attrs.RawFlags&unix.IFF_ALLMULTI != 0
		for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			programs, err := link.QueryPrograms(link.QueryOptions{Target: attrs.Index, Attach: attach})
			// A kernel without TCX does not know the attach type (kernel/bpf/syscall.c,
			// bpf_prog_query).
			if err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("query tcx programs: %w", err)
			}
			if programs != nil {
				found.TCX += len(programs.Programs)
			}
		}
		qdiscs, err := netlink.QdiscList(ifi)
		if err != nil {
			return fmt.Errorf("list qdiscs: %w", err)
		}
		for _, q := range qdiscs {
			found.Qdiscs = append(found.Qdiscs, q.Type())
		}
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		features, err := tool.Features(name)
		for feature, on := range features {
			if on {
				found.Features = append(found.Features, feature)
			}
		}
		slices.Sort(found.Features)
		return err
	})
	return found, err
}

// setFeature switches an offload of one of weir's interfaces.
func (s *testSite) setFeature(name, feature string, on bool) {
	s.t.Helper()
	s.must(s.WeirHost.Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		return tool.Change(name, map[string]bool{feature: on})
	}))
}

// TestStopLeavesNothing starts weir and stops it again, as a service manager
// does. Afterwards the interface is as it was.
func TestStopLeavesNothing(t *testing.T) {
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR})
		s.setFeature(site.Front, "rx-gro", true)
		before, err := s.tracesOf(site.Front)
		s.must(err)
		if !slices.Contains(before.Features, "rx-gro") {
			t.Fatal("the interface has no rx-gro to switch off")
		}
		for range 2 {
			s.start()
			if r := s.Client.Fetch(s.ctx, s.DSR4, megabyte); r.Err != nil {
				t.Error(r)
			}
			during, err := s.tracesOf(site.Front)
			s.must(err)
			if during.XDP == 0 && during.TCX == 0 && !slices.Contains(during.Qdiscs, "clsact") {
				t.Errorf("weir runs and has no program on its interface; this test looks at the wrong things: %+v", during)
			}
			s.must(s.StopWeir())
			after, err := s.tracesOf(site.Front)
			s.must(err)
			if d := difference(before, after); d != "" {
				t.Errorf("weir has left traces: %s", d)
			}
			if _, err := os.Stat(s.Socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket %s is left: %v", s.Socket, err)
			}
		}
	}, xdpCopy, xdpGeneric, afPacket)
}

// TestKill ends weir with SIGKILL under load and starts it again. Nothing it
// had in the kernel may stay, nothing of what it left may hinder the next one,
// and the connections that went through it go on.
func TestKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR})
		before, err := s.tracesOf(site.Front)
		s.must(err)
		s.start()
		_, finish := s.startLoad(site.DSR4, 20, 0)
		s.must(s.KillWeir())
		// The kernel takes a dead process's links away a moment after it. What
		// weir has set on the NIC, nobody can set back.
		s.await("interface "+site.Front+" is as it was", func() error {
			after, err := s.tracesOf(site.Front)
			after.Features = before.Features
			if !slices.Contains(before.Qdiscs, "clsact") { // without TCX it stays, with an inert filter, for the next start to take over
				after.Qdiscs = slices.DeleteFunc(after.Qdiscs, func(kind string) bool { return kind == "clsact" })
			}
			if d := difference(before, after); err == nil && d != "" {
				err = errors.New(d)
			}
			return err
		})
		if _, err := os.Stat(s.Socket); err != nil {
			t.Errorf("a killed weir has removed its socket, so this test does not show that the next one copes: %v", err)
		}
		// VIP traffic reaches the kernel of weir's host now, which has no such
		// address: it is quiet and does not reset what comes back later.
		if err := s.ping(s.DSR4.Addr()); err == nil {
			t.Errorf("%s answers without weir", s.DSR4.Addr())
		}
		s.start()
		for _, vip := range s.VIPs() {
			t.Logf("%s was served %v after the start", vip, s.served(vip))
		}
		if err := finish(); err != nil {
			t.Errorf("not all connections outlived the restart: %v", err)
		}
	}, xdpCopy, xdpGeneric, afPacket)
}

// TestForeignProgram has another program on the interface already. Weir must
// not start in its place, and say whose it is.
func TestForeignProgram(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Backends: 1, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR})
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "firewall", Type: ebpf.XDP, License: "GPL", Instructions: returnXDPPass(),
		})
		s.must(err)
		defer program.Close()
		var foreign link.Link
		s.must(s.WeirHost.Do(func() error {
			ifi, err := net.InterfaceByName(site.Front)
			if err != nil {
				return err
			}
			foreign, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: ifi.Index})
			return err
		}))
		defer foreign.Close()
		s.wantStartError("firewall", site.Front, fmt.Sprintf("process %d", os.Getpid()))
		s.must(foreign.Close())
		s.start()
		s.served(s.DSR4)
	}, xdpCopy, xdpGeneric)
}
