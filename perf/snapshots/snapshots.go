// Package snapshots measures what it takes until a change is in a snapshot, and what
// workers notice of it.
//
// The problem it solves: a snapshot of 1,000 services with 100 backends each is some
// 150 MB. It must be there soon, and soon again whenever one backend goes down or
// comes back, and no worker may be away from its queue because of it. How long that
// takes, and how long a worker is away, is for a measurement to say.
package snapshots

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/perf/measure"
)

// Change is what changes.
type Change string

// The changes. With All, everything is there at once, and there was nothing before.
const (
	All    Change = "all"
	Health Change = "health" // one backend goes down, or comes back
	Weight Change = "weight" // one backend loses its weight, by an order, or gets it back
	Hop    Change = "hop"    // one backend is at another station
)

func changes() []Change { return []Change{All, Health, Weight, Hop} }

// Options says how to measure.
type Options struct {
	measure.Setup     // default of Repeats 3; Window and CPUs are not used
	Services      int // default 1,000
	Backends      int // of each, its own; default 100
	Changes       int // of each kind and round, one after the other; default 200
	Adopts        int // that a worker is watched for; default 200
}

func (o *Options) complete() error {
	for _, n := range []struct {
		value   *int
		def     int
		largest int
	}{{&o.Repeats, 3, 1000}, {&o.Services, 1000, 16384}, {&o.Backends, 100, 4096}, {&o.Changes, 200, 1e6}, {&o.Adopts, 200, 1e6}} {
		if *n.value == 0 {
			*n.value = n.def
		}
		if *n.value < 1 || *n.value > n.largest {
			return fmt.Errorf("%d is not a number from 1 to %d", *n.value, n.largest)
		}
	}
	if o.Services*o.Backends > 1<<20 {
		return errors.New("more than a million backends")
	}
	return o.CompleteWithoutCPUs()
}

// Cell is one kind of change in one round.
type Cell struct {
	Change Change `json:"change"`
	Round  int    `json:"round"`

	// Took is how long each took, in seconds, from when it can be read to the
	// snapshot: the 10 ms for which changes are collected are not in it.
	Took []float64 `json:"took_seconds"`

	CPU       float64 `json:"cpu_seconds"`     // of all threads, the collector's work included, per change
	Allocated float64 `json:"allocated_bytes"` // per change
	Waited    float64 `json:"waited"`          // share of time in which threads waited for a core
}

// Run measures each kind of change, and a worker while each of some things goes on,
// in rounds of random order, each time in a new process. If it fails, or ctx ends,
// the report has what was measured until then.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := o.complete(); err != nil {
		return Report{}, fmt.Errorf("measure snapshots: %w", err)
	}
	r, err := newReport(&o)
	if err != nil {
		return r, fmt.Errorf("measure snapshots: %w", err)
	}
	err = measure.Rounds(&o.Setup, o.parts(), func(round int, p part) error {
		p.Round = round
		out, err := p.start(ctx, o.Program)
		switch {
		case err != nil:
			return fmt.Errorf("measure snapshots, %s, round %d: %w", p, round, err)
		case out.Away != nil:
			r.AddAway(*out.Away)
			o.Log.Info("measured", "while", p.While, "round", round, "longest_seconds", out.Away.Longest, "waited", out.Away.Waited)
			return nil
		}
		r.Add(*out.Cell)
		if p.Change == All {
			r.Heap = append(r.Heap, out.Heap)
		}
		o.Log.Info("measured", "change", p.Change, "round", round, "median_seconds", median(out.Cell.Took), "waited", out.Cell.Waited)
		return nil
	})
	return r, err
}

// watched makes so many changes, and notes what they cost.
func watched(c Cell, changes int, change func(n int) (time.Duration, error)) (Cell, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ranBefore, waitedBefore, err := threads()
	if err != nil {
		return c, err
	}
	start := time.Now()
	for n := range changes {
		took, err := change(n)
		if err != nil {
			return c, fmt.Errorf("change %d of %s: %w", n, c.Change, err)
		}
		c.Took = append(c.Took, took.Seconds())
	}
	elapsed := time.Since(start)
	ran, waited, err := threads()
	if err != nil {
		return c, err
	}
	runtime.ReadMemStats(&after)
	c.CPU = (ran - ranBefore).Seconds() / float64(changes)
	c.Waited = (waited - waitedBefore).Seconds() / elapsed.Seconds()
	c.Allocated = float64(after.TotalAlloc-before.TotalAlloc) / float64(changes)
	return c, nil
}

// threads returns how long all threads of this process have run, and how long those
// that there are now have waited for a core.
func threads() (ran, waited time.Duration, err error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, 0, fmt.Errorf("read run time: %w", err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, 0, fmt.Errorf("list threads: %w", err)
	}
	for _, t := range tasks {
		var id int
		if _, err := fmt.Sscan(t.Name(), &id); err != nil {
			continue
		}
		if spent, err := measure.ReadThread(os.Getpid(), id); err == nil { // it may have ended
			waited += spent.Waited
		}
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), waited, nil
}

// heap returns how much of the heap is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one has found to be garbage is swept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// change makes the n-th change of a kind, waits for the snapshot that has it, and
// looks whether it has.
func (w *world) change(ctx context.Context, rec *reconcile.Reconciler, kind Change, n int) (time.Duration, error) {
	index := n / 2 % len(w.config.Services)
	service := &w.config.Services[index]
	backend := service.Backends[n/2%len(service.Backends)].Address
	away := n%2 == 0 // from the table
	var orderErr error
	change := func() {}
	switch kind {
	case Health:
		state := health.Up
		if away {
			state = health.Down
		}
		change = func() { w.setHealth(service.Name+" "+backend.String(), state) }
	case Hop:
		away = false
		change = func() { w.setHop(backend, func(h *nexthop.Hop) { h.DstMAC[0] ^= 4 }) }
	case Weight:
		order := rec.Undrain
		if away {
			order = func(b netip.Addr, s string) ([]string, error) { return rec.Drain(b, s, 0) }
		}
		change = func() { _, orderErr = order(backend, service.Name) }
	}
	before := w.snap.Load()
	took, err := w.await(ctx, change)
	if err = errors.Join(orderErr, err); err != nil {
		return took, err
	}
	after, want := w.snap.Load(), len(service.Backends)
	if away {
		want--
	}
	if got := len(after.Services[index].Members); got != want || after == before {
		return took, fmt.Errorf("after a change of %s, %d backends of %s are in its table, want %d", kind, got, service.Name, want)
	}
	return took, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
