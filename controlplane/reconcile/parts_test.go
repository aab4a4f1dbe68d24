package reconcile

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"weir/controlplane/announce"
	"weir/controlplane/announce/announcetest"
	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

// parts are a Reconciler's surroundings, played by a world.
type parts struct {
	mu        sync.Mutex
	world     *world
	applied   []*snapshot.Snapshot
	set       steer.Set
	refuse    error // what Apply returns
	targets   []netip.Addr
	checks    []health.Check
	links     []l2.Interface
	own       []netip.Addr // that are this node's alone
	stations  func() map[packet.MAC]netip.Addr
	addresses []netip.Addr // of this node
	ways      map[string]via.Way
	l2, bgp   *announcetest.Fake
	stances   map[netip.Addr]announce.Stance

	drainsPath string

	// The fakes find out what a test has changed in the world by comparison, unless
	// it says so by setHop and setHealth.
	says       bool
	hopsThen   map[netip.Addr]nexthop.Hop
	healthThen map[string]health.Result

	dataPlane, nextHops, health, stanced chan struct{}
	pathMTU                              chan engine.PathMTU
}

func newParts(w *world) *parts {
	return &parts{
		world: w, dataPlane: make(chan struct{}, 1), nextHops: make(chan struct{}, 1), health: make(chan struct{}, 1),
		stanced: make(chan struct{}, 1), l2: announcetest.NewFake("l2"), bgp: announcetest.NewFake("bgp"),
		pathMTU: make(chan engine.PathMTU, 8),
	}
}

// change changes something in the world and signals it.
func (p *parts) change(signal chan struct{}, f func(*world)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.world)
	select {
	case signal <- struct{}{}:
	default:
	}
}

func (p *parts) setRefuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = err
}

func (p *parts) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.applied)
}

// last returns the snapshot in force.
func (p *parts) last() *snapshot.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.applied[len(p.applied)-1]
}

// The roles.
type (
	fakeDataPlane struct{ *parts }
	fakeNextHops  struct{ *parts }
	fakeHealth    struct{ *parts }
	fakeLinks     struct{ *parts }
	fakeWays      struct{ *parts }
)

func (f fakeDataPlane) Apply(snap *snapshot.Snapshot, set steer.Set) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied, f.set = append(f.applied, snap), set
	return f.refuse
}

func (f fakeDataPlane) NATSpace() *nat.Space           { return f.world.space }
func (f fakeDataPlane) PathMTU() <-chan engine.PathMTU { return f.pathMTU }

func (f fakeDataPlane) Interfaces() []engine.InterfaceStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.world.interfaces)
}
func (f fakeDataPlane) Changes() <-chan struct{} { return f.dataPlane }

func (f fakeNextHops) SetTargets(addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = addrs
}

func (f fakeNextHops) Hops() map[netip.Addr]nexthop.Hop {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.says {
		return f.world.hops
	}
	return maps.Clone(f.world.hops)
}

func (f fakeNextHops) Moved(since uint64) ([]netip.Addr, uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.says {
		different(f.hopsThen, f.world.hops, func(a netip.Addr) { f.world.moved.Add(a) })
		f.hopsThen = maps.Clone(f.world.hops)
	}
	return f.world.moved.Since(since)
}
func (f fakeNextHops) Addresses() []nexthop.Address {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.world.input.own)
}
func (f fakeNextHops) Changes() <-chan struct{} { return f.nextHops }

func (f fakeHealth) SetChecks(checks []health.Check) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks = checks
}

func (f fakeHealth) Results() map[string]health.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.world.health)
}
func (f fakeHealth) Result(check string) health.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.world.health[check]
}

func (f fakeHealth) Changed(since uint64) ([]string, uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.says {
		states := make(map[string]health.Result)
		for check, r := range f.world.health {
			states[check] = health.Result{State: r.State, Unable: r.Unable}
		}
		different(f.healthThen, states, func(check string) { f.world.observed.Add(check) })
		f.healthThen = states
	}
	return f.world.observed.Since(since)
}
func (f fakeHealth) Changes() <-chan struct{} { return f.parts.health }

func (f fakeLinks) SetInterfaces(interfaces []l2.Interface) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links = interfaces
}

func (f fakeLinks) SetOwn(addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own = addrs
}

func (f fakeLinks) SetBackends(backends func() map[packet.MAC]netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stations = backends
}

func (f fakeLinks) SetAddresses(addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addresses = addrs
}

func (f fakeLinks) Nodes() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.0.0.3")} }

func (f fakeLinks) Stances() map[netip.Addr]announce.Stance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.stances)
}

func (f fakeLinks) Changes() <-chan struct{} { return f.stanced }

func (f fakeWays) ChangeWays(ways map[string]via.Way, gone []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ways == nil {
		f.parts.ways = make(map[string]via.Way)
	}
	for _, key := range gone {
		delete(f.ways, key)
	}
	maps.Copy(f.ways, ways)
}

func (p *parts) reconciler(cfg *config.Config, log *slog.Logger) *Reconciler {
	return New(cfg, Parts{
		DataPlane: fakeDataPlane{p}, NextHops: fakeNextHops{p}, Health: fakeHealth{p}, Ways: fakeWays{p}, Links: fakeLinks{p},
		Announcers: []announce.Announcer{p.l2, p.bgp}, DrainsPath: p.drainsPath,
	}, log)
}
