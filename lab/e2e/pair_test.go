package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/controlplane/api"
	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/lab/pair"
	"weir/lab/site"
	"weir/lab/traffic"
)

// testPair is several weirs, what is around them, and the test they are for.
type testPair struct {
	*pair.Pair
	t   *testing.T
	ctx context.Context // of the test's calls; not yet done in its clean-up
}

// newPair builds a pair without a weir that runs. It is removed at the end of
// the test, after everything a person wants to see of a failure has been
// printed. Tests with a pair mostly wait, so they run beside each other.
func newPair(t *testing.T, opt pair.Options) *testPair {
	t.Helper()
	labtest.NeedRoot(t)
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "_"), "_")
	opt.Name, opt.Weir = name[:min(len(name), 32)], weirBinary
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	built, err := pair.New(ctx, opt)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p := &testPair{built, t, ctx}
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			p.explain()
		}
		if err := p.Close(); err != nil {
			t.Errorf("close pair: %v", err)
		}
	})
	return p
}

// startPair builds a pair and starts all of its weirs.
func startPair(t *testing.T, opt pair.Options, mutate func(*site.Config)) *testPair {
	t.Helper()
	p := newPair(t, opt)
	if mutate != nil {
		p.Configure(mutate)
	}
	p.must(p.Start(p.ctx))
	return p
}

// explain prints what is known about a failure.
func (p *testPair) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, w := range p.Weirs {
		p.t.Logf("log of %s:\n%s", w.Name, w.Log())
		if w.Process() == nil {
			continue
		}
		for _, noun := range []string{"interfaces", "services", "backends", "drops", "announcements", "members", "peers", "pools"} {
			text, err := w.Run(ctx, "show", noun)
			if noun == "drops" {
				text = withoutZeros(text)
			}
			p.t.Logf("%s: weir show %s (%v):\n%s", w.Name, noun, err, text)
		}
	}
	if neighbours, err := p.ClientHost.Run(ctx, "ip", "neigh"); err == nil {
		p.t.Logf("the client's neighbours:\n%s", neighbours)
	}
	if p.Router != nil {
		routes, err := p.Router.Run(ctx, "sh", "-c", "ip route; ip -6 route")
		p.t.Logf("the router's routes (%v):\n%s", err, routes)
	}
	if p.FRR != nil {
		summary, err := p.FRR.Query(ctx, "show bgp summary")
		p.t.Logf("frr (%v):\n%s\n%s", err, summary, p.FRR.Log())
	}
	if p.BIRD != nil {
		protocols, err := p.BIRD.Query(ctx, "show protocols all")
		p.t.Logf("bird (%v):\n%s\n%s", err, protocols, p.BIRD.Log())
	}
}

func (p *testPair) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// await polls until check returns nil, and returns how long that took.
func (p *testPair) await(what string, check func() error) time.Duration {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	start := time.Now()
	if err := site.Await(ctx, check); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	return time.Since(start)
}

// ask reads a noun from the api of a weir.
func ask[T any](p *testPair, w *pair.Weir, noun string) T {
	p.t.Helper()
	var v T
	if err := w.API().Get(p.ctx, noun, &v); err != nil {
		p.t.Fatalf("%s: %v", w.Name, err)
	}
	return v
}

// reload changes the configuration of a weir and has it put in force.
func (p *testPair) reload(w *pair.Weir, mutate func(*site.Config)) {
	p.t.Helper()
	mutate(w.Config)
	if _, err := w.Reload(p.ctx); err != nil {
		p.t.Fatalf("%s: %v", w.Name, err)
	}
}

// others returns all weirs but one.
func (p *testPair) others(w *pair.Weir) []*pair.Weir {
	return slices.DeleteFunc(slices.Clone(p.Weirs), func(o *pair.Weir) bool { return o == w })
}

// owner waits until exactly one of the weirs that run announces an address, the
// others say that it does, and the client knows it. It returns that one.
func (p *testPair) owner(addr netip.Addr) *pair.Weir {
	p.t.Helper()
	var owner *pair.Weir
	p.await(addr.String()+" has one owner", func() error {
		who, err := p.Announcers(p.ctx, addr)
		if err != nil {
			return err
		}
		if len(who) != 1 {
			return fmt.Errorf("announced by %s", names(who))
		}
		owner = who[0]
		for _, w := range p.others(owner) {
			if w.Process() == nil {
				continue
			}
			all, err := w.Announcements(p.ctx, addr)
			if err != nil {
				return err
			}
			if len(all) != 1 || all[0].State != "standby" || all[0].Owner != owner.Name {
				return fmt.Errorf("%s announces it, but %s says %+v", owner.Name, w.Name, all)
			}
		}
		return p.clientKnows(addr, owner)
	})
	return owner
}

// clientKnows returns an error if the client's kernel has an address at another
// MAC than a weir's. It does not make the kernel ask.
func (p *testPair) clientKnows(addr netip.Addr, w *pair.Weir) error {
	link, err := w.Host.Link(pair.Front)
	if err != nil {
		return err
	}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	return p.ClientHost.Do(func() error {
		all, err := netlink.NeighList(0, family)
		for _, n := range all {
			if n.IP.Equal(addr.AsSlice()) && len(n.HardwareAddr) > 0 && !bytes.Equal(n.HardwareAddr, link.MAC) {
				return fmt.Errorf("the client has %s at %s, which is not %s", addr, n.HardwareAddr, w.Name)
			}
		}
		return err
	})
}

func names(weirs []*pair.Weir) string {
	var all []string
	for _, w := range weirs {
		all = append(all, w.Name)
	}
	if len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, " and ")
}

// state returns what a weir says of its announcement of an address.
func (p *testPair) state(w *pair.Weir, addr netip.Addr) api.Announcement {
	p.t.Helper()
	all, err := w.Announcements(p.ctx, addr)
	p.must(err)
	if len(all) == 0 {
		p.t.Fatalf("%s says nothing of %s", w.Name, addr)
	}
	return all[0]
}

// served polls until a VIP is served, and returns how long that took.
func (p *testPair) served(vip netip.AddrPort) time.Duration {
	p.t.Helper()
	return p.await(vip.String()+" is served", func() error {
		ctx, cancel := context.WithTimeout(p.ctx, 100*time.Millisecond)
		defer cancel()
		return p.Client.Echo(ctx, vip, []byte("served?")).Err
	})
}

// visit asks a VIP for a page fifty times a second until what it returns is
// called, which says what came of it.
func (p *testPair) visit(vip netip.AddrPort, timeout time.Duration) (leave func() traffic.Summary) {
	steady := p.Steady(vip, 20*time.Millisecond, timeout)
	ctx, stop := context.WithCancel(p.ctx)
	ended := make(chan error, 1)
	go func() { ended <- steady.Run(ctx) }()
	return func() traffic.Summary {
		p.t.Helper()
		stop()
		p.must(<-ended)
		for _, r := range steady.Results() {
			if errors.Is(r.Err, traffic.ErrCorrupt) || errors.Is(r.Err, traffic.ErrMoved) {
				p.t.Error(r)
			}
		}
		return traffic.Summarize(steady.Results())
	}
}

// noneLost fails the test if a request was.
func (p *testPair) noneLost(when string, sum traffic.Summary) {
	p.t.Helper()
	p.t.Logf("%s: %d requests, %d failed; the longest time without one that succeeded is %v", when, sum.Requests, sum.Failed, sum.Gap.Round(time.Millisecond))
	if sum.Failed > 0 {
		p.t.Errorf("%s: %d of %d requests failed", when, sum.Failed, sum.Requests)
	}
}

// flows are TCP connections that have to outlive everything that is done to the
// weirs.
type flows struct {
	p       *testPair
	streams []*traffic.Stream
}

// open opens n long flows to each VIP.
func (p *testPair) open(n int, vips ...netip.AddrPort) *flows {
	p.t.Helper()
	f := &flows{p: p}
	for _, vip := range vips {
		for range n {
			s, err := p.Client.OpenStream(p.ctx, netip.AddrPortFrom(vip.Addr(), site.StreamPort))
			p.must(err)
			p.t.Cleanup(func() { s.Close() })
			f.streams = append(f.streams, s)
		}
	}
	f.alive("just opened")
	return f
}

// alive fails the test if one of the flows is not. TCP may take its time.
func (f *flows) alive(when string) {
	f.p.t.Helper()
	results := make(chan traffic.Result, len(f.streams))
	for _, s := range f.streams {
		go func() { results <- s.Echo(f.p.ctx, []byte(when)) }()
	}
	broken := 0
	for range f.streams {
		if r := <-results; r.Err != nil {
			if broken++; broken <= 3 {
				f.p.t.Errorf("%s: a flow of before is broken: %v", when, r)
			}
		}
	}
	if broken > 0 {
		f.p.t.Fatalf("%s: %d of %d flows are broken", when, broken, len(f.streams))
	}
}

// newFlows returns how many flows of a service a weir has decided.
func (p *testPair) newFlows(w *pair.Weir, service string) uint64 {
	p.t.Helper()
	for _, s := range ask[[]api.Service](p, w, "services") {
		if s.Name == service {
			return s.NewFlows
		}
	}
	p.t.Fatalf("%s has no service %s", w.Name, service)
	return 0
}

// backendIs waits until a weir says of a backend of a service that it is up, or
// down, and returns what it says.
func (p *testPair) backendIs(w *pair.Weir, service string, addr netip.Addr, status string) (found api.Backend) {
	p.t.Helper()
	p.await(fmt.Sprintf("%s says that %s of %s is %s", w.Name, addr, service, status), func() error {
		for _, b := range ask[[]api.Backend](p, w, "backends") {
			if b.Service == service && b.Address == addr {
				if found = b; b.Status == status {
					return nil
				}
				return fmt.Errorf("it is %s: %s", b.Status, b.Reason)
			}
		}
		return errors.New("there is none")
	})
	return found
}

// station adds a host to the weirs' segment.
func (p *testPair) station(name string, addrs ...netip.Prefix) *netlab.Host {
	p.t.Helper()
	h, err := p.Lab.Host(name)
	p.must(err)
	_, err = h.Connect(p.Net, netlab.Iface{Name: "eth0", Addrs: addrs})
	p.must(err)
	return h
}
