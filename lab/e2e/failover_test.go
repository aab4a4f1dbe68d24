package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weir/lab/pair"
	"weir/lab/site"
	"weir/lab/traffic"
)

// TestPairFailover kills the weir that owns a VIP, of all modes and both
// families in turn with those it owns besides: the other one takes all of them,
// new requests are answered, and connections through dsr and ipip go on, which
// the other weir has never seen. How long clients had to wait is logged.
func TestPairFailover(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{Modes: site.DSR | site.IPIP | site.NAT}, nil)
	for _, vip := range p.VIPs() {
		p.owner(vip.Addr())
		p.served(vip)
	}
	owner := p.owner(p.DSR4.Addr())
	heir := p.others(owner)[0]
	long := p.open(8, p.DSR4, p.DSR6, p.IPIP4, p.IPIP6)
	visits := make(map[netip.AddrPort]func() traffic.Summary)
	moved := make(map[netip.AddrPort]bool)
	for _, vip := range p.VIPs() {
		visits[vip] = p.visit(vip, time.Second)
		moved[vip] = p.owner(vip.Addr()) == owner
	}
	time.Sleep(shortly) // some requests before
	p.must(owner.Kill())
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != heir {
			t.Errorf("%s is owned by %s, which is dead", vip, got.Name)
		}
		p.served(vip)
	}
	long.alive("after the owner was killed")
	for _, vip := range p.VIPs() {
		sum := visits[vip]()
		t.Logf("%s, owner killed: %v: %d requests, %d failed; the longest time without one that succeeded is %v",
			vip, moved[vip], sum.Requests, sum.Failed, sum.Gap.Round(time.Millisecond))
		if !moved[vip] && sum.Failed > 0 {
			t.Errorf("%s: %d of %d requests failed, though its owner lives", vip, sum.Failed, sum.Requests)
		}
		if r := p.Client.Fetch(p.ctx, vip, megabyte); r.Err != nil {
			t.Error(r)
		}
	}
}

// TestPairJoinTakesNothing starts a weir beside one that serves everything: it
// gets to know the other, and takes nothing from it, nor does one that comes
// back after a crash.
func TestPairJoinTakesNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Weirs: 3})
	first := p.Weirs[0]
	p.must(p.Start(p.ctx, first))
	for _, vip := range p.VIPs() {
		p.owner(vip.Addr())
		p.served(vip)
	}
	long := p.open(4, p.VIPs()...)
	leave := p.visit(p.DSR4, time.Second)
	keeps := func(when string) {
		t.Helper()
		for _, vip := range p.VIPs() {
			if got := p.owner(vip.Addr()); got != first { // and the others know it
				t.Errorf("%s: %s is owned by %s", when, vip, got.Name)
			}
		}
		long.alive(when)
	}
	sent := p.state(first, p.DSR4.Addr()).Since
	p.must(p.Start(p.ctx, p.Weirs[1], p.Weirs[2]))
	keeps("after two have joined")
	p.must(p.Weirs[1].Kill())
	p.must(p.Start(p.ctx, p.Weirs[1]))
	keeps("after one came back")
	if since := p.state(first, p.DSR4.Addr()).Since; !since.Equal(sent) {
		t.Errorf("the owner has announced since %v, but before others joined since %v", since, sent)
	}
	p.noneLost("while others joined", leave())
}

// TestPairLinkDown pulls the cable out of the owner, and puts it back.
func TestPairLinkDown(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{}, nil)
	p.owner(p.DSR6.Addr())
	owner := p.owner(p.DSR4.Addr())
	heir := p.others(owner)[0]
	p.served(p.DSR4)
	long := p.open(4, p.DSR4)
	leave := p.visit(p.DSR4, time.Second)
	time.Sleep(shortly) // some requests before
	p.must(p.LinkDown(owner))
	p.await("the owner gives up, and the other takes over", func() error {
		if a := p.state(owner, p.DSR4.Addr()); a.State == "announced" {
			return fmt.Errorf("%s says %+v", owner.Name, a)
		}
		if a := p.state(heir, p.DSR4.Addr()); a.State != "announced" {
			return fmt.Errorf("%s says %+v", heir.Name, a)
		}
		return nil
	})
	p.served(p.DSR4)
	long.alive("without the link of the former owner")
	p.must(p.LinkUp(owner))
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != heir {
			t.Errorf("%s has moved to %s, which came back", vip, got.Name)
		}
	}
	long.alive("with the link back")
	sum := leave()
	t.Logf("%d requests, %d failed; the longest time without one that succeeded is %v", sum.Requests, sum.Failed, sum.Gap.Round(time.Millisecond))
}

// TestPairNoHealthyBackend takes the owner's view of the backends away: it gives
// up what the other can serve. When nobody can, nobody answers; one backend is
// enough again, but not for a service that wants two.
func TestPairNoHealthyBackend(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{}, func(c *site.Config) {
		two := 2
		c.Service(site.DSR6).MinBackends = &two
	})
	p.owner(p.DSR6.Addr())
	owner := p.owner(p.DSR4.Addr())
	heir := p.others(owner)[0]
	p.served(p.DSR4)
	unblock, err := p.Net.Block(owner.Host, pair.Front, site.HealthPort)
	p.must(err)
	p.await("the other has it", func() error {
		if a := p.state(heir, p.DSR4.Addr()); a.State != "announced" {
			return fmt.Errorf("%s says %+v", heir.Name, a)
		}
		return nil
	})
	p.served(p.DSR4)
	p.must(unblock())
	if got := p.owner(p.DSR4.Addr()); got != heir {
		t.Errorf("%s took it back", got.Name)
	}

	announced := func(when string, want4, want6 int) {
		t.Helper()
		p.await(when, func() error {
			four, err := p.Announcers(p.ctx, p.DSR4.Addr())
			if err != nil {
				return err
			}
			six, err := p.Announcers(p.ctx, p.DSR6.Addr())
			if err == nil && (len(four) != want4 || len(six) != want6) {
				err = fmt.Errorf("IPv4 is announced by %s and IPv6 by %s, want %d and %d", names(four), names(six), want4, want6)
			}
			return err
		})
	}
	for _, b := range p.Backends {
		b.SetHealthy(false)
	}
	announced("nobody can serve", 0, 0)
	p.await("nobody answers for a VIP that nobody can serve", func() error {
		_ = p.ClientHost.DelNeigh(p.DSR4.Addr(), "eth0") // an error if there is none
		if p.ClientHost.Ping(contextFor(t, shortly), p.DSR4.Addr()) == nil {
			return errors.New("somebody does")
		}
		return nil
	})
	p.Backends[0].SetHealthy(true)
	announced("one backend is up", 1, 0)
	p.served(p.DSR4)
	p.Backends[1].SetHealthy(true)
	announced("both are up", 1, 1)
	p.served(p.DSR6)
}

// TestPairGraceful ends the owner in good order: no request is lost.
func TestPairGraceful(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{Modes: site.DSR | site.IPIP}, nil)
	for _, vip := range p.VIPs() {
		p.owner(vip.Addr())
		p.served(vip)
	}
	owner := p.owner(p.DSR4.Addr())
	heir := p.others(owner)[0]
	long := p.open(4, p.VIPs()...)
	leave4, leave6 := p.visit(p.DSR4, 5*time.Second), p.visit(p.IPIP6, 5*time.Second)
	time.Sleep(shortly) // some requests before
	p.must(owner.Stop())
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != heir {
			t.Errorf("%s is owned by %s, which has ended", vip, got.Name)
		}
	}
	long.alive("after the owner has left")
	time.Sleep(shortly) // and some after
	p.noneLost("owner of dsr stopped", leave4())
	p.noneLost("owner of ipip, perhaps", leave6())
}

// TestPairAllActive has the owner spread new flows over both: each forwards
// some, and all go on when the owner is killed.
func TestPairAllActive(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{Modes: site.DSR | site.IPIP, AllActive: true}, nil)
	vips := map[string]netip.AddrPort{site.DSR4: p.DSR4, site.DSR6: p.DSR6, site.IPIP4: p.IPIP4, site.IPIP6: p.IPIP6}
	for _, vip := range p.VIPs() {
		p.owner(vip.Addr())
		p.served(vip)
	}
	// Members become known to each other a little after the owner is.
	for service, vip := range vips {
		p.await("both forward "+service, func() error {
			if r := p.Client.Echo(p.ctx, vip, []byte("hello")); r.Err != nil {
				return r.Err
			}
			for _, w := range p.Weirs {
				if p.newFlows(w, service) == 0 {
					return fmt.Errorf("%s has decided no flow", w.Name)
				}
			}
			return nil
		})
	}
	long := p.open(16, p.VIPs()...)
	for service, vip := range vips {
		if r := p.Client.Fetch(p.ctx, vip, 4*megabyte); r.Err != nil {
			t.Error(r)
		}
		t.Logf("%s: %d and %d flows", service, p.newFlows(p.Weirs[0], service), p.newFlows(p.Weirs[1], service))
	}
	owner := p.owner(p.DSR4.Addr())
	heir := p.others(owner)[0]
	leave := p.visit(p.DSR4, time.Second)
	time.Sleep(shortly)
	p.must(owner.Kill())
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != heir {
			t.Errorf("%s is owned by %s, which is dead", vip, got.Name)
		}
		p.served(vip)
	}
	long.alive("after the owner was killed")
	sum := leave()
	t.Logf("the longest time without a request that succeeded is %v", sum.Gap.Round(time.Millisecond))
	p.must(p.Start(p.ctx, owner))
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != heir {
			t.Errorf("%s has moved to %s, which came back", vip, got.Name)
		}
	}
	long.alive("after the former owner came back")
}
