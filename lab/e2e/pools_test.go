package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weir/controlplane/api"
	"weir/lab/pair"
	"weir/lab/site"
)

// addresses returns the addresses of all services as a weir has them.
func (p *testPair) addresses(w *pair.Weir) map[string][]netip.Addr {
	p.t.Helper()
	all := make(map[string][]netip.Addr)
	for _, s := range ask[[]api.Service](p, w, "services") {
		all[s.Name] = s.Addresses
	}
	return all
}

// TestPools has services that name no address: each gets one from the pool, the
// same on both weirs, keeps it over a restart and while others come and go, and
// is served there. What the pool cannot give is refused, and what runs goes on.
func TestPools(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Pool: true})
	web := func(c *site.Config, name string) {
		s := *c.Service(site.DSR4)
		s.Name, s.Addresses, s.Pool, s.Families = name, nil, pair.PoolName, []string{"ipv4"}
		c.Services = append(c.Services, s)
	}
	without := func(c *site.Config, name string) {
		for i := range c.Services {
			if c.Services[i].Name == name {
				c.Services = append(c.Services[:i:i], c.Services[i+1:]...)
				return
			}
		}
	}
	p.Configure(func(c *site.Config) {
		// Six addresses, all served by the backends; none is named by a service.
		c.Pools[0].Addresses = []string{"10.0.0.210-10.0.0.215"}
		for _, name := range []string{"one", "two", "three"} {
			web(c, name)
		}
	})
	p.must(p.Start(p.ctx))
	first := p.addresses(p.Weirs[0])
	same := func(when string, w *pair.Weir) {
		t.Helper()
		got := p.addresses(w)
		for name, want := range first {
			if fmt.Sprint(got[name]) != fmt.Sprint(want) {
				t.Errorf("%s: service %s has %v at %s, want %v", when, name, got[name], w.Name, want)
			}
		}
	}
	same("on the other weir", p.Weirs[1])
	taken := make(map[netip.Addr]bool)
	for _, name := range []string{"one", "two", "three"} {
		if len(first[name]) != 1 || taken[first[name][0]] {
			t.Fatalf("services have addresses %v", first)
		}
		addr := first[name][0]
		taken[addr] = true
		p.owner(addr)
		p.served(netip.AddrPortFrom(addr, p.DSR4.Port()))
	}
	for _, pool := range ask[[]api.Pool](p, p.Weirs[0], "pools") {
		if pool.Name != pair.PoolName || pool.IPv4 == nil || pool.IPv4.Size.Int64() != 6 || pool.IPv4.Used.Int64() != 3 || len(pool.Held) != 3 {
			t.Errorf("weir shows pool %+v, want three of six addresses used", pool)
		}
	}

	vip := netip.AddrPortFrom(first["two"][0], p.DSR4.Port())
	long := p.open(4, vip)
	for _, w := range p.Weirs {
		p.reload(w, func(c *site.Config) { web(c, "another"); without(c, "one") })
	}
	delete(first, "one")
	for _, w := range p.Weirs {
		same("after one came and one went", w)
		p.must(w.Stop())
		p.must(p.Start(p.ctx, w))
		same("after a restart", w)
	}
	p.owner(vip.Addr())
	long.alive("after both weirs were restarted")

	// Three are used; four more do not fit.
	w := p.Weirs[0]
	good := append([]site.Service(nil), w.Config.Services...)
	for i := range 4 {
		web(w.Config, fmt.Sprintf("more%d", i))
	}
	_, err := w.Reload(p.ctx)
	if err == nil || !strings.Contains(err.Error(), pair.PoolName) || !strings.Contains(err.Error(), "more") {
		t.Errorf("a reload that wants more than the pool has: %v", err)
	}
	t.Log(err)
	same("after a reload was refused", w)
	if r := p.Client.Fetch(p.ctx, vip, megabyte); r.Err != nil {
		t.Error(r)
	}
	long.alive("after a reload was refused")
	w.Config.Services = good
	p.reload(w, func(*site.Config) {})
	same("after a reload that fits", w)
}
