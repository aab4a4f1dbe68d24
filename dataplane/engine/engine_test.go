package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/afxdp"
	"weir/dataplane/engine"
	"weir/dataplane/nic"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/worker"
	"weir/dataplane/xdplink"
)

func modes(m ...afxdp.Mode) []afxdp.Mode { return m }

func TestForwardsBetweenInterfaces(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			for in := range 2 {
				for out := range 2 {
					r.forwards(in, out, 1)
				}
			}
			for _, s := range r.Interfaces() {
				if !s.Up || s.Err != nil || s.Workers < 1 || with.Driver != nic.Auto && s.Driver != with.Driver {
					t.Errorf("interface is %+v", s)
				}
			}
			all := r.Status(context.Background())
			if len(all) < 2 || len(all) != len(r.Workers()) {
				t.Fatalf("%d workers, %d answered", len(r.Workers()), len(all))
			}
			for _, s := range all {
				if s.Err != nil || s.Counters.Received.Packets == 0 || s.Counters.HandedOver.Packets == 0 {
					t.Errorf("worker %+v", s)
				}
			}
		})
	}
}

// The very first snapshot, compiled before anything has changed, must have the
// interfaces' addresses: workers answer ARP by it.
func TestAddressesAreKnownOnceOpen(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.AFPacket})
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	for i, s := range r.Interfaces() {
		want := linkOf(t, r.names[i]).Attrs()
		if s.MAC.String() != want.HardwareAddr.String() || s.Ifindex != want.Index || s.MTU != want.MTU {
			t.Errorf("interface %s is %+v", r.names[i], s)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestAnswersARP(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.Auto}).run()
	w := openWire(t, r.names[0]+"-peer")
	defer w.close()
	ask := packettest.ARPRequest(packettest.Spec{SrcMAC: clientMAC(), Src: netip.MustParseAddrPort("203.0.113.1:0")}, vip(1))
	mac := r.Interfaces()[0].MAC
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		w.send(ask)
		if got := w.receive(); len(got) >= 42 && got[21] == 2 && packet.MAC(got[22:28]) == mac {
			return
		}
	}
	t.Error("no answer")
}

func TestInterfaceThatComesBack(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			r.forwards(0, 1, 1)
			before := r.Interfaces()[1]
			gone := r.Workers()

			remove(t, r.names[1])
			s := r.await(1, "an error", func(s engine.InterfaceStatus) bool { return s.Err != nil && !s.Up })
			if s.Workers != 0 || !errors.Is(s.Err, queue.ErrGone) {
				t.Errorf("without interface it is %+v", s)
			}
			r.forwards(0, 0, 1) // the other one goes on
			stopped := 0
			for _, w := range gone {
				if _, err := w.Status(context.Background()); errors.Is(err, worker.ErrStopped) {
					stopped++
				}
			}
			if stopped == 0 || stopped == len(gone) {
				t.Errorf("%d of %d workers have stopped", stopped, len(gone))
			}

			addWire(t, r.names[1])
			s = r.await(1, "its return", func(s engine.InterfaceStatus) bool { return s.Err == nil && s.Workers > 0 && s.Up })
			if s.Driver != before.Driver || s.Mode != before.Mode {
				t.Errorf("came back with driver %s %s instead of %s %s: %v", s.Driver, s.Mode, before.Driver, before.Mode, s.Reasons)
			}
			for i, w := range r.Workers() {
				if w.CPU() != gone[i].CPU() {
					t.Errorf("worker %d moved from cpu %d to %d", i, gone[i].CPU(), w.CPU())
				}
			}
			r.apply()
			r.forwards(0, 1, 2)
			r.forwards(1, 0, 2)
		})
	}
}

// It comes back down, as interfaces do, and is brought up later.
func TestInterfaceThatComesBackDown(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.Auto}).run()
	before := r.Interfaces()[1]
	remove(t, r.names[1])
	r.await(1, "an error", func(s engine.InterfaceStatus) bool { return s.Err != nil })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = r.names[1]
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: r.names[1] + "-peer"}); err != nil {
		t.Fatal(err)
	}
	r.await(1, "its return", func(s engine.InterfaceStatus) bool { return s.Err == nil && s.Workers > 0 })
	setUp(t, r.names[1])
	setUp(t, r.names[1]+"-peer")
	s := r.await(1, "up", func(s engine.InterfaceStatus) bool { return s.Up })
	if s.Driver != before.Driver || s.Mode != before.Mode {
		t.Errorf("came back with driver %s %s instead of %s %s: %v", s.Driver, s.Mode, before.Driver, before.Mode, s.Reasons)
	}
	r.apply()
	r.forwards(0, 1, 1)
}

func TestLinkDownAndUp(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			r.forwards(0, 1, 1)
			setDown(t, r.names[1]+"-peer") // the cable
			r.await(1, "no carrier", func(s engine.InterfaceStatus) bool { return !s.Up })
			setUp(t, r.names[1]+"-peer")
			r.await(1, "carrier", func(s engine.InterfaceStatus) bool { return s.Up })
			r.forwards(0, 1, 2)
			setDown(t, r.names[1]) // the administrator
			r.await(1, "down", func(s engine.InterfaceStatus) bool { return !s.Up })
			r.forwards(0, 0, 2)
			setUp(t, r.names[1])
			r.await(1, "up", func(s engine.InterfaceStatus) bool { return s.Up })
			r.forwards(0, 1, 3)
			r.forwards(1, 0, 3)
			if s := r.Interfaces()[1]; s.Err != nil {
				t.Errorf("a link that was down is an error: %v", s.Err)
			}
		})
	}
}

// A worker's packet buffers are made for the MTU that the interface had.
func TestFollowsTheMTU(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			r.forwards(0, 1, 1)
			for _, name := range r.names {
				setMTU(t, name+"-peer", 3000)
				setMTU(t, name, 3000)
			}
			for i := range r.names {
				r.await(i, "new MTU", func(s engine.InterfaceStatus) bool { return s.MTU == 3000 && s.Err == nil })
			}
			r.apply()
			r.payload = 2500
			r.forwards(0, 1, 2)
			r.forwards(1, 0, 2)
		})
	}
}

func TestFollowsTheNumberOfQueues(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			r.forwards(0, 1, 1)
			counts := []int{maxQueues}
			if with.Driver == nic.AFPacket {
				counts = append(counts, 2) // the kernel refuses to take a queue away from an AF_XDP socket
			}
			for _, n := range counts {
				setQueues(t, r.names[0], uint32(n))
				r.await(0, fmt.Sprintf("%d workers", n), func(s engine.InterfaceStatus) bool { return s.Workers == n && s.Err == nil })
				r.forwards(0, 1, n)
				r.forwards(1, 0, n)
			}
		})
	}
}

func TestFollowsTheMACAddress(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with).run()
			r.forwards(0, 1, 1)
			mac := packet.MAC{2, 0, 0, 0, 7, 7}
			if err := netlink.LinkSetHardwareAddr(linkOf(t, r.names[0]), net.HardwareAddr(mac[:])); err != nil {
				t.Fatal(err)
			}
			r.await(0, "new address", func(s engine.InterfaceStatus) bool { return s.MAC == mac })
			r.apply()
			r.forwards(0, 1, 2)
		})
	}
}

// occupy puts somebody else's XDP program on an interface.
func occupy(t *testing.T, name string) link.Link {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "firewall", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.AttachXDP(link.XDPOptions{
		Program: prog, Interface: linkOf(t, name).Attrs().Index, Flags: link.XDPGenericMode,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = prog.Close() })
	return l
}

func TestForeignXDPProgram(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.AFXDP})
	foreign := occupy(t, r.names[1])
	err := r.Open()
	if err == nil || !strings.Contains(err.Error(), r.names[1]) || !strings.Contains(err.Error(), `"firewall"`) ||
		!strings.Contains(err.Error(), "detach") {
		t.Fatalf("Open returned %v; want the interface, the program and what to do", err)
	}
	leftNothing(t, r.names[0])
	if err := foreign.Close(); err != nil {
		t.Fatal(err)
	}
	r.run().forwards(0, 1, 1)
}

// AF_PACKET works behind it, so auto does not give up, but says why.
func TestForeignXDPProgramWithAuto(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.Auto})
	occupy(t, r.names[1])
	r.run().forwards(0, 1, 1)
	s := r.Interfaces()[1]
	if s.Driver != nic.AFPacket || !strings.Contains(strings.Join(s.Reasons, " "), `"firewall"`) {
		t.Errorf("driver %s because of %q", s.Driver, s.Reasons)
	}
}

func TestMissingInterfaces(t *testing.T) {
	r := newRig(t, engine.Interface{Driver: nic.Auto})
	remove(t, r.names[0])
	err := r.Open()
	if err == nil || !strings.Contains(err.Error(), r.names[0]) || strings.Contains(err.Error(), r.names[1]) {
		t.Fatalf("Open returned %v; want %s named and %s not", err, r.names[0], r.names[1])
	}
	leftNothing(t, r.names[1])
	remove(t, r.names[1])
	if err := r.Open(); err == nil || !strings.Contains(err.Error(), r.names[0]) || !strings.Contains(err.Error(), r.names[1]) {
		t.Errorf("Open returned %v; want both named", err)
	}
}

func TestEndLeavesNothing(t *testing.T) {
	for name, with := range drivers() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, with)
			for _, n := range r.names {
				setGRO(t, n, true)
			}
			goroutines, files := runtime.NumGoroutine(), openFiles(t)
			r.run().forwards(0, 1, 1)
			r.stop()
			for _, n := range r.names {
				leftNothing(t, n)
				if !gro(t, n) {
					t.Errorf("%s: receive offload is off", n)
				}
			}
			// Goroutines and finalizers end a little after Run.
			var g, f int
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				if g, f = runtime.NumGoroutine(), openFiles(t); g <= goroutines && f <= files {
					return
				}
			}
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before; %d open files, %d before:\n%s", g, goroutines, f, files, buf[:runtime.Stack(buf, true)])
		})
	}
}

// leftNothing holds an interface against how it was before weir came.
func leftNothing(t *testing.T, name string) {
	t.Helper()
	attrs := linkOf(t, name).Attrs()
	if err := xdplink.Foreign(attrs.Index); err != nil {
		t.Errorf("left behind: %v", err)
	}
	out, err := exec.Command("ip", "-d", "link", "show", "dev", name).Output()
	if err != nil || !strings.Contains(string(out), "promiscuity 0") || !strings.Contains(string(out), "allmulti 0") {
		t.Errorf("%s takes in more than its own frames: %s (%v)", name, out, err)
	}
	tcx, err := link.QueryPrograms(link.QueryOptions{Target: attrs.Index, Attach: ebpf.AttachTCXIngress})
	// A kernel without TCX does not know the attach type (kernel/bpf/syscall.c,
	// bpf_prog_query).
	if err != nil && !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if tcx != nil && len(tcx.Programs) > 0 {
		t.Errorf("%s has %d tc programs", name, len(tcx.Programs))
	}
	qdiscs, err := netlink.QdiscList(linkOf(t, name))
	if err != nil {
		t.Error(err)
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			t.Errorf("%s has a clsact qdisc", name)
		}
	}
}

func setGRO(t *testing.T, name string, on bool) {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	if err := tool.Change(name, map[string]bool{"rx-gro": on}); err != nil {
		t.Fatal(err)
	}
}

func gro(t *testing.T, name string) bool {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	features, err := tool.Features(name)
	if err != nil {
		t.Fatal(err)
	}
	return features["rx-gro"]
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
