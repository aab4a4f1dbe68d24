package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/lab/netlab"
	"weir/lab/router"
)

func newHost(t *testing.T, lab *netlab.Lab, name string) *netlab.Host {
	t.Helper()
	h, err := lab.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// cable connects two hosts; net is the third number of their addresses, of which
// the first host has 2 and the second 1.
func cable(t *testing.T, a, b *netlab.Host, net int) {
	t.Helper()
	iface := func(last int) netlab.Iface {
		return netlab.Iface{Name: fmt.Sprint("eth", net), Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/24", net, last)), netip.MustParsePrefix(fmt.Sprintf("fd00:%d::%d/64", net, last)),
		}}
	}
	if err := a.ConnectTo(b, iface(2), iface(1)); err != nil {
		t.Fatal(err)
	}
}

func startFRR(t *testing.T, h *netlab.Host, text string) *router.FRR {
	t.Helper()
	f, err := router.StartFRR(t.Context(), h, router.FRRConfig{Text: text})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := f.Log()
			t.Logf("frr on %s:\n%s", h.Name(), log[max(0, len(log)-4000):])
		}
		if err := f.Stop(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// weir0 is the configuration of a weir at 10.0.1.2 and fd00:1::2.
func weir0() Config {
	return Config{
		ASN: ours, RouterID: addr("10.0.1.2"), NextHop6: addr("fd00:1::2"), Pools: map[string]Pool{},
	}
}

// quick has a peer's timers such that a test is over soon.
func quick(p Peer) Peer {
	p.HoldTime, p.KeepaliveTime, p.ConnectRetry = 3*time.Second, time.Second, time.Second
	return p
}

// paths waits until a router has exactly one path to a prefix, and it passes.
func onePath(t *testing.T, f *router.FRR, prefix, from string, check func(router.Path) error) {
	t.Helper()
	eventually(t, prefix+" from "+from, func() error {
		all, err := f.Paths(context.Background(), prefix)
		if err != nil {
			return err
		}
		for _, p := range all {
			if p.From == from {
				return check(p)
			}
		}
		return fmt.Errorf("paths are %+v", all)
	})
}

func noPath(t *testing.T, f *router.FRR, prefix, from string) {
	t.Helper()
	eventually(t, "no "+prefix+" from "+from, func() error {
		all, err := f.Paths(context.Background(), prefix)
		if err == nil && slices.ContainsFunc(all, func(p router.Path) bool { return p.From == from }) {
			err = fmt.Errorf("paths are %+v", all)
		}
		return err
	})
}

// TestFRR has sessions with one FRR by IPv4, opened from here, and by IPv6, opened
// from there, each with both families, MD5, and attributes.
func TestFRR(t *testing.T) {
	t.Parallel()
	lab := newLab(t, "bgp")
	weir, r1 := newHost(t, lab, "weir"), newHost(t, lab, "r1")
	cable(t, weir, r1, 1)
	f := startFRR(t, r1, `
router bgp 65000
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 no bgp network import-check
 timers bgp 1 3
 neighbor 10.0.1.2 remote-as 65010
 neighbor 10.0.1.2 passive
 neighbor 10.0.1.2 password one
 neighbor 10.0.1.2 advertisement-interval 0
 neighbor fd00:1::2 remote-as 65010
 neighbor fd00:1::2 timers connect 1
 neighbor fd00:1::2 password six
 neighbor fd00:1::2 advertisement-interval 0
 address-family ipv4 unicast
  network 198.51.100.0/24
  neighbor fd00:1::2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 10.0.1.2 activate
  neighbor fd00:1::2 activate
 exit-address-family
`)
	c := weir0()
	c.Listen = netip.MustParseAddrPort("[fd00:1::2]:179")
	c.ShutdownDelay = time.Second
	four := quick(Peer{Name: "four", Address: addr("10.0.1.1"), ASN: theirs, Source: addr("10.0.1.2"), Password: "wrong",
		IPv4: true, IPv6: true, Communities: []string{"65000:7"}})
	six := quick(Peer{Name: "six", Address: addr("fd00:1::1"), ASN: theirs, Port: 1790, Password: "six",
		IPv4: true, IPv6: true, NextHop: addr("10.0.1.2"), MED: num(77)})
	c.Peers = []Peer{four, six}
	c.Pools["public"] = Pool{Communities: []string{"65000:100", "no-peer", "65000:1:2"}, MED: num(10), LocalPref: num(5), Aggregation: 24}
	w := startRemote(t, weir, c)
	w.set("203.0.113.10@public", "2001:db8:1::10")
	w.awaitUp(2, "six")

	// A wrong password is silence; people are told what it may be.
	w.awaitDown("four", "MD5 password mismatch")
	c.Peers[0].Password = "one"
	w.configure(c)
	w.awaitUp(2, "four")

	onePath(t, f, "203.0.113.0/24", "10.0.1.2", func(p router.Path) error {
		if slices.Equal(p.NextHops, []string{"10.0.1.2"}) && p.ASPath == "65010" && p.MED != nil && *p.MED == 10 &&
			slices.Equal(p.Large, []string{"65000:1:2"}) && strings.Join(p.Communities, " ") == "65000:7 65000:100 noPeer" {
			return nil
		}
		return fmt.Errorf("%+v", p)
	})
	onePath(t, f, "203.0.113.0/24", "fd00:1::2", func(p router.Path) error {
		if slices.Equal(p.NextHops, []string{"10.0.1.2"}) && *p.MED == 77 && strings.Join(p.Communities, " ") == "65000:100 noPeer" {
			return nil
		}
		return fmt.Errorf("%+v", p)
	})
	for _, from := range []string{"10.0.1.2", "fd00:1::2"} {
		onePath(t, f, "2001:db8:1::10/128", from, func(p router.Path) error {
			if slices.Contains(p.NextHops, "fd00:1::2") && len(p.Large) == 0 {
				return nil
			}
			return fmt.Errorf("%+v", p)
		})
	}
	// The kernel of the router sends there.
	if err := router.AwaitHops(t.Context(), r1, netip.MustParsePrefix("203.0.113.0/24"), addr("10.0.1.2")); err != nil {
		t.Error(err)
	}
	if err := router.AwaitHops(t.Context(), r1, netip.MustParsePrefix("2001:db8:1::10/128"), addr("fd00:1::2")); err != nil {
		t.Error(err)
	}
	// What it says goes nowhere: not into the kernel here, not back to it by the
	// other session.
	if hops, err := router.Hops(weir, netip.MustParsePrefix("198.51.100.0/24")); err != nil || len(hops) != 0 {
		t.Errorf("the node has a route of the router's: %v, %v", hops, err)
	}
	for _, from := range []string{"10.0.1.2", "fd00:1::2"} {
		noPath(t, f, "198.51.100.0/24", from)
	}

	// One address of the aggregate goes, it stays; the other goes.
	w.set("203.0.113.11@public")
	noPath(t, f, "2001:db8:1::10/128", "10.0.1.2")
	onePath(t, f, "203.0.113.0/24", "10.0.1.2", func(router.Path) error { return nil })
	w.set("192.0.2.10")
	noPath(t, f, "203.0.113.0/24", "10.0.1.2")
	onePath(t, f, "192.0.2.10/32", "10.0.1.2", func(router.Path) error { return nil })

	w.leave()
	onePath(t, f, "192.0.2.10/32", "10.0.1.2", func(p router.Path) error {
		if slices.Contains(p.Communities, "gracefulShutdown") {
			return nil
		}
		return fmt.Errorf("%+v", p)
	})
	noPath(t, f, "192.0.2.10/32", "10.0.1.2")
	w.awaitLeft()
	eventually(t, "the router knows why", func() error {
		p, err := f.Peer(context.Background(), "10.0.1.2")
		if err == nil && !strings.Contains(p.LastNotify, "Administrative Shutdown") {
			err = fmt.Errorf("%+v", p)
		}
		return err
	})
	if x := w.session("four"); x.Flaps != 0 {
		t.Errorf("%+v", x)
	}
}
