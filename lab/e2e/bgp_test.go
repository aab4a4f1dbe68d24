package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/pair"
	"weir/lab/router"
	"weir/lab/site"
)

// startRouted starts weirs behind a router, and waits until it has the routes
// of all of them.
func startRouted(t *testing.T, opt pair.Options, mutate func(*site.Config)) *testPair {
	t.Helper()
	p := startPair(t, opt, mutate)
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
		p.served(vip)
	}
	return p
}

// TestBGPECMP has a router spread flows over two weirs, which do not know of
// each other: both forward, and when one of them is killed, and when it is back,
// flows go on by the other, which sends each to the backend it was on.
func TestBGPECMP(t *testing.T) {
	t.Parallel()
	p := startRouted(t, pair.Options{Routing: pair.FRR, Modes: site.DSR | site.IPIP}, nil)
	long := p.open(20, p.VIPs()...) // enough that both get some of each
	for _, service := range []string{site.DSR4, site.DSR6, site.IPIP4, site.IPIP6} {
		a, b := p.newFlows(p.Weirs[0], service), p.newFlows(p.Weirs[1], service)
		t.Logf("%s: %d and %d flows", service, a, b)
		if a == 0 || b == 0 {
			t.Errorf("%s: the weirs have decided %d and %d flows, want some on both", service, a, b)
		}
	}
	for i, w := range p.Weirs {
		other := p.Weirs[1-i]
		leave := p.visit(p.DSR4, time.Second)
		time.Sleep(shortly)
		p.must(w.Kill())
		for _, vip := range p.VIPs() {
			p.must(p.AwaitRoutes(p.ctx, vip.Addr(), other))
		}
		long.alive("after " + w.Name + " was killed")
		for _, vip := range p.VIPs() {
			if r := p.Client.Fetch(p.ctx, vip, 4*megabyte); r.Err != nil {
				t.Error(r)
			}
		}
		sum := leave()
		t.Logf("%s killed: %d requests, %d failed; the longest time without one that succeeded is %v", w.Name, sum.Requests, sum.Failed, sum.Gap.Round(time.Millisecond))
		p.must(p.Start(p.ctx, w))
		for _, vip := range p.VIPs() {
			p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
		}
		long.alive("after " + w.Name + " came back")
	}
}

// TestBGPWithdrawsUnhealthy has backends fail: the routes of services that have
// too few of them go, and no others.
func TestBGPWithdrawsUnhealthy(t *testing.T) {
	t.Parallel()
	p := startRouted(t, pair.Options{Routing: pair.FRR, Modes: site.DSR | site.IPIP}, func(c *site.Config) {
		two := 2
		c.Service(site.DSR6).MinBackends = &two
	})
	routes := func(when string, four, six bool) {
		t.Helper()
		for _, r := range []struct {
			addr netip.Addr
			want bool
		}{{p.DSR4.Addr(), four}, {p.DSR6.Addr(), six}, {p.IPIP4.Addr(), true}, {p.IPIP6.Addr(), true}} {
			var weirs []*pair.Weir
			if r.want {
				weirs = p.Weirs
			}
			if err := p.AwaitRoutes(p.ctx, r.addr, weirs...); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
	}
	p.Backends[0].SetHealthy(false)
	routes("one of two backends is down", true, false)
	p.Backends[1].SetHealthy(false)
	routes("both are down", false, false)
	for _, w := range p.Weirs {
		if a := p.state(w, p.DSR4.Addr()); a.State == "announced" || a.Error == "" {
			t.Errorf("%s says %+v of a VIP that it cannot serve", w.Name, a)
		}
	}
	if r := p.Client.Echo(contextFor(t, shortly), p.DSR4, []byte("anybody?")); r.Err == nil {
		t.Error("answered without backends:", r)
	}
	p.Backends[0].SetHealthy(true)
	routes("one is up again", true, false)
	p.served(p.DSR4)
	p.Backends[1].SetHealthy(true)
	routes("both are up again", true, true)
	p.served(p.DSR6)
}

// TestBGPMD5Mismatch has a weir and its router disagree about the password: there
// is no session, which is said, and the other weir serves. A reload mends it.
func TestBGPMD5Mismatch(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Routing: pair.FRR})
	for _, w := range p.Weirs {
		for i, addr := range []netip.Addr{w.Addr4, w.Addr6} {
			p.must(p.FRR.Configure(p.ctx, fmt.Sprintf("router bgp %d", pair.RouterAS), fmt.Sprintf("neighbor %s password right", addr)))
			w.Config.BGP.Peers[i].Password = "right"
		}
	}
	wrong := p.Weirs[0]
	for i := range wrong.Config.BGP.Peers {
		wrong.Config.BGP.Peers[i].Password = "wrong"
	}
	p.must(p.Start(p.ctx))
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs[1]))
		p.served(vip)
	}
	p.await("it is said that there is no session", func() error {
		for _, peer := range ask[[]api.Peer](p, wrong, "peers") {
			if peer.State == "established" {
				t.Fatalf("a session with the wrong password is up: %+v", peer)
			}
			if peer.LastError == "" {
				return fmt.Errorf("peer %+v", peer)
			}
		}
		if a := p.state(wrong, p.DSR4.Addr()); a.State != "down" {
			return fmt.Errorf("announcement %+v", a)
		}
		return nil
	})
	t.Logf("weir says %q", ask[[]api.Peer](p, wrong, "peers")[0].LastError)
	p.reload(wrong, func(c *site.Config) {
		for i := range c.BGP.Peers {
			c.BGP.Peers[i].Password = "right"
		}
	})
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
	}
}

// TestBGPRouterRestart crashes the router's BGP daemon. With graceful restart its
// kernel keeps the routes, so nothing is lost, and the sessions come up again.
// Here one session with each weir carries both families. FRR lets go of what it
// has kept when the first of them is up, so for a moment one weir has all.
func TestBGPRouterRestart(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Routing: pair.FRR, RouterText: func(text string) string {
		four, six, _ := strings.Cut(text, " address-family ipv6 unicast\n")
		return four + " address-family ipv6 unicast\n" + strings.NewReplacer("fd00::2", "10.0.0.2", "fd00::3", "10.0.0.3").Replace(six)
	}})
	for _, w := range p.Weirs {
		w.Config.BGP.NextHop6 = w.Addr6.String()
		peer := w.Config.BGP.Peers[0]
		peer.Name, peer.Families, peer.GracefulRestart = "r", []string{"ipv4", "ipv6"}, true
		w.Config.BGP.Peers = []site.BGPPeer{peer}
	}
	p.must(p.Start(p.ctx))
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
		p.served(vip)
	}
	sessions := func() (established int) {
		for _, w := range p.Weirs {
			for _, peer := range ask[[]api.Peer](p, w, "peers") {
				if peer.State == "established" {
					established++
				}
			}
		}
		return established
	}
	if n := sessions(); n != len(p.Weirs) {
		t.Fatalf("%d sessions are up, want one with each weir", n)
	}
	long := p.open(8, p.VIPs()...)
	leave := p.visit(p.DSR4, 5*time.Second)
	p.must(p.FRR.KillBGP())
	p.await("the weirs have lost the sessions", func() error {
		if n := sessions(); n > 0 {
			return fmt.Errorf("%d are up", n)
		}
		return nil
	})
	long.alive("without a BGP daemon")
	p.must(p.FRR.StartBGP(p.ctx))
	p.await("the sessions are up again", func() error {
		for _, vip := range p.VIPs() { // the kernel's routes are there all the time
			hops, err := router.Hops(p.Router, netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen()))
			if err != nil || len(hops) == 0 {
				t.Fatalf("the router has no way to %s any more (%v)", vip, err)
			}
			paths, err := p.FRR.Paths(p.ctx, vip.Addr().String())
			if err != nil {
				return err
			}
			if len(paths) != len(p.Weirs) {
				return fmt.Errorf("the daemon has %d paths to %s", len(paths), vip)
			}
		}
		if n := sessions(); n != len(p.Weirs) {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
	}
	long.alive("with the sessions back")
	p.noneLost("while the router's daemon was restarted", leave())
	for _, w := range p.Weirs {
		for _, peer := range ask[[]api.Peer](p, w, "peers") {
			if peer.Flaps == 0 || !peer.GracefulRestart {
				t.Errorf("%s says %+v of a session that was lost, with a peer that restarts gracefully", w.Name, peer)
			}
		}
	}
}

// TestBGPGracefulShutdown ends a weir in good order: it says before that its
// routes are about to go (RFC 8326), the router prefers the other's, and not one
// request is lost.
func TestBGPGracefulShutdown(t *testing.T) {
	t.Parallel()
	p := startRouted(t, pair.Options{Routing: pair.FRR, Modes: site.DSR | site.IPIP}, func(c *site.Config) {
		c.BGP.ShutdownDelay = "2s"
	})
	long := p.open(8, p.VIPs()...)
	leave4, leave6 := p.visit(p.DSR4, 5*time.Second), p.visit(p.IPIP6, 5*time.Second)
	leaving, stays := p.Weirs[0], p.Weirs[1]
	stopped := make(chan error, 1)
	go func() { stopped <- leaving.Stop() }()
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), stays))
	}
	paths, err := p.FRR.Paths(p.ctx, p.DSR4.Addr().String())
	p.must(err)
	announced := false
	for _, path := range paths {
		if path.From == leaving.Addr4.String() {
			announced = true
			if !strings.Contains(strings.ToLower(strings.Join(path.Communities, " ")), "graceful") {
				t.Errorf("the path of the weir that leaves has communities %q", path.Communities)
			}
		}
	}
	if !announced {
		t.Error("the weir that leaves has withdrawn its routes without notice")
	}
	long.alive("while a weir leaves")
	select {
	case err := <-stopped:
		p.must(err)
	case <-time.After(patience):
		t.Fatal("weir does not end")
	}
	long.alive("after it has left")
	time.Sleep(shortly)
	p.noneLost("dsr, while a weir left", leave4())
	p.noneLost("ipip, while a weir left", leave6())
}

// TestBGPBIRD has BIRD for a router.
func TestBGPBIRD(t *testing.T) {
	t.Parallel()
	p := startRouted(t, pair.Options{Routing: pair.BIRD, Modes: site.DSR | site.IPIP}, nil)
	long := p.open(8, p.VIPs()...)
	killed, other := p.Weirs[0], p.Weirs[1]
	p.must(killed.Kill())
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), other))
		if r := p.Client.Fetch(p.ctx, vip, megabyte); r.Err != nil {
			t.Error(r)
		}
	}
	long.alive("after a weir was killed")
	p.must(p.Start(p.ctx, killed))
	for _, vip := range p.VIPs() {
		p.must(p.AwaitRoutes(p.ctx, vip.Addr(), p.Weirs...))
	}
	p.await("bird says that the sessions are up", func() error {
		out, err := p.BIRD.Query(p.ctx, "show protocols")
		if err == nil && strings.Count(out, "Established") != 4 {
			err = errors.New(out)
		}
		return err
	})
	long.alive("after it came back")
}
