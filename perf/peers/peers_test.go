package peers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Every kind brings real datagrams to all backends, each flow to one, whole and
// with the MAC address and destination that they are to have, and nothing of it
// is left when it is closed.
func TestForwards(t *testing.T) {
	const flows, backends = 64, 3
	r := newRig(t, backends)
	clean := r.state(t)
	for _, test := range []struct {
		kind       Kind
		six        bool
		masquerade bool
		translated bool // the destination is the backend
		tunnelled  bool
	}{
		{kind: XDPIPIP, tunnelled: true},
		{kind: KernelForward},
		{kind: KernelForward, six: true},
		{kind: NftDNAT, translated: true},
		{kind: NftDNAT, translated: true, six: true},
		{kind: NftDNAT, translated: true, masquerade: true},
		{kind: NftDSR},
		{kind: NftDSR, six: true},
		{kind: IPVS},
	} {
		name := fmt.Sprintf("%s six=%v masquerade=%v", test.kind, test.six, test.masquerade)
		t.Run(name, func(t *testing.T) {
			vip, behind, client, own := vip4, r.backends4, client4.Addr(), own4.Addr()
			if test.six {
				vip, behind, client, own = vip6, r.backends6, client6.Addr(), own6.Addr()
			}
			p, err := Start(r.host, Options{Kind: test.kind, Interface: "eth0", VIP: vip, Backends: behind, Masquerade: test.masquerade})
			if test.kind == IPVS && errors.Is(err, ErrNotSupported) {
				if state := r.state(t); state != clean {
					t.Errorf("what could not be set up has left something:\n%s", differ(clean, state))
				}
				if !strings.Contains(err.Error(), "CONFIG_IP_VS") {
					t.Errorf("the error does not say what is missing: %v", err)
				}
				t.Skip(err)
			}
			check(t, err)
			r.send(t, vip, name, flows)
			arrived := await(t, r.atBackends, name, 2*flows)
			where, whole := make(map[netip.AddrPort]int), make(map[string]bool)
			for i, datagrams := range arrived {
				if len(datagrams) == 0 {
					t.Errorf("no datagram at %s", behind[i].Addr)
				}
				for _, d := range datagrams {
					to, from, outer := vip, client, netip.Addr{}
					if test.translated {
						to = netip.AddrPortFrom(behind[i].Addr, vip.Port())
					}
					if test.masquerade {
						from = own
					}
					if test.tunnelled {
						outer = behind[i].Addr
					}
					if d.dst != behind[i].MAC.String() || d.src != r.hostMAC.String() || d.to != to || d.outer != outer || d.from.Addr() != from || d.badChecksums {
						t.Errorf("at %s %s there is %+v", behind[i].Addr, behind[i].MAC, d)
					}
					if at, ok := where[d.from]; ok && at != i {
						t.Errorf("%s is at two backends", d.from)
					}
					where[d.from], whole[d.payload] = i, true
				}
			}
			if len(where) != flows || len(whole) != 2*flows {
				t.Errorf("%d flows with %d different datagrams, want %d and %d", len(where), len(whole), flows, 2*flows)
			}
			for range 2 {
				check(t, p.Close())
			}
			if state := r.state(t); state != clean {
				t.Errorf("left behind:\n%s", differ(clean, state))
			}
		})
	}
}

// The program that only sends back swaps MAC addresses and changes nothing else.
func TestSendsBack(t *testing.T) {
	const flows = 8
	r := newRig(t, 0)
	clean := r.state(t)
	for _, vip := range []netip.AddrPort{vip4, vip6} {
		p := must(Start(r.host, Options{Kind: XDPTX, Interface: "eth0"}))(t)
		r.send(t, vip, vip.String(), flows)
		back := 0
		for _, d := range await(t, []int{r.atClient}, vip.String(), 4*flows)[0] { // those it sends as well
			if d.to != vip || d.badChecksums {
				t.Errorf("%+v", d)
			}
			if d.dst == r.clientMAC.String() && d.src == r.hostMAC.String() {
				back++
			}
		}
		if back != 2*flows {
			t.Errorf("%d datagrams came back, want %d", back, 2*flows)
		}
		for range 2 {
			check(t, p.Close())
		}
		if state := r.state(t); state != clean {
			t.Errorf("left behind:\n%s", differ(clean, state))
		}
	}
}

// An ifb takes all that the kernel forwards, so what is behind a peer costs
// nothing.
func TestToIFB(t *testing.T) {
	const flows = 8
	r := newRig(t, 2)
	check(t, r.host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "ifb0"
		ifb := &netlink.Ifb{LinkAttrs: attrs}
		return errors.Join(netlink.LinkAdd(ifb), netlink.LinkSetUp(ifb))
	}))
	taken := func() (n uint64) {
		check(t, r.host.Do(func() error {
			ifb, err := netlink.LinkByName("ifb0")
			if err == nil {
				n = ifb.Attrs().Statistics.RxPackets
			}
			return err
		}))
		return n
	}
	for _, kind := range []Kind{KernelForward, NftDNAT, NftDSR} {
		t.Run(string(kind), func(t *testing.T) {
			p := must(Start(r.host, Options{Kind: kind, Interface: "eth0", Out: "ifb0", VIP: vip4, Backends: r.backends4}))(t)
			before := taken()
			r.send(t, vip4, string(kind), flows)
			for deadline := time.Now().Add(10 * time.Second); taken() < before+2*flows && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			check(t, p.Close())
			if n := taken() - before; n != 2*flows {
				t.Errorf("%d frames, want %d", n, 2*flows)
			}
		})
	}
	for _, kind := range []Kind{XDPTX, XDPIPIP} {
		if _, err := Start(r.host, Options{Kind: kind, Interface: "eth0", Out: "ifb0", VIP: vip4, Backends: r.backends4}); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s to another interface: %v", kind, err)
		}
	}
}

// Room in the conntrack table is made for one peer, and given back.
func TestConntrack(t *testing.T) {
	r := newRig(t, 1)
	size := func() [2]int {
		var s [2]int
		for i, path := range []string{conntrackMax, conntrackBuckets} {
			b, err := os.ReadFile(path)
			check(t, err)
			s[i] = must(strconv.Atoi(strings.TrimSpace(string(b))))(t)
		}
		return s
	}
	before := size()
	opt := Options{Kind: NftDNAT, Interface: "eth0", VIP: vip4, Backends: r.backends4, Conntrack: max(before[0], before[1]) + 1024}
	p := must(Start(r.host, opt))(t)
	if s := size(); s[0] != opt.Conntrack || s[1] < opt.Conntrack {
		t.Errorf("limit and buckets are %d, want %d", s, opt.Conntrack)
	}
	check(t, p.Close())
	if s := size(); s != before {
		t.Errorf("limit and buckets are %d, were %d", s, before)
	}
	opt.Conntrack = 1
	p = must(Start(r.host, opt))(t)
	if s := size(); s != before {
		t.Errorf("limit and buckets are %d, were %d, and that was enough", s, before)
	}
	check(t, p.Close())
}

func TestOptions(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	four, six := Backend{netip.MustParseAddr("10.0.0.11"), mac}, Backend{netip.MustParseAddr("fd00::11"), mac}
	good := Options{Kind: NftDSR, Interface: "eth0", VIP: vip4, Backends: []Backend{four}}
	if err := good.complete(); err != nil || good.Out != "eth0" {
		t.Errorf("%+v: %v", good, err)
	}
	for name, change := range map[string]func(*Options){
		"no kind":             func(o *Options) { o.Kind = "" },
		"no interface":        func(o *Options) { o.Interface = "" },
		"no vip":              func(o *Options) { o.VIP = netip.AddrPort{} },
		"no port":             func(o *Options) { o.VIP = netip.AddrPortFrom(vip4.Addr(), 0) },
		"no backend":          func(o *Options) { o.Backends = nil },
		"too many":            func(o *Options) { o.Backends = make([]Backend, MaxBackends+1) },
		"other IP version":    func(o *Options) { o.Backends = []Backend{four, six} },
		"no MAC":              func(o *Options) { o.Backends = []Backend{{Addr: four.Addr}} },
		"IPv6 in a tunnel":    func(o *Options) { o.Kind, o.VIP, o.Backends = XDPIPIP, vip6, []Backend{six} },
		"stateless conntrack": func(o *Options) { o.Conntrack = 1000 },
		"stateless source":    func(o *Options) { o.Masquerade = true },
	} {
		t.Run(name, func(t *testing.T) {
			opt := good
			change(&opt)
			if err := opt.complete(); err == nil {
				t.Errorf("accepted: %+v", opt)
			}
		})
	}
}

// What is wrong with an interface's name is said, and nothing is left.
func TestNoSuchInterface(t *testing.T) {
	r := newRig(t, 1)
	clean := r.state(t)
	for _, kind := range Kinds() {
		_, err := Start(r.host, Options{Kind: kind, Interface: "eth7", VIP: vip4, Backends: r.backends4})
		if err == nil {
			t.Errorf("%s works on an interface that is not there", kind)
		}
		if state := r.state(t); state != clean {
			t.Errorf("%s has left behind:\n%s", kind, differ(clean, state))
		}
	}
}

// The rules for ipvsadm, as its manual has them.
func TestIPVSRules(t *testing.T) {
	for _, test := range []struct {
		vip         netip.AddrPort
		backends    []string
		add, remove string
	}{
		{
			vip4, []string{"10.0.0.11", "10.0.0.12"},
			"-A -t 203.0.113.10:9 -s rr\n-a -t 203.0.113.10:9 -r 10.0.0.11:9 -g\n-a -t 203.0.113.10:9 -r 10.0.0.12:9 -g\n" +
				"-A -u 203.0.113.10:9 -s rr\n-a -u 203.0.113.10:9 -r 10.0.0.11:9 -g\n-a -u 203.0.113.10:9 -r 10.0.0.12:9 -g\n",
			"-D -t 203.0.113.10:9\n-D -u 203.0.113.10:9\n",
		},
		{
			vip6, []string{"fd00::11"},
			"-A -t [2001:db8::10]:9 -s rr\n-a -t [2001:db8::10]:9 -r [fd00::11]:9 -g\n" +
				"-A -u [2001:db8::10]:9 -s rr\n-a -u [2001:db8::10]:9 -r [fd00::11]:9 -g\n",
			"-D -t [2001:db8::10]:9\n-D -u [2001:db8::10]:9\n",
		},
	} {
		p := Peer{opt: Options{VIP: test.vip}}
		for _, b := range test.backends {
			p.opt.Backends = append(p.opt.Backends, Backend{Addr: netip.MustParseAddr(b)})
		}
		if add, remove := p.ipvsRules(); add != test.add || remove != test.remove {
			t.Errorf("\n%s%s, want\n%s%s", add, remove, test.add, test.remove)
		}
	}
}

// Who has not got a program is told where it is from.
func TestMissingProgram(t *testing.T) {
	if path, err := program("sh", "dash"); err != nil || !strings.HasSuffix(path, "/sh") {
		t.Errorf("%q, %v", path, err)
	}
	if _, err := program("weir-is-not-there", "weir-tools"); err == nil || !strings.Contains(err.Error(), "weir-tools") {
		t.Errorf("%v", err)
	}
}

// A program that is run has done what it is to do, again and again: otherwise
// there is an error.
func TestRunTime(t *testing.T) {
	newRig(t, 0) // needs root
	for _, kind := range Kinds() {
		each, err := RunTime(kind)
		if kind.Place() != Driver {
			if !errors.Is(err, ErrNotSupported) {
				t.Errorf("%s: %v", kind, err)
			}
			continue
		}
		check(t, err)
		if each <= 0 {
			t.Errorf("%s takes %v", kind, each)
		}
		t.Logf("%s takes %v", kind, each)
	}
}
