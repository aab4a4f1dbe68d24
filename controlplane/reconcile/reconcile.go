// Package reconcile makes the data plane do what the configuration says, as far
// as health and next hops allow.
//
// The problem it solves: four things change on their own (the configuration,
// the backends' health, the next hops, the interfaces), and workers must see
// them as one consistent picture. So whatever changes, everything is looked at
// again and compiled into a whole new snapshot; only the expensive parts, the
// Maglev tables, are remembered.
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

	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
	"weir/dataplane/snapshot"
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
	Apply(snap *snapshot.Snapshot, vips []netip.Addr) error
	Interfaces() []engine.InterfaceStatus
	Changes() <-chan struct{}
}

// NextHops knows the way to backends.
type NextHops interface {
	SetTargets(addrs []netip.Addr)
	Hops() map[netip.Addr]nexthop.Hop
	Changes() <-chan struct{}
}

// Health knows which backends answer.
type Health interface {
	SetChecks(checks []health.Check)
	Results() map[string]health.Result
	Changes() <-chan struct{}
}

// Announcer tells the links where the VIPs are.
type Announcer interface {
	Set(vips []netip.Addr, interfaces []l2.Interface)
}

// Parts are what a Reconciler reads from and writes to.
type Parts struct {
	DataPlane DataPlane
	NextHops  NextHops
	Health    Health
	Announcer Announcer
}

// Reconciler compiles snapshots. Its exported methods may be called from any
// goroutine.
type Reconciler struct {
	log    *slog.Logger
	parts  Parts
	view   atomic.Pointer[View]
	config atomic.Pointer[config.Config]

	mu       sync.Mutex // held while the configuration changes or is compiled; guards compiler
	compiler *compiler
}

// New makes a reconciler for a configuration; it starts nothing.
func New(cfg *config.Config, parts Parts, log *slog.Logger) *Reconciler {
	r := &Reconciler{log: log, parts: parts, compiler: newCompiler()}
	r.view.Store(&View{})
	r.adopt(cfg)
	return r
}

func (r *Reconciler) adopt(cfg *config.Config) {
	r.config.Store(cfg)
	r.parts.NextHops.SetTargets(backends(cfg))
	r.parts.Health.SetChecks(checks(cfg))
}

// SetConfig replaces the configuration and compiles it at once. On an error
// the old one stays in force.
func (r *Reconciler) SetConfig(cfg *config.Config) error {
	r.findNew(cfg)
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.config.Load()
	r.adopt(cfg)
	err := r.compile()
	if err != nil {
		r.adopt(before)
		if err := r.compile(); err != nil {
			r.log.Error("cannot go back to the old configuration", "error", err)
		}
	}
	return err
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

// backends returns the addresses of a configuration's backends, each once.
func backends(cfg *config.Config) []netip.Addr {
	var all []netip.Addr
	seen := make(map[netip.Addr]bool)
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			if !seen[b.Address] {
				seen[b.Address] = true
				all = append(all, b.Address)
			}
		}
	}
	return all
}

// Config returns the configuration in force.
func (r *Reconciler) Config() *config.Config { return r.config.Load() }

// View returns what the latest compilation made of things, with the health
// checks' latest results.
func (r *Reconciler) View() *View { return r.view.Load().withHealth(r.parts.Health.Results()) }

// VIPs returns all addresses of a configuration's services, each once.
func VIPs(cfg *config.Config) []netip.Addr {
	var vips []netip.Addr
	seen := make(map[netip.Addr]bool)
	for i := range cfg.Services {
		for _, a := range cfg.Services[i].Addresses {
			if !seen[a] {
				seen[a] = true
				vips = append(vips, a)
			}
		}
	}
	return vips
}

// Run compiles a snapshot now and whenever something has changed, until ctx
// ends.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := r.reconcile(); err != nil {
		return err
	}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-r.parts.DataPlane.Changes():
		case <-r.parts.NextHops.Changes():
		case <-r.parts.Health.Changes():
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
		again = nil
		if err := r.reconcile(); err != nil {
			r.log.Error("cannot reconcile; will try again", "error", err)
			again = time.After(retry)
		}
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
	cfg := r.config.Load()
	interfaces := r.parts.DataPlane.Interfaces()
	snap, view, err := r.compiler.compile(input{
		config:     cfg,
		hops:       r.parts.NextHops.Hops(),
		health:     r.parts.Health.Results(),
		interfaces: interfaces,
	})
	if err != nil {
		return fmt.Errorf("compile snapshot: %w", err)
	}
	vips := VIPs(cfg)
	err = r.parts.DataPlane.Apply(snap, vips)
	r.parts.Announcer.Set(vips, links(interfaces))
	r.report(r.view.Swap(view), view)
	if err != nil {
		return fmt.Errorf("apply snapshot: %w", err)
	}
	r.log.Debug("snapshot applied", "generation", view.Generation, "took", time.Since(start))
	return nil
}

// links returns the interfaces on which a VIP may be announced: those whose
// workers would take what the announcement attracts.
func links(interfaces []engine.InterfaceStatus) []l2.Interface {
	var all []l2.Interface
	for _, i := range interfaces {
		all = append(all, l2.Interface{Name: i.Name, MAC: i.MAC, Up: i.Up && i.Err == nil && i.Workers > 0})
	}
	return all
}

// report logs what has changed for backends, each once.
func (r *Reconciler) report(before, after *View) {
	type key struct {
		service string
		backend netip.Addr
	}
	old := make(map[key]*Backend)
	for i := range before.Services {
		for k := range before.Services[i].Backends {
			b := &before.Services[i].Backends[k]
			old[key{before.Services[i].Name, b.Address}] = b
		}
	}
	for i := range after.Services {
		s := &after.Services[i]
		for k := range s.Backends {
			b := &s.Backends[k]
			was, known := old[key{s.Name, b.Address}]
			if known && was.Status == b.Status && (b.Status != StatusUnreachable || was.Reason == b.Reason) {
				continue
			}
			if !known && b.Status == StatusResolving {
				continue // what comes of it will be said in a moment
			}
			args := []any{"service", s.Name, "backend", b.Address, "status", b.Status}
			if known {
				args = append(args, "was", was.Status)
			}
			if b.Reason != "" {
				args = append(args, "reason", b.Reason)
			}
			level := slog.LevelInfo
			if b.Status == StatusDown || b.Status == StatusUnreachable {
				level = slog.LevelWarn
			}
			r.log.Log(context.Background(), level, "backend", args...)
		}
	}
}
