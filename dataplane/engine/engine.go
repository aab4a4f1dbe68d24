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
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"weir/dataplane/affinity"
	"weir/dataplane/afxdp"
	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/nic"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
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
	StateDir    string         // folder for what a killed weir has to tell the next; empty for none
	Room        *affinity.Room // for workers; nil if they share their CPUs with all else
	Log         *slog.Logger
}

// Engine runs the workers. Its methods may be called from any goroutine.
type Engine struct {
	cfg      Config
	cpus     []int // those allowed, for workers without a CPU of their own
	snapshot atomic.Pointer[snapshot.Snapshot]
	changes  chan struct{}
	space    *nat.Space // shared by all workers
	pathMTU  chan worker.PathMTU
	claims   chan worker.Claim

	mu         sync.Mutex // guards all below, and interfaces' fields
	steered    steer.Set
	interfaces []*iface
	left       []int // CPUs without a worker, as logged last; nil if there are none, or no Room
	rings      map[ringKey]*handover.Ring
}

// ringKey names a ring by its two ends. Rings are not reused between workers,
// so each has one producer and one consumer for ever.
type ringKey struct{ from, to *worker.Worker }

// New makes an engine; nothing is opened yet.
func New(cfg Config) (*Engine, error) {
	cpus, err := affinity.Allowed()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg:     cfg,
		cpus:    cpus,
		changes: make(chan struct{}, 1),
		space:   nat.NewSpace(),
		pathMTU: make(chan worker.PathMTU, 64),
		claims:  make(chan worker.Claim, 1024),
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
	g.Go(func() error { return e.watchWorkers(ctx) })
	for _, i := range e.interfaces {
		g.Go(func() error { i.run(ctx); return nil })
	}
	return g.Wait()
}

// Apply makes snap what the workers go by, and set what is taken from the
// kernel on every interface. What is both in the old set and in the new one is
// served throughout. The error names the interfaces on which not all of set is
// taken; snap is in force even then.
func (e *Engine) Apply(snap *snapshot.Snapshot, set steer.Set) error {
	e.snapshot.Store(snap)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.steered = set
	var errs []error
	for _, i := range e.interfaces {
		if i.nic == nil {
			continue
		}
		if err := i.nic.Steer(set); err != nil {
			errs = append(errs, fmt.Errorf("steer frames of %s: %w", i.cfg.Name, err))
		}
	}
	return errors.Join(errs...)
}

// NATSpace returns what shares the ports of SNAT addresses out to workers.
func (e *Engine) NATSpace() *nat.Space { return e.space }

// PathMTU is what a worker learned about the path to a backend.
type PathMTU = worker.PathMTU

// PathMTU returns what workers learn about the paths to backends.
func (e *Engine) PathMTU() <-chan PathMTU { return e.pathMTU }

// Claim is what another station has said of one of weir's addresses.
type Claim = worker.Claim

// Claims returns what other stations say, by ARP and NDP, of VIPs and SNAT
// addresses, Silent ones too. Each worker tells at most so many that one station
// or one address does not hide another; those that find no room are dropped.
func (e *Engine) Claims() <-chan Claim { return e.claims }

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

// connect tells every worker about the others. It is called with mu held
// whenever an interface's workers have changed.
func (e *Engine) connect() {
	var all []*worker.Worker
	first := make([]int, len(e.interfaces)) // index in all of each interface's first worker
	for _, i := range e.interfaces {
		first[i.index] = len(all)
		all = append(all, i.workers...)
	}
	rings := make(map[ringKey]*handover.Ring)
	ring := func(from, to *worker.Worker) *handover.Ring {
		key := ringKey{from, to}
		if rings[key] == nil {
			if rings[key] = e.rings[key]; rings[key] == nil {
				rings[key] = handover.NewRing()
			}
		}
		return rings[key]
	}
	for _, i := range e.interfaces {
		for n, w := range i.workers {
			peers := &worker.Peers{Egress: make([]int, len(e.interfaces))}
			for _, peer := range all {
				peers.All = append(peers.All, worker.Peer{Ring: ring(w, peer), To: peer})
				peers.Inbound = append(peers.Inbound, ring(peer, w))
			}
			for _, to := range e.interfaces {
				peers.Egress[to.index] = -1
				if len(to.workers) > 0 {
					peers.Egress[to.index] = first[to.index] + n%len(to.workers)
				}
			}
			w.Connect(peers)
		}
	}
	e.rings = rings
}

// freeNumber returns the smallest number that no worker has. It is called with
// mu held.
func (e *Engine) freeNumber() uint16 {
	taken := make(map[uint16]bool)
	for _, i := range e.interfaces {
		for _, w := range i.workers {
			taken[w.Number()] = true
		}
	}
	number := uint16(0)
	for taken[number] {
		number++
	}
	return number
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

// makeRoom keeps all else off the workers' CPUs. What cannot be done is logged: frames
// are forwarded all the same. It is called with mu held when there are new workers,
// which have not begun.
func (e *Engine) makeRoom() {
	if e.cfg.Room == nil {
		return
	}
	var cpus []int
	for _, i := range e.interfaces {
		for _, w := range i.workers {
			cpus = append(cpus, w.CPU())
		}
	}
	left, err := e.cfg.Room.Make(cpus)
	switch {
	case err != nil:
		e.cfg.Log.Warn("workers share their cpus with other threads", "error", err)
	case slices.Equal(left, e.left) && left != nil:
	case len(left) == 0:
		e.cfg.Log.Info("workers share their cpus with other threads: each cpu has a worker", "fix", "leave one without: see ethtool -L, queues and cpus")
	default:
		e.cfg.Log.Info("workers have their cpus for themselves", "others_on", left)
	}
	e.left = left
}
