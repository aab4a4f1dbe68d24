package nic

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"weir/dataplane/afxdp"
	"weir/dataplane/xdplink"
)

// TestMain is also the second weir that [TestSecondWeir] needs.
func TestMain(m *testing.M) {
	driver := os.Getenv("WEIR_TEST_CHILD")
	if driver == "" {
		os.Exit(m.Run())
	}
	n, err := Open(Options{
		Interface: "eth0", Driver: Driver(driver), StateDir: os.Getenv("WEIR_TEST_STATE"),
		XDPModes: []afxdp.Mode{afxdp.Generic}, Log: slog.New(slog.DiscardHandler),
	})
	fmt.Println("open", err)
	_, _ = os.Stdin.Read(make([]byte, 1))
	runtime.KeepAlive(n)
	os.Exit(0)
}

// startWeir opens eth0 in another process, which lives until it is killed or the
// test ends.
func startWeir(t *testing.T, driver Driver, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // starts in the namespace of this thread
	cmd.Env = append(os.Environ(), "WEIR_TEST_CHILD="+string(driver), "WEIR_TEST_STATE="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "open <nil>\n" {
		t.Fatalf("other weir: %q, %v", line, err)
	}
	return cmd
}

// features are those of eth0 that are on.
func features(t *testing.T) string {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	all, err := tool.Features("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, name := range []string{"rx-lro", "rx-gro-hw", "rx-gro", "rx-vlan-hw-parse"} {
		if all[name] {
			on = append(on, name)
		}
	}
	return strings.Join(on, " ")
}

// A second weir would see no frame, whatever its driver, so it is refused, and
// leaves the first one's interface alone.
func TestSecondWeir(t *testing.T) {
	for _, driver := range []Driver{Auto, AFXDP, AFPacket} {
		t.Run(string(driver), func(t *testing.T) {
			newVeth(t, 1500, 1)
			first := startWeir(t, AFXDP, "")
			during := features(t)
			_, err := Open(Options{Interface: "eth0", Driver: driver, Log: slog.New(slog.DiscardHandler)})
			want := fmt.Sprintf("open interface eth0: another weir works this interface (process %d)", first.Process.Pid)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
			if foreign := new(xdplink.ForeignProgramError); !errors.As(xdplink.Foreign(eth(t, "eth0").Attrs().Index), &foreign) || features(t) != during {
				t.Errorf("the first one's interface has changed: program %q, on: %s", foreign.Name, features(t))
			}
		})
	}
}

// Whatever driver a killed weir used, the next puts back what that one found.
func TestKilledWeir(t *testing.T) {
	for _, driver := range []Driver{AFXDP, AFPacket} {
		for _, next := range []Driver{AFXDP, AFPacket} {
			t.Run(string(driver)+" then "+string(next), func(t *testing.T) {
				newVeth(t, 1500, 1)
				tool, err := ethtool.NewEthtool()
				if err != nil {
					t.Fatal(err)
				}
				defer tool.Close()
				if err := tool.Change("eth0", map[string]bool{"rx-gro": true}); err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(t.TempDir(), "weir")
				before := features(t)
				first := startWeir(t, driver, dir)
				left := map[Driver]string{AFXDP: "", AFPacket: "rx-vlan-hw-parse"}[driver]
				if during := features(t); before != "rx-gro rx-vlan-hw-parse" || during != left {
					t.Errorf("on before: %s; during: %s, want %q", before, during, left)
				}
				if err := first.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_, _ = first.Process.Wait()
				n, err := Open(Options{Interface: "eth0", Driver: next, StateDir: dir, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				if err := n.Close(); err != nil {
					t.Error(err)
				}
				if after := features(t); after != before {
					t.Errorf("on before: %s; after: %s", before, after)
				}
				untouched(t)
			})
		}
	}
}

// Another program on the interface is left there, and the log says that it costs
// AF_XDP.
func TestForeignProgram(t *testing.T) {
	newVeth(t, 1500, 1)
	theirs, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "firewall", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	held, err := xdplink.Attach(theirs, eth(t, "eth0").Attrs().Index, xdplink.Native)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	var log bytes.Buffer
	n, err := Open(Options{Interface: "eth0", Driver: Auto, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if n.Driver != AFPacket {
		t.Errorf("took %s", n.Driver)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=WARN") ||
		!strings.Contains(text, "program=firewall") || !strings.Contains(text, "interface=eth0") {
		t.Errorf("logged %s", text)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// Advice comes with AF_XDP only, and only where frames may be unfinished: as a warning
// where they are.
func TestChecksumAdvice(t *testing.T) {
	veth := func(t *testing.T) { newVeth(t, 1500, 1) }
	off := func(t *testing.T) {
		newVeth(t, 1500, 1)
		if out, err := exec.Command("ethtool", "-K", "peer", "tx", "off").CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v: %s", err, out)
		}
	}
	own := func(t *testing.T) { // says nothing about what comes from the other
		newVeth(t, 1500, 1)
		if out, err := exec.Command("ethtool", "-K", "eth0", "tx", "off").CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v: %s", err, out)
		}
	}
	tap := func(t *testing.T) {
		newVeth(t, 1500, 1)
		// Before Linux 6.2 an interface that is up cannot be renamed.
		if err := netlink.LinkSetDown(eth(t, "eth0")); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetName(eth(t, "eth0"), "eth1"); err != nil {
			t.Fatal(err)
		}
		// Whoever holds the descriptors is the VM.
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_ONE_QUEUE | netlink.TUNTAP_VNET_HDR, Queues: 1}
		if err := netlink.LinkAdd(tap); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, fd := range tap.Fds {
				_ = fd.Close()
			}
		})
	}
	bridge := func(t *testing.T) { // neither
		newVeth(t, 1500, 1)
		if err := netlink.LinkDel(eth(t, "eth0")); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name   string
		link   func(*testing.T)
		driver Driver
		mode   afxdp.Mode
		level  string
		want   string
	}{
		{"veth", veth, AFXDP, afxdp.Copy, "WARN", "ethtool -K peer tx off"},
		{"veth, generic", veth, AFXDP, afxdp.Generic, "WARN", "ethtool -K peer tx off"},
		{"veth, AF_PACKET", veth, AFPacket, "", "", ""},
		{"veth, tx off on the other end", off, AFXDP, afxdp.Generic, "", ""},
		{"veth, tx off on this end", own, AFXDP, afxdp.Generic, "WARN", "ethtool -K peer tx off"},
		{"veth, the other end elsewhere", newVethApart, AFXDP, afxdp.Generic, "INFO", "ethtool -K PEER tx off"},
		{"tap", tap, AFXDP, afxdp.Generic, "WARN", "csum=off"},
		{"bridge", bridge, AFXDP, afxdp.Generic, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.link(t)
			var log bytes.Buffer
			n, err := Open(Options{
				Interface: "eth0", Driver: tc.driver, XDPModes: []afxdp.Mode{tc.mode}, Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil {
				t.Error(err)
			}
			lines := strings.Count(log.String(), "\n")
			if tc.want == "" && lines > 0 || tc.want != "" && (lines != 1 || !strings.Contains(log.String(), tc.want) ||
				!strings.Contains(log.String(), "level="+tc.level) || !strings.Contains(log.String(), "unfinished checksums")) {
				t.Errorf("logged %q, want %s %q", log.String(), tc.level, tc.want)
			}
		})
	}
}

// newVethApart is newVeth, with the peer in a network namespace of its own. Another
// interface here has its index.
func newVethApart(t *testing.T) {
	t.Helper()
	there := netns.None()
	t.Cleanup(func() { _ = there.Close() }) // once the veth is gone, which would go with it
	newVeth(t, 1500, 1)
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err = netns.New() // which this thread is in from now on
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	other := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "other", Index: eth(t, "peer").Attrs().Index}}
	if err := netlink.LinkSetNsFd(eth(t, "peer"), int(there)); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(other); err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(there); err != nil {
		t.Fatal(err)
	}
	err = netlink.LinkSetUp(eth(t, "peer"))
	if err := errors.Join(err, netns.Set(here)); err != nil {
		t.Fatal(err)
	}
}

// A veth whose peer sends on more queues has no native XDP, but generic.
func TestTooFewQueuesForNative(t *testing.T) {
	newVeth(t, 1500, 2)
	if out, err := exec.Command("ethtool", "-L", "eth0", "rx", "1").CombinedOutput(); err != nil {
		t.Fatalf("ethtool: %v: %s", err, out)
	}
	n, err := Open(Options{Interface: "eth0", Driver: Auto, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if n.Driver != AFXDP || n.Mode != "generic" || len(n.Reasons) != 2 || !strings.Contains(n.Reasons[1], "ethtool -L PEER tx") {
		t.Errorf("took %s %s; %q", n.Driver, n.Mode, n.Reasons)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
