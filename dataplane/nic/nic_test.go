package nic

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"weir/dataplane/afxdp"
	"weir/dataplane/steer"
	"weir/dataplane/xdplink"
	"weir/lab/labtest"
)

// newVeth puts the test's thread into a new network namespace with a veth pair
// in it, one end of which is called eth0. Both end with the test.
func newVeth(t *testing.T, mtu, queues int) {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.NumRxQueues, attrs.NumTxQueues = "eth0", mtu, queues, queues
	err = netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "peer", PeerMTU: uint32(mtu),
		PeerNumRxQueues: uint32(queues), PeerNumTxQueues: uint32(queues),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "peer"} {
		if err := netlink.LinkSetUp(eth(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = netlink.LinkDel(eth(t, "eth0")) })
}

func eth(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// allMulticast counts who asked the NIC to take in all multicast frames. The flag
// that netlink.LinkAttrs has is what an administrator asked for.
func allMulticast(t *testing.T) int {
	t.Helper()
	out, err := exec.Command("ip", "-d", "-json", "link", "show", "dev", "eth0").Output()
	if err != nil {
		t.Fatalf("ip link show: %v", err)
	}
	var links []struct{ Allmulti int }
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		t.Fatalf("ip link show: %v: %s", err, out)
	}
	return links[0].Allmulti
}

// untouched checks that nothing of weir's is on the interface.
func untouched(t *testing.T) {
	t.Helper()
	attrs := eth(t, "eth0").Attrs()
	if err := xdplink.Foreign(attrs.Index); err != nil {
		t.Errorf("left behind: %v", err)
	}
	if allMulticast(t) != 0 {
		t.Error("all multicast is still received")
	}
	tcx, err := link.QueryPrograms(link.QueryOptions{Target: attrs.Index, Attach: ebpf.AttachTCXIngress})
	if err == nil && len(tcx.Programs) > 0 {
		t.Errorf("%d tc programs are left behind", len(tcx.Programs))
	}
}

func TestDriverChoice(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mtu     int
		nic     int // queues of the NIC
		opt     Options
		driver  Driver
		mode    string
		queues  int
		reasons []string // one after the other; each contains this
	}{
		{
			name: "auto takes the best there is", mtu: 1500, nic: 1, opt: Options{Driver: Auto},
			driver: AFXDP, mode: "copy", queues: 1, reasons: []string{"afxdp zero-copy: "},
		},
		{
			name: "all queues", mtu: 1500, nic: 2, opt: Options{Driver: AFXDP},
			driver: AFXDP, mode: "copy", queues: 2, reasons: []string{"afxdp zero-copy: "},
		},
		{
			name: "one mode only", mtu: 1500, nic: 1, opt: Options{Driver: AFXDP, XDPModes: []afxdp.Mode{afxdp.Generic}},
			driver: AFXDP, mode: "generic", queues: 1,
		},
		{
			name: "auto with a mode that does not work", mtu: 1500, nic: 1,
			opt:    Options{Driver: Auto, XDPModes: []afxdp.Mode{afxdp.ZeroCopy}},
			driver: AFPacket, queues: 1, reasons: []string{"zero-copy: "},
		},
		{
			name: "an MTU too large for AF_XDP", mtu: 9000, nic: 1, opt: Options{Driver: Auto},
			driver: AFPacket, queues: 1, reasons: []string{"MTU of 9000 does not fit"},
		},
		{
			name: "fewer queues than the NIC has", mtu: 1500, nic: 3, opt: Options{Driver: Auto, Queues: 2},
			driver: AFPacket, queues: 2, reasons: []string{"2 queues are configured and the interface has 3"},
		},
		{
			name: "AF_PACKET by choice", mtu: 1500, nic: 3, opt: Options{Driver: AFPacket},
			driver: AFPacket, queues: 3,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newVeth(t, tc.mtu, tc.nic)
			tc.opt.Interface, tc.opt.Log = "eth0", slog.New(slog.DiscardHandler)
			n, err := Open(tc.opt)
			if err != nil {
				t.Fatal(err)
			}
			if n.Driver != tc.driver || n.Mode != tc.mode || len(n.Queues) != tc.queues {
				t.Errorf("took %s %q with %d queues, want %s %q with %d", n.Driver, n.Mode, len(n.Queues), tc.driver, tc.mode, tc.queues)
			}
			if len(n.Reasons) != len(tc.reasons) {
				t.Errorf("reasons %q", n.Reasons)
			}
			for i, want := range tc.reasons {
				if i < len(n.Reasons) && (!strings.Contains(n.Reasons[i], want) || strings.Contains(n.Reasons[i], "\n")) {
					t.Errorf("reason %d is %q, want %q in it, on one line", i, n.Reasons[i], want)
				}
			}
			if n := allMulticast(t); n != 1 {
				t.Errorf("all multicast frames, neighbour solicitations among them, were asked for %d times, want once", n)
			}
			for _, err := range []error{
				n.Steer(steer.Set{VIPs: []netip.Addr{netip.MustParseAddr("203.0.113.10")}}), n.Beat(),
				n.SetMAC(eth(t, "peer").Attrs().HardwareAddr),
				n.Close(), n.Close(),
			} {
				if err != nil {
					t.Error(err)
				}
			}
			untouched(t)
		})
	}
}

func TestOpenErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		mtu  int
		opt  Options
		want []string
	}{
		{"no such interface", 1500, Options{Interface: "eth9", Driver: Auto}, []string{"open interface eth9", "no such network interface"}},
		{"not Ethernet", 1500, Options{Interface: "lo", Driver: Auto}, []string{"open interface lo", "not an Ethernet"}},
		{
			"AF_XDP or nothing", 9000, Options{Interface: "eth0", Driver: AFXDP},
			[]string{"open interface eth0", "MTU of 9000 does not fit a packet buffer", "set it to 3822 or less, or use another driver"},
		},
		{
			"other number of queues", 1500, Options{Interface: "eth0", Driver: AFXDP, Queues: 4},
			[]string{"4 queues are configured and the interface has 1", "`queues: all`", "ethtool -L eth0 combined 4"},
		},
		{
			"a mode that does not work", 1500, Options{Interface: "eth0", Driver: AFXDP, XDPModes: []afxdp.Mode{afxdp.ZeroCopy}},
			[]string{"zero-copy: ", "no zero-copy"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			newVeth(t, tc.mtu, 1)
			tc.opt.Log = slog.New(slog.DiscardHandler)
			n, err := Open(tc.opt)
			if err == nil {
				t.Fatalf("opened %+v", n)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in the error: %v", want, err)
				}
			}
			untouched(t)
		})
	}
}
