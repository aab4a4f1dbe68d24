package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/pair"
)

// TestPairSplitBrainHeals loses the weirs' gossip, while the network is fine for
// everybody else. Each thinks the other dead, and the one without the VIP finds
// by asking the network that somebody has it: nobody else claims it, then or
// when the gossip is back.
func TestPairSplitBrainHeals(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{}, nil)
	owners := make(map[netip.Addr]*pair.Weir)
	for _, vip := range p.VIPs() {
		owners[vip.Addr()] = p.owner(vip.Addr())
		p.served(vip)
	}
	long := p.open(4, p.VIPs()...)
	leave := p.visit(p.DSR4, time.Second)
	doubles := p.watchDoubles()

	heal, err := p.Isolate(p.Weirs[0])
	p.must(err)
	for i, w := range p.Weirs {
		other := p.Weirs[1-i].Name
		p.await(w.Name+" thinks that the other is dead", func() error { return p.memberIs(w, other, false) })
	}
	// As long as it takes to probe and to claim, some times over.
	time.Sleep(2 * time.Second)
	long.alive("while the weirs do not hear each other")
	p.must(heal())
	for i, w := range p.Weirs {
		other := p.Weirs[1-i].Name
		p.await(w.Name+" knows that the other lives", func() error { return p.memberIs(w, other, true) })
	}
	for _, vip := range p.VIPs() {
		if got := p.owner(vip.Addr()); got != owners[vip.Addr()] {
			t.Errorf("%s has moved from %s to %s", vip, owners[vip.Addr()].Name, got.Name)
		}
	}
	long.alive("when they do again")
	p.noneLost("while the weirs did not hear each other", leave())
	if n := doubles(); n > 0 {
		t.Errorf("both weirs announced a VIP at the same time, %d times that it was asked", n)
	}
}

// memberIs returns an error unless a weir says of a node that it is alive, or
// dead; one that it does not know is dead.
func (p *testPair) memberIs(w *pair.Weir, name string, alive bool) error {
	for _, m := range ask[[]api.Member](p, w, "members") {
		if m.Name == name {
			if m.Alive != alive {
				return fmt.Errorf("it says %+v", m)
			}
			return nil
		}
	}
	if alive {
		return fmt.Errorf("it knows no %s", name)
	}
	return nil
}

// watchDoubles asks all weirs again and again whether they announce the first
// VIP, until what it returns is called, which says how often several did.
func (p *testPair) watchDoubles() (stop func() int) {
	ctx, cancel := context.WithCancel(p.ctx)
	doubles := 0
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			if who, err := p.Announcers(ctx, p.DSR4.Addr()); err == nil && len(who) > 1 {
				doubles++
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() int {
		cancel()
		watching.Wait()
		return doubles
	}
}

// TestPairForeignDuplicate has another station that holds the VIPs: the weirs
// leave them to it and say so, and take them when it has given them up.
func TestPairForeignDuplicate(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{})
	four, six := netip.PrefixFrom(p.DSR4.Addr(), 32), netip.PrefixFrom(p.DSR6.Addr(), 128)
	foreign := p.station("foreign", netip.MustParsePrefix("10.0.0.77/24"), netip.MustParsePrefix("fd00::77/64"), four, six)
	link, err := foreign.Link("eth0")
	p.must(err)
	p.must(p.Start(p.ctx))
	for _, vip := range p.VIPs() {
		p.await("it is reported who has "+vip.Addr().String(), func() error {
			var seen []api.Announcement
			for _, w := range p.Weirs {
				all, err := w.Announcements(p.ctx, vip.Addr())
				if err != nil {
					return err
				}
				for _, a := range all {
					if a.State == "announced" {
						t.Fatalf("%s has claimed %s", w.Name, vip)
					}
					if a.State == "conflict" && a.Owner == link.MAC.String() {
						return nil
					}
				}
				seen = append(seen, all...)
			}
			return fmt.Errorf("the weirs say %+v", seen)
		})
		p.must(p.ClientHost.Ping(p.ctx, vip.Addr())) // the foreign station answers
	}
	p.must(foreign.DelAddr("eth0", four))
	p.must(foreign.DelAddr("eth0", six))
	for _, vip := range p.VIPs() {
		p.owner(vip.Addr())
		p.served(vip)
	}
}
