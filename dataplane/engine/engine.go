// Package engine runs the data plane: it opens the interfaces, runs a worker
// for each of their queues, and hands all of them each new snapshot.
//
// The problem it solves: interfaces come and go while weir runs. One that is
// pulled out must not take the others with it, and one that comes back must be
// put to work again without anybody's help.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"weir/dataplane/afxdp"
	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/nic"
	"weir/dataplane/snapshot"
	"weir/dataplane/worker"
)

// Interface says how one interface is to be worked.
type Interface struct {
	Name     string
	Driver   nic.Driver
	XDPModes []afxdp.Mode // nil for all, best first
	Queues   int          // 0 for all
	CPUs     []int        // for its workers, in order, over again if too few; nil for any
}

// Config is what an Engine is made of.
type Config struct {
	Interfaces  []Interface
	FlowEntries int // per worker
	Timeouts    flow.Timeouts
	StateDir    string // folder for what a killed weir has to tell the next; empty for none
	Log         *slog.Logger
}

// Engine runs the workers. Its methods may be called from any goroutine.
type Engine struct {
	cfg      Config
	cpus     []int // those allowed, for workers without a CPU of their own
	snapshot atomic.Pointer[snapshot.Snapshot]
	changes  chan struct{}

	mu         sync.Mutex // guards all below, and interfaces' fields
	vips       []netip.Addr
	interfaces []*iface
	rings      map[ringKey]*handover.Ring
}

// ringKey names a ring by its two ends. Rings are not reused between workers,
// so each has one producer and one consumer for ever.
type ringKey struct{ from, to *worker.Worker }

// New makes an engine; nothing is opened yet.
func New(cfg Config) (*Engine, error) {
	cpus, err := allowedCPUs()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg:     cfg,
		cpus:    cpus,
		changes: make(chan struct{}, 1),
		rings:   make(map[ringKey]*handover.Ring),
	}
	empty := snapshot.Spec{}
	for i, ic := range cfg.Interfaces {
		e.interfaces = append(e.interfaces, &iface{engine: e, index: uint16(i), cfg: ic})
		empty.Interfaces = append(empty.Interfaces, snapshot.Interface{Name: ic.Name})
	}
	first, err := snapshot.New(empty)
	if err != nil {
		return nil, err
	}
	e.snapshot.Store(first)
	return e, nil
}

// Open opens all interfaces. If one cannot be opened, none stays open, and the
// error names each and what to do about it.
func (e *Engine) Open() error {
	var errs []error
	for _, i := range e.interfaces {
		if err := i.open(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	for _, i := range e.interfaces {
		i.close()
	}
	return errors.Join(errs...)
}

// Run works all interfaces, which Open has opened, until ctx ends, and closes
// them. An interface that fails is opened again when it is back.
func (e *Engine) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.watchLinks(ctx) })
	for _, i := range e.interfaces {
		g.Go(func() error { i.run(ctx); return nil })
	}
	return g.Wait()
}

// Apply makes snap what the workers go by, and vips, its addresses, what is
// taken from the kernel on every interface. An address that is both old and
// new is served throughout. The error names the interfaces on which not all of
// vips is taken; snap is in force even then.
func (e *Engine) Apply(snap *snapshot.Snapshot, vips []netip.Addr) error {
	e.snapshot.Store(snap)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.vips = vips
	var errs []error
	for _, i := range e.interfaces {
		if i.nic == nil {
			continue
		}
		if err := i.nic.SetVIPs(vips); err != nil {
			errs = append(errs, fmt.Errorf("steer frames of %s: %w", i.cfg.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Snapshot returns what the workers go by now.
func (e *Engine) Snapshot() *snapshot.Snapshot { return e.snapshot.Load() }

// Changes signals that Interfaces has something new to say.
func (e *Engine) Changes() <-chan struct{} { return e.changes }

func (e *Engine) changed() {
	select {
	case e.changes <- struct{}{}:
	default:
	}
}

// connect gives every worker its ways to the workers of other interfaces. It is
// called with mu held whenever an interface's workers have changed.
func (e *Engine) connect() {
	rings := make(map[ringKey]*handover.Ring)
	inbound := make(map[*worker.Worker][]*handover.Ring)
	outbound := make(map[*worker.Worker][]worker.Outbound)
	for _, from := range e.interfaces {
		for n, w := range from.workers {
			ways := make([]worker.Outbound, len(e.interfaces))
			for _, to := range e.interfaces {
				if to == from || len(to.workers) == 0 {
					continue
				}
				peer := to.workers[n%len(to.workers)]
				key := ringKey{w, peer}
				ring := e.rings[key]
				if ring == nil {
					ring = handover.NewRing()
				}
				rings[key] = ring
				ways[to.index] = worker.Outbound{Ring: ring, To: peer}
				inbound[peer] = append(inbound[peer], ring)
			}
			outbound[w] = ways
		}
	}
	e.rings = rings
	for w, ways := range outbound {
		w.Connect(ways, inbound[w])
	}
}

// cpuFor chooses the CPU of an interface's n-th worker: the configured one, or
// else the one with the fewest workers. It is called with mu held.
func (e *Engine) cpuFor(cfg *Interface, n int) int {
	if len(cfg.CPUs) > 0 {
		return cfg.CPUs[n%len(cfg.CPUs)]
	}
	workers := make(map[int]int) // by CPU
	for _, i := range e.interfaces {
		for _, w := range i.workers {
			workers[w.CPU()]++
		}
	}
	least := e.cpus[0]
	for _, cpu := range e.cpus {
		if workers[cpu] < workers[least] {
			least = cpu
		}
	}
	return least
}
