package peers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
		snat       string
		translated bool // the destination is the backend
		tunnelled  bool
	}{
		{kind: XDPIPIP, tunnelled: true},
		{kind: KernelForward},
		{kind: KernelForward, six: true},
		{kind: NftDNAT, translated: true},
		{kind: NftDNAT, translated: true, six: true},
		{kind: NftDNAT, translated: true, snat: "10.0.0.240/30"},
		{kind: NftDNAT, translated: true, snat: "fd00::f0/126", six: true},
		{kind: NftDNAT, translated: true, snat: "10.0.0.240/32"},
		{kind: NftDSR},
		{kind: NftDSR, six: true},
		{kind: IPVS},
		{kind: IPVS, six: true},
	} {
		name := fmt.Sprintf("%s six=%v snat=%s", test.kind, test.six, test.snat)
		t.Run(name, func(t *testing.T) {
			vip, behind, client := vip4, r.backends4, client4.Addr()
			if test.six {
				vip, behind, client = vip6, r.backends6, client6.Addr()
			}
			opt := Options{Kind: test.kind, Interface: "eth0", VIP: vip, Backends: behind}
			from := netip.PrefixFrom(client, client.BitLen())
			if test.snat != "" {
				opt.SNAT = netip.MustParsePrefix(test.snat)
				from = opt.SNAT
			}
			p, err := Start(r.host, opt)
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
					to, outer := vip, [2]netip.Addr{}
					if test.translated {
						to = netip.AddrPortFrom(behind[i].Addr, vip.Port())
					}
					if test.tunnelled {
						outer = [2]netip.Addr{own4.Addr(), behind[i].Addr}
					}
					if d.dst != behind[i].MAC.String() || d.src != r.hostMAC.String() || d.to != to || d.outer != outer || !from.Contains(d.from.Addr()) || d.badChecksums {
						t.Errorf("at %s %s there is %+v", behind[i].Addr, behind[i].MAC, d)
					}
					if at, ok := where[d.from]; ok && at != i {
						t.Errorf("%s is at two backends", d.from)
					}
					where[d.from], whole[d.payload] = i, true
				}
			}
			if n, ok, err := p.Connections(); err != nil || ok != (test.kind == NftDNAT || test.kind == IPVS) || ok && n < flows {
				t.Errorf("%d connections, %v, %v, want %d at least", n, ok, err, flows)
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
	for _, kind := range []Kind{KernelForward, NftDNAT, NftDSR, IPVS} {
		t.Run(string(kind), func(t *testing.T) {
			p, err := Start(r.host, Options{Kind: kind, Interface: "eth0", Out: "ifb0", VIP: vip4, Backends: r.backends4})
			if kind == IPVS && errors.Is(err, ErrNotSupported) {
				t.Skip(err)
			}
			check(t, err)
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

// Room in the conntrack table is made if there is not enough, and what was there
// is set back. The real table is everybody's on this machine.
func TestConntrack(t *testing.T) {
	for _, test := range []struct {
		max, buckets string // as they are
		want         int
		whileMax     string
		whileBuckets string
	}{
		{"262144\n", "65536\n", 1_000_000, "1000000", "1000000"},
		{"262144\n", "65536\n", 100_000, "262144\n", "100000"},
		{"262144\n", "262144\n", 1, "262144\n", "262144\n"},
	} {
		dir := t.TempDir()
		write := func(name, value string) { check(t, os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600)) }
		expect := func(when, max, buckets string) {
			for name, want := range map[string]string{conntrackMax: max, conntrackBuckets: buckets} {
				if got := must(os.ReadFile(filepath.Join(dir, name)))(t); strings.TrimSpace(string(got)) != strings.TrimSpace(want) {
					t.Errorf("%+v: %s, %s is %q, want %q", test, when, name, got, want)
				}
			}
		}
		write(conntrackMax, test.max)
		write(conntrackBuckets, test.buckets)
		p := Peer{opt: Options{Kind: NftDNAT, Conntrack: test.want}}
		check(t, p.sizeTable(dir))
		expect("while it is there", test.whileMax, test.whileBuckets)
		check(t, p.Close())
		expect("afterwards", test.max, test.buckets)
	}
	if err := (&Peer{opt: Options{Conntrack: 1}}).sizeTable(t.TempDir()); err == nil {
		t.Error("a table that is not there has been made larger")
	}
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
		"source of IPv6":      func(o *Options) { o.Kind, o.SNAT = NftDNAT, netip.MustParsePrefix("fd00::/64") },
		"stateless source":    func(o *Options) { o.SNAT = netip.MustParsePrefix("10.0.0.240/30") },
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

func TestIPVSConnections(t *testing.T) {
	const headings = "       Total Incoming Outgoing         Incoming         Outgoing\n" +
		"CPU    Conns  Packets  Packets            Bytes            Bytes\n"
	for text, want := range map[string]int{
		headings + "  0      1A4      2BC        0             BB80                0\n" +
			"  1        3        3        0               5D                0\n" +
			"  ~        0        0        0                0                0\n\n" +
			"     Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n" +
			"           0        0        0                0                0\n": 0x1a7,
		headings:                             0,
		"":                                   -1,
		"a\nb\nc":                            -1,
		headings + "  0     many        0\n": -1,
	} {
		if n, err := parseIPVSConnections(text); (err != nil) != (want < 0) || err == nil && n != want {
			t.Errorf("%q: %d, %v", text, n, err)
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
