package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

func newLab(t *testing.T, name string) *netlab.Lab {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func newHost(t *testing.T, lab *netlab.Lab, name string) *netlab.Host {
	t.Helper()
	h, err := lab.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// connect gives each host an address on one switch, .1 for the first.
func connect(t *testing.T, lab *netlab.Lab, hosts ...*netlab.Host) {
	t.Helper()
	net, err := lab.Switch("net")
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hosts {
		_, err := h.Connect(net, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd00::%d/64", i+1)),
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func startFRR(t *testing.T, h *netlab.Host, text string) *FRR {
	t.Helper()
	f, err := StartFRR(t.Context(), h, FRRConfig{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("frr on %s:\n%s", h.Name(), f.Log())
		}
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func startBIRD(t *testing.T, h *netlab.Host, text string) *BIRD {
	t.Helper()
	b, err := StartBIRD(t.Context(), h, text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("bird on %s:\n%s", h.Name(), b.Log())
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

const frrText = `
router bgp 65000
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 timers bgp 1 3
 neighbor 10.0.0.2 remote-as 65001
 neighbor 10.0.0.2 timers connect 1
 neighbor 10.0.0.3 remote-as 65002
 neighbor 10.0.0.3 timers connect 1
 neighbor fd00::2 remote-as 65001
 neighbor fd00::2 timers connect 1
 address-family ipv4 unicast
  maximum-paths 4
  no neighbor fd00::2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor fd00::2 activate
 exit-address-family
exit
!
`

// birdText announces 203.0.113.0/24 and a route of its own, and, to a neighbour
// by IPv6, 2001:db8::/48.
func birdText(number int) string {
	return fmt.Sprintf(`
router id 10.0.0.%[1]d;
protocol device {}
protocol static { ipv4; route 203.0.113.0/24 blackhole; route 198.51.100.%[1]d/32 blackhole; }
protocol static { ipv6; route 2001:db8::/48 blackhole; }
template bgp frr {
	local as %[2]d;
	hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 2;
	graceful restart on;
}
protocol bgp four from frr {
	neighbor 10.0.0.1 as 65000;
	ipv4 { import all; export all; next hop self; };
}
protocol bgp six from frr {
	neighbor fd00::1 as 65000;
	ipv6 { import all; export all; next hop self; };
}
`, number, 64999+number)
}

// TestPeers has an FRR and two BIRDs speak to each other: the route of both is
// in the kernel with two next hops, over which flows are spread, and outlives
// bgpd.
func TestPeers(t *testing.T) {
	ctx := t.Context()
	lab := newLab(t, "peers")
	router, one, two := newHost(t, lab, "router"), newHost(t, lab, "one"), newHost(t, lab, "two")
	connect(t, lab, router, one, two)
	if err := router.Forward(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bird := startBIRD(t, one, birdText(2))
	startBIRD(t, two, birdText(3))
	frr := startFRR(t, router, frrText)
	t.Logf("started after %v", time.Since(began))

	both := netip.MustParsePrefix("203.0.113.0/24")
	via1, via2 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	six := netip.MustParsePrefix("2001:db8::/48")
	if err := errors.Join(AwaitHops(ctx, router, both, via1, via2), AwaitHops(ctx, router, six, linkLocal(t, one))); err != nil {
		t.Fatal(err)
	}
	t.Logf("two next hops after %v", time.Since(began))
	wantSpread(t, router, 2)
	paths, err := frr.Paths(ctx, both.String())
	if err != nil || len(paths) != 2 || !paths[0].Multipath || !paths[1].Multipath {
		t.Errorf("paths are %+v (%v), want two that are both used", paths, err)
	}
	if p, err := frr.Peer(ctx, "10.0.0.2"); err != nil || p.State != "Established" || p.RemoteAS != 65001 {
		t.Errorf("peer is %+v (%v)", p, err)
	}
	if out, err := bird.Query(ctx, "show protocols four"); err != nil || !strings.Contains(out, "Established") {
		t.Errorf("bird says %q (%v)", out, err)
	}

	// A neighbour that is gone for good.
	if err := bird.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(AwaitHops(ctx, router, both, via2), AwaitHops(ctx, router, six)); err != nil {
		t.Fatal(err)
	}
	wantSpread(t, router, 1)

	// And the daemon, which comes back.
	if err := frr.KillBGP(); err != nil {
		t.Fatal(err)
	}
	if hops, err := Hops(router, both); err != nil || len(hops) != 1 {
		t.Errorf("without bgpd the kernel has %v (%v), want the next hop as before", hops, err)
	}
	if err := frr.StartBGP(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if hops, err := Hops(router, both); err != nil || len(hops) != 1 {
			t.Fatalf("until the session is up the kernel has %v (%v)", hops, err)
		}
		paths, err := frr.Paths(ctx, both.String())
		if err == nil && (len(paths) != 1 || !paths[0].Best) {
			err = fmt.Errorf("paths are %+v", paths)
		}
		return err
	})
}

// linkLocal returns the address that BIRD gives as next hop beside the global
// one, and FRR uses.
func linkLocal(t *testing.T, h *netlab.Host) (addr netip.Addr) {
	t.Helper()
	err := h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all, err := netlink.AddrList(link, netlink.FAMILY_V6)
		for _, a := range all {
			if a.IP.IsLinkLocalUnicast() {
				addr, _ = netip.AddrFromSlice(a.IP)
			}
		}
		return err
	})
	if err != nil || !addr.IsValid() {
		t.Fatalf("link-local address of %s: %v, %v", h.Name(), addr, err)
	}
	return addr
}

// wantSpread asks the kernel where it would send flows that differ in a port.
func wantSpread(t *testing.T, h *netlab.Host, want int) {
	t.Helper()
	ways := make(map[string]bool)
	for port := 10000; port < 10064; port++ {
		out, err := h.Run(t.Context(), "ip", "route", "get", "203.0.113.7", "ipproto", "tcp", "sport", fmt.Sprint(port), "dport", "80")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(out, " via ")
		via, _, _ := strings.Cut(rest, " ")
		ways[via] = true
	}
	if len(ways) != want || ways[""] {
		t.Errorf("flows go by %v, want %d ways", ways, want)
	}
}

func await(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(pollInterval):
		}
	}
}

// TestMD5 changes one side's password while both run.
func TestMD5(t *testing.T) {
	ctx := t.Context()
	lab := newLab(t, "md5")
	a, b := newHost(t, lab, "a"), newHost(t, lab, "b")
	connect(t, lab, a, b)
	text := func(as, peer int) string {
		return fmt.Sprintf("router bgp %d\n no bgp ebgp-requires-policy\n timers bgp 1 3\n neighbor 10.0.0.%[2]d remote-as external\n"+
			" neighbor 10.0.0.%[2]d password one\n neighbor 10.0.0.%[2]d timers connect 1\n", as, peer)
	}
	first := startFRR(t, a, text(65000, 2))
	startFRR(t, b, text(65001, 1))
	established := func() error {
		p, err := first.Peer(ctx, "10.0.0.2")
		if err == nil && p.State != "Established" {
			err = fmt.Errorf("session is %s", p.State)
		}
		return err
	}
	await(t, established)
	if err := first.Configure(ctx, "router bgp 65000", "neighbor 10.0.0.2 password two"); err != nil {
		t.Fatal(err)
	}
	await(t, func() error {
		if established() == nil {
			return errors.New("the session is still up")
		}
		return nil
	})
	if err := first.Configure(ctx, "router bgp 65000", "neighbor 10.0.0.2 password one"); err != nil {
		t.Fatal(err)
	}
	await(t, established)
}

// TestMistakes checks that a daemon that does not understand its configuration,
// or a command, is an error that says so.
func TestMistakes(t *testing.T) {
	lab := newLab(t, "mistakes")
	h := newHost(t, lab, "h")
	for name, text := range map[string]string{
		"unknown":   "router bgp 65000\n no such thing\n",
		"outside":   "nosuch thing\n",
		"zebra":     "interface eth0\n no such thing\n",
		"integrate": "service integrated-vtysh-config\n",
	} {
		if f, err := StartFRR(t.Context(), h, FRRConfig{Text: text}); err == nil {
			t.Errorf("%s: frr runs with %q; it says:\n%s", name, text, f.Log())
			_ = f.Stop()
		} else {
			t.Log(err)
		}
	}
	if _, err := StartBIRD(t.Context(), h, "protocol nosuch {}"); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("bird: %v, want a syntax error", err)
	}
	f := startFRR(t, h, "router bgp 65000\n")
	if out, err := f.Query(t.Context(), "show nosuch thing"); err == nil {
		t.Errorf("vtysh answers %q", out)
	}
	b := startBIRD(t, h, "router id 10.0.0.1;\nprotocol device {}\n")
	if out, err := b.Query(t.Context(), "show nosuch"); err == nil {
		t.Errorf("birdc answers %q", out)
	}
}
