// Package reconcile makes the data plane do what the configuration says, as far
// as health and next hops allow.
//
// The problem it solves: four things change on their own (the configuration,
// the backends' health, the next hops, the interfaces), and workers must see
// them as one consistent picture. So whatever changes, a whole new snapshot is
// compiled. There may be 100,000 backends, though, and one of them changes. So the
// services that it is of are compiled again, and everything else is shared with the
// snapshot before.
package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/changelog"
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

// settle is how long changes are collected before a snapshot is compiled: a
// burst of them (a link that comes up) makes one. After a failure, retry is how
// long it takes until the next attempt, if nothing changes before.
const (
	settle = 10 * time.Millisecond
	retry  = time.Second
)

// findTime bounds how long a new configuration waits for the next hops of its
// new backends: what one that is there takes to answer ARP, even if it has to be
// asked twice.
const findTime = 1500 * time.Millisecond

// DataPlane is what is told about snapshots. One that Apply was called with is
// in force even if it returns an error.
type DataPlane interface {
	Apply(snap *snapshot.Snapshot, set steer.Set) error
	Interfaces() []engine.InterfaceStatus
	NATSpace() *nat.Space
	PathMTU() <-chan engine.PathMTU
	Changes() <-chan struct{}
}

// NextHops knows the way to backends, and the box's own addresses.
type NextHops interface {
	SetTargets(addrs []netip.Addr)
	Hops() map[netip.Addr]nexthop.Hop // shared, and never written
	Moved(since uint64) (addrs []netip.Addr, now uint64, all bool)
	Addresses() []nexthop.Address
	Changes() <-chan struct{}
}

// Health knows which backends answer.
type Health interface {
	SetChecks(checks []health.Check)
	Results() map[string]health.Result
	Result(check string) health.Result
	Changed(since uint64) (checks []string, now uint64, all bool)
	Changes() <-chan struct{}
}

// Ways takes the checks of VIPs to the backend that each is about.
type Ways interface {
	ChangeWays(ways map[string]via.Way, gone []string)
}

// Parts are what a Reconciler reads from and writes to.
type Parts struct {
	DataPlane DataPlane
	NextHops  NextHops
	Health    Health
	Ways      Ways
	Links     Links

	// Announcers are told which addresses can be served, each those that are
	// announced by its name.
	Announcers []announce.Announcer

	// DrainsPath is the file in which it is kept what is drained; empty for none.
	DrainsPath string
}

// Reconciler compiles snapshots. Its exported methods may be called from any
// goroutine.
type Reconciler struct {
	log    *slog.Logger
	parts  Parts
	view   atomic.Pointer[View]
	config atomic.Pointer[config.Config]
	moved  chan struct{} // capacity 1: next is another

	mu       sync.Mutex // held while the configuration changes or is compiled; guards all below
	compiler *compiler
	applied  *snapshot.Snapshot
	drains   map[member]Drain
	mtus     pathMTUs
	next     time.Time // when to compile again, even if nothing happens; zero for never
	seen     seen      // what the compiler's latest snapshot is made of
}

// seen is how much of what others keep has been read.
type seen struct{ hops, health uint64 }

// New makes a reconciler for a configuration; it starts nothing.
func New(cfg *config.Config, parts Parts, log *slog.Logger) *Reconciler {
	r := &Reconciler{
		log: log, parts: parts, moved: make(chan struct{}, 1),
		compiler: newCompiler(), drains: make(map[member]Drain), mtus: make(pathMTUs),
		seen: seen{changelog.Never, changelog.Never},
	}
	r.view.Store(&View{})
	r.config.Store(cfg)
	r.adopt(cfg)
	r.loadDrains()
	return r
}

// adopt has what a configuration is about looked after, and nothing else.
func (r *Reconciler) adopt(cfg *config.Config) {
	r.parts.NextHops.SetTargets(backends(cfg))
	r.parts.Health.SetChecks(checks(cfg))
}

// SetConfig replaces the configuration and compiles it at once. On an error
// the old one stays in force. A drain stays, unless its backend has gone.
func (r *Reconciler) SetConfig(cfg *config.Config) error {
	r.findNew(cfg)
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.config.Load()
	r.config.Store(cfg)
	err := r.compile()
	if err != nil {
		r.config.Store(before)
		r.parts.NextHops.SetTargets(backends(before))
		if err := r.compile(); err != nil {
			r.log.Error("cannot go back to the old configuration", "error", err)
		}
		return err
	}
	r.adopt(cfg) // only now: going back would forget what is known of checks
	r.forgetDrains(cfg)
	return nil
}

// findNew waits, within bounds, until the way to each backend of cfg is known
// or known not to be there, so that traffic does not move to new backends before
// it can reach them.
func (r *Reconciler) findNew(cfg *config.Config) {
	wanted := backends(cfg)
	r.parts.NextHops.SetTargets(append(backends(r.config.Load()), wanted...))
	for range findTime / settle {
		hops := r.parts.NextHops.Hops()
		if !slices.ContainsFunc(wanted, func(a netip.Addr) bool { return hops[a].State == nexthop.Unresolved }) {
			return
		}
		time.Sleep(settle)
	}
}

// Config returns the configuration in force.
func (r *Reconciler) Config() *config.Config { return r.config.Load() }

// View returns what the latest compilation made of things, with the health
// checks' latest results.
func (r *Reconciler) View() *View { return r.view.Load().withHealth(r.parts.Health.Results()) }

// Compiled returns the view that was made with the snapshot now in force, with what
// health checks had found by then. It is the same until there is another snapshot.
func (r *Reconciler) Compiled() *View { return r.view.Load() }

// Run compiles a snapshot now and whenever something has changed, until ctx
// ends.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := r.reconcile(); err != nil {
		return err
	}
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.moved:
			continue
		case <-r.due(failed):
		case <-r.parts.DataPlane.Changes():
		case <-r.parts.NextHops.Changes():
		case <-r.parts.Health.Changes():
		case <-r.parts.Links.Changes():
		case m := <-r.parts.DataPlane.PathMTU():
			if !r.learn(m) {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		r.learnAll()
		err := r.reconcile()
		if failed = err != nil; failed {
			r.log.Error("cannot reconcile; will try again", "error", err)
		}
	}
}

// due returns what fires when it is time to compile again.
func (r *Reconciler) due(failed bool) <-chan time.Time {
	r.mu.Lock()
	next := r.next
	r.mu.Unlock()
	switch {
	case failed:
		return time.After(retry)
	case next.IsZero():
		return nil
	}
	return time.After(time.Until(next))
}

// learn works in what a worker was told about a path. It reports whether that
// changes anything.
func (r *Reconciler) learn(m engine.PathMTU) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.learns(r.config.Load())(m.Backend) && r.mtus.learn(m, time.Now())
}

// learns returns for which backends a path MTU is learned. It is called with mu held.
func (r *Reconciler) learns(cfg *config.Config) func(netip.Addr) bool {
	if cfg.PathMTU != config.PathMTULearn {
		return func(netip.Addr) bool { return false }
	}
	if last := r.compiler.last; last != nil && last.layout.config == cfg {
		return last.layout.members.has
	}
	index := sync.OnceValue(func() memberIndex { return newMemberIndex(cfg) })
	return func(a netip.Addr) bool {
		x := index()
		return x.has(a)
	}
}

// learnAll works in what waits to be learned, so that a burst makes one snapshot.
// Only Run reads the channel, so that what is in it can be counted.
func (r *Reconciler) learnAll() {
	waiting := r.parts.DataPlane.PathMTU()
	for range len(waiting) {
		r.learn(<-waiting)
	}
}

func (r *Reconciler) reconcile() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.compile()
}

// compile makes a snapshot and puts it in force. It is called with mu held.
func (r *Reconciler) compile() error {
	start := time.Now()
	in, seen, expiry := r.input(start)
	out, err := r.compiler.compile(in)
	if err != nil {
		return fmt.Errorf("compile snapshot: %w", err)
	}
	// Only now, as a configuration that cannot be put in force must not use up
	// slots. They are as in the preview, because nobody else takes any.
	if _, err := r.parts.DataPlane.NATSpace().Slots(snatAddresses(in.config)); err != nil {
		return fmt.Errorf("take SNAT addresses: %w", err)
	}
	r.applied, r.seen, r.next = out.snap, seen, sooner(out.next, expiry)
	select {
	case r.moved <- struct{}{}:
	default:
	}
	err = r.parts.DataPlane.Apply(out.snap, out.set)
	r.parts.Ways.ChangeWays(out.ways, out.noWays)
	r.parts.Links.SetInterfaces(links(in.interfaces, in.own))
	r.parts.Links.SetOwn(in.config.NAT.Addresses)
	r.parts.Links.SetBackends(sync.OnceValue(func() map[packet.MAC]netip.Addr { return stations(in.hops) }))
	r.parts.Links.SetAddresses(global(in.own))
	r.advertise(out.view.Addresses)
	r.report(r.view.Swap(out.view), out.view)
	if err != nil {
		return fmt.Errorf("apply snapshot: %w", err)
	}
	r.log.Debug("snapshot applied", "generation", out.view.Generation, "took", time.Since(start))
	return nil
}

// input gathers what is to be compiled, and says what has been read for it and when
// one of the path MTUs in it expires; zero for never.
func (r *Reconciler) input(now time.Time) (in input, read seen, expiry time.Time) {
	cfg := r.config.Load()
	// What has changed is asked for first: what changes after that is read, and once
	// more the next time.
	var allHops, allHealth bool
	var changed changes
	changed.hops, read.hops, allHops = r.parts.NextHops.Moved(r.seen.hops)
	changed.checks, read.health, allHealth = r.parts.Health.Changed(r.seen.health)
	changed.all = allHops || allHealth
	in = input{
		config:     cfg,
		hops:       r.parts.NextHops.Hops(),
		health:     r.parts.Health.Result,
		changes:    changed,
		interfaces: r.parts.DataPlane.Interfaces(),
		own:        r.parts.NextHops.Addresses(),
		nodes:      r.parts.Links.Nodes(),
		stances:    r.parts.Links.Stances(),
		drains:     r.drains,
		now:        now,
		snatSlots:  r.parts.DataPlane.NATSpace().Preview,
	}
	if in.stances == nil {
		in.stances = map[netip.Addr]announce.Stance{} // nothing has been decided yet
	}
	in.mtus, expiry = r.mtus.current(r.learns(cfg), now)
	return in, read, expiry
}
