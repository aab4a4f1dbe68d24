package xdplink

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// newNIC puts the test's thread into a network namespace of its own, which has
// no name and is gone with the thread, and returns the index of a veth in it.
func newNIC(t *testing.T) int {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	nic := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "nic0"}, PeerName: "peer0"}
	if err := netlink.LinkAdd(nic); err != nil {
		t.Fatalf("add veth: %v", err)
	}
	got, err := netlink.LinkByName("nic0")
	if err != nil {
		t.Fatal(err)
	}
	return got.Attrs().Index
}

func passProgram(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         name,
		Type:         ebpf.XDP,
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatalf("load program: %v", err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func programID(t *testing.T, prog *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

// A second program is refused in either mode, whatever the mode of the first,
// and the first stays.
func TestAttachRefusesToReplaceALink(t *testing.T) {
	for _, first := range []Mode{Native, Generic} {
		for _, second := range []Mode{Native, Generic} {
			t.Run(first.String()+" then "+second.String(), func(t *testing.T) {
				nic := newNIC(t)
				if err := Foreign(nic); err != nil {
					t.Fatalf("on a bare NIC: %v", err)
				}
				theirs, ours := passProgram(t, "firewall"), passProgram(t, "weir")
				held, err := Attach(theirs, nic, first)
				if err != nil {
					t.Fatal(err)
				}
				defer held.Close()
				info, err := held.Info()
				if err != nil {
					t.Fatal(err)
				}

				l, err := Attach(ours, nic, second)
				if err == nil {
					l.Close()
					t.Fatal("attached over somebody else's program")
				}
				var foreign *ForeignProgramError
				if !errors.As(err, &foreign) {
					t.Fatalf("got %v, want a ForeignProgramError", err)
				}
				comm, err := os.ReadFile("/proc/self/comm")
				if err != nil {
					t.Fatal(err)
				}
				want := ForeignProgramError{
					Interface: "nic0", Name: "firewall", ID: programID(t, theirs), Mode: first,
					Link: info.ID, PID: os.Getpid(), Process: strings.TrimSpace(string(comm)),
				}
				if *foreign != want {
					t.Errorf("got  %+v\nwant %+v", *foreign, want)
				}
				var again *ForeignProgramError
				if !errors.As(Foreign(nic), &again) || *again != want {
					t.Errorf("the first program is not in place any more: %v", again)
				}

				held.Close()
				l, err = Attach(ours, nic, second)
				if err != nil {
					t.Fatalf("after the other program was gone: %v", err)
				}
				l.Close()
				if err := Foreign(nic); err != nil {
					t.Errorf("after the link was closed: %v", err)
				}
			})
		}
	}
}

func TestAttachRefusesToReplaceANetlinkProgram(t *testing.T) {
	for mode, flag := range map[Mode]int{Native: 1 << 2, Generic: 1 << 1} { // XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
		t.Run(mode.String(), func(t *testing.T) {
			nic := newNIC(t)
			theirs, ours := passProgram(t, "firewall"), passProgram(t, "weir")
			dev, err := netlink.LinkByIndex(nic)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetXdpFdWithFlags(dev, theirs.FD(), flag); err != nil {
				t.Fatal(err)
			}
			_, err = Attach(ours, nic, mode)
			var foreign *ForeignProgramError
			if !errors.As(err, &foreign) {
				t.Fatalf("got %v, want a ForeignProgramError", err)
			}
			want := ForeignProgramError{Interface: "nic0", Name: "firewall", ID: programID(t, theirs), Mode: mode}
			if *foreign != want {
				t.Errorf("got  %+v\nwant %+v", *foreign, want)
			}
		})
	}
}

// What the text says to do is done, and must have the effect.
func TestAdviceWorks(t *testing.T) {
	advice := regexp.MustCompile(`"((?:ip|bpftool) [^"]*)"`)
	attach := map[string]func(*testing.T, *ebpf.Program, int){
		"link native":     func(t *testing.T, p *ebpf.Program, nic int) { attachLink(t, p, nic, Native) },
		"link generic":    func(t *testing.T, p *ebpf.Program, nic int) { attachLink(t, p, nic, Generic) },
		"netlink native":  func(t *testing.T, p *ebpf.Program, nic int) { attachNetlink(t, p, nic, 1<<2) },
		"netlink generic": func(t *testing.T, p *ebpf.Program, nic int) { attachNetlink(t, p, nic, 1<<1) },
	}
	for name, attach := range attach {
		t.Run(name, func(t *testing.T) {
			nic := newNIC(t)
			attach(t, passProgram(t, "firewall"), nic)
			err := Foreign(nic)
			if err == nil {
				t.Fatal("program not seen")
			}
			t.Log(err)
			match := advice.FindStringSubmatch(err.Error())
			if match == nil {
				t.Fatalf("no command in %q", err)
			}
			words := strings.Fields(match[1])
			if _, err := exec.LookPath(words[0]); err != nil {
				t.Skipf("no %s on this machine", words[0])
			}
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", match[1], err, out)
			}
			if err := Foreign(nic); err != nil {
				t.Errorf("after %s: %v", match[1], err)
			}
		})
	}
}

func attachLink(t *testing.T, prog *ebpf.Program, nic int, mode Mode) {
	l, err := Attach(prog, nic, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}

func attachNetlink(t *testing.T, prog *ebpf.Program, nic, flag int) {
	dev, err := netlink.LinkByIndex(nic)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetXdpFdWithFlags(dev, prog.FD(), flag); err != nil {
		t.Fatal(err)
	}
}

// The loopback device has no native XDP.
func TestAttachSaysThatNativeIsNotThere(t *testing.T) {
	newNIC(t)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	prog := passProgram(t, "weir")
	if _, err := Attach(prog, lo.Attrs().Index, Native); !errors.Is(err, ErrMode) {
		t.Errorf("native on lo: got %v, want ErrMode", err)
	}
	l, err := Attach(prog, lo.Attrs().Index, Generic)
	if err != nil {
		t.Fatalf("generic on lo: %v", err)
	}
	l.Close()
	if _, err := Attach(prog, lo.Attrs().Index, Offload); err == nil {
		t.Error("offload: no error")
	}
}

// A veth takes no native program while its peer can send on more queues than it
// can receive on. Either cure in the text has the effect.
func TestTooFewQueues(t *testing.T) {
	for _, cure := range []string{"ethtool -L PEER tx N", "ethtool -L nic1 rx N"} {
		t.Run(cure, func(t *testing.T) {
			newNIC(t)
			err := netlink.LinkAdd(&netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: "nic1", NumRxQueues: 2, NumTxQueues: 2},
				PeerName:  "peer1", PeerNumRxQueues: 2, PeerNumTxQueues: 2,
			})
			if err != nil {
				t.Fatal(err)
			}
			nic, err := netlink.LinkByName("nic1")
			if err != nil {
				t.Fatal(err)
			}
			ethtool := func(args string) {
				t.Helper()
				if out, err := exec.Command("ethtool", strings.Fields(args)...).CombinedOutput(); err != nil {
					t.Fatalf("ethtool %s: %v: %s", args, err, out)
				}
			}
			ethtool("-L nic1 rx 1")

			prog := passProgram(t, "weir")
			_, err = Attach(prog, nic.Attrs().Index, Native)
			if !errors.Is(err, ErrMode) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), cure) {
				t.Fatalf("got %v, want ErrMode and %q", err, cure)
			}
			l, err := Attach(prog, nic.Attrs().Index, Generic)
			if err != nil {
				t.Fatalf("generic: %v", err)
			}
			l.Close()

			n := "2"
			if strings.Contains(cure, "PEER") {
				n = "1"
			}
			args := strings.TrimPrefix(strings.NewReplacer("PEER", "peer1", "N", n).Replace(cure), "ethtool ")
			ethtool(args)
			if l, err = Attach(prog, nic.Attrs().Index, Native); err != nil {
				t.Fatalf("after ethtool %s: %v", args, err)
			}
			l.Close()
		})
	}
}

func TestNoSuchInterface(t *testing.T) {
	newNIC(t)
	err := Foreign(9999)
	var foreign *ForeignProgramError
	if err == nil || errors.As(err, &foreign) {
		t.Errorf("Foreign: got %v", err)
	}
	if _, err := Attach(passProgram(t, "weir"), 9999, Native); err == nil || errors.Is(err, ErrMode) {
		t.Errorf("Attach: got %v", err)
	}
}

func TestErrorText(t *testing.T) {
	base := ForeignProgramError{Interface: "eth1", Name: "firewall", ID: 17, Mode: Native}
	held, pinned, nameless, several := base, base, base, base
	held.Link, held.PID, held.Process = 5, 812, "fwd"
	pinned.Link = 5
	nameless.Name, nameless.Mode = "", Offload
	several.ID, several.Mode = 0, 0
	for want, e := range map[string]ForeignProgramError{
		`interface eth1 already has an XDP program: "firewall", id 17, native mode; detach it with "ip link set dev eth1 xdpdrv off"`: base,
		`interface eth1 already has an XDP program: "firewall", id 17, native mode, held by bpf_link 5 of process 812 (fwd); ` +
			`stop that process, or detach with "bpftool link detach id 5"`: held,
		`interface eth1 already has an XDP program: "firewall", id 17, native mode, held by bpf_link 5 ` +
			`(pinned, or of a process not to be seen from here); detach it with "bpftool link detach id 5"`: pinned,
		`interface eth1 already has an XDP program: id 17, offload mode; detach it with "ip link set dev eth1 xdpoffload off"`: nameless,
		`interface eth1 already has several XDP programs: see "ip -d link show dev eth1", detach them first`:                   several,
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestLinkID(t *testing.T) {
	for fdinfo, want := range map[string]link.ID{
		"pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t42\nprog_id:\t7\nifindex:\t2\n": 42,
		"pos:\t0\nprog_type:\t6\nprog_id:\t7\n":                                                0,
		"link_id:\tx\n":                                                                        0,
		"":                                                                                     0,
	} {
		if got := linkID([]byte(fdinfo)); got != want {
			t.Errorf("%q: got %d, want %d", fdinfo, got, want)
		}
	}
}

func FuzzLinkID(f *testing.F) {
	f.Add([]byte("link_type:\txdp\nlink_id:\t42\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := linkID(b); id != 0 && !strings.Contains(string(b), "link_id:") {
			t.Errorf("id %d out of nothing", id)
		}
	})
}
