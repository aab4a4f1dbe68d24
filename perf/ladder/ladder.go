// Package ladder measures what weir itself does with a packet, step by step and
// without any I/O.
//
// The problem it solves: beside its socket, weir's own work is a few tens of
// nanoseconds a packet, which nothing that goes by a real interface can tell
// apart. So the public parts of the data plane are put together here one after
// the other (parsing, service, flow table, rewriting, worker), each rung is fed
// with batches from memory, and what it costs to make these batches is measured
// in the same breath and taken off.
//
// What a reader has to know of it:
//
//   - A rung includes those below it.
//   - Packets are restored before every batch, since weir rewrites them: the frame
//     is copied, the flow's number is written into address and port, and all
//     checksums are right. Buffers are taken in turn as a NIC's ring has it,
//     so packets are in the cache no more than they would be there. Beside it
//     there are rows with a few buffers only: what is measured by running a BPF
//     program again and again (BPF_PROG_TEST_RUN) has a single one.
//   - Gross is all of it; own is gross without the restoring. Both are measured in
//     pairs of short slices, and own is the median of what the slices of a pair
//     differ by.
//   - Time is the thread's on the CPU (CLOCK_THREAD_CPUTIME_ID), and Go's
//     collector does not run meanwhile.
//   - Every single measurement has a flow table of its own, at a new address and
//     with a new secret, and all flows in it before it begins.
package ladder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/perf/measure"
)

// Options says what to measure.
type Options struct {
	Repeats   int           // of each cell; default 5
	Window    time.Duration // of CPU time for each, restoring included; default 80 ms
	CPU       int           // that everything is pinned to; negative for the last allowed one
	Seed      uint64        // of the order; default random
	Flows     []uint32      // powers of two; default 1, 1 Ki, 64 Ki, 1 Mi
	Services  []int         // default 1, 100, 10,000
	Backends  []int         // default 3, 100, 1,000
	Entries   int           // of the flow table, at least; default 1 Mi, as in the appliance. There are four for each flow
	Buffers   int           // for packets, of 2 KiB; default 4,096
	Protocols []Protocol    // default all
	Rungs     []Rung        // default all
	Modes     []Mode        // default all
	NoMemory  bool          // leaves out what memory is taken
	Log       *slog.Logger  // default: nothing is logged
}

// maxEntries is what four for each of the most flows come to. Package flow would
// take more.
const maxEntries = placesPerFlow << 24

// MaxServices is how many there may be: a VIP each, told apart by 16 bits.
const MaxServices = 1 << 16

func (opt *Options) complete() error {
	if opt.Repeats == 0 {
		opt.Repeats = 5
	}
	if opt.Window == 0 {
		opt.Window = 80 * time.Millisecond
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	if len(opt.Flows) == 0 {
		opt.Flows = []uint32{1, 1 << 10, 1 << 16, 1 << 20}
	}
	if len(opt.Services) == 0 {
		opt.Services = []int{1, 100, 10_000}
	}
	if len(opt.Backends) == 0 {
		opt.Backends = []int{3, 100, 1000}
	}
	if opt.Entries == 0 {
		opt.Entries = 1 << 20
	}
	if opt.Buffers == 0 {
		opt.Buffers = 4096
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.CPU < 0 {
		var err error
		if opt.CPU, err = lastCPU(); err != nil {
			return err
		}
	}
	return opt.check()
}

func (opt *Options) check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if opt.Repeats < 1 {
		fail("%d repeats: there has to be one", opt.Repeats)
	}
	if opt.Window <= 0 {
		fail("a window of %v: it has to be some time", opt.Window)
	}
	if opt.Entries < 1 || opt.Entries > maxEntries {
		fail("%d entries: from 1 to %d are possible", opt.Entries, maxEntries)
	}
	for _, n := range opt.Flows {
		if n == 0 || n&(n-1) != 0 || n > 1<<24 {
			fail("%d flows: it has to be a power of two, up to 16 Mi", n)
		}
	}
	for _, n := range opt.Services {
		if n < 1 || n > MaxServices {
			fail("%d services: from 1 to %d are possible", n, MaxServices)
		}
	}
	for _, n := range opt.Backends {
		if n < 1 || n > maxBackends {
			fail("%d backends: from 1 to %d are possible", n, maxBackends)
		}
	}
	if opt.Buffers < forward.BatchSize || opt.Buffers%forward.BatchSize != 0 {
		fail("%d buffers: it has to be a multiple of %d, the size of a batch", opt.Buffers, forward.BatchSize)
	}
	for _, p := range opt.Protocols {
		if !slices.Contains(Protocols(), p) {
			fail("no protocol %q: there are %v", p, Protocols())
		}
	}
	for _, r := range opt.Rungs {
		if !slices.Contains(Rungs(), r) {
			fail("no rung %q: there are %v", r, Rungs())
		}
	}
	for _, m := range opt.Modes {
		if !slices.Contains(Modes(), m) {
			fail("no mode %q: there are %v", m, Modes())
		}
	}
	return errors.Join(errs...)
}

// Run measures each cell as often as asked, in rounds: all of them once, in
// random order, before any of them again. It needs root for the kernel's rung
// only, and says why where that is left out. If it fails, or ctx ends, the
// report has what was measured until then.
func Run(ctx context.Context, opt Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("measure ladder: %w", err)
	}
	report, err := newReport(&opt)
	if err != nil {
		return Report{}, fmt.Errorf("measure ladder: %w", err)
	}
	release, err := hold(opt.CPU)
	if err != nil {
		return Report{}, fmt.Errorf("measure ladder: %w", err)
	}
	defer release()

	l := &ladder{opt: &opt, tables: make(map[int][]uint16)}
	defer l.close()
	cells := grid(&opt)
	if slices.ContainsFunc(cells, func(c Cell) bool { return c.Rung == Kernel }) {
		if err := l.openKernel(); err != nil {
			report.Skipped = append(report.Skipped, fmt.Sprintf("%s: %v", Kernel, err))
			cells = slices.DeleteFunc(cells, func(c Cell) bool { return c.Rung == Kernel })
		}
	}
	if !opt.NoMemory {
		if report.Memory, err = l.memory(); err != nil {
			return report, fmt.Errorf("measure memory: %w", err)
		}
	}
	setup := measure.Setup{Repeats: opt.Repeats, Seed: opt.Seed, Log: opt.Log}
	err = measure.Rounds(&setup, cells, func(round int, cell Cell) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := l.measure(cell)
		if err != nil {
			return fmt.Errorf("measure %s, round %d: %w", cell, round, err)
		}
		s.Round = round
		report.Samples = append(report.Samples, s)
		setup.Log.Info("measured", "cell", cell.String(), "round", round, "gross", round1(s.Gross), "own", round1(s.Own()))
		return nil
	})
	report.SumUp()
	return report, err
}

// ladder is what the cells of a run have in common.
type ladder struct {
	opt    *Options
	tables map[int][]uint16 // Maglev's, by number of backends
	kernel *kernel          // nil if there is none
}

func (l *ladder) close() {
	if l.kernel != nil {
		l.kernel.close()
	}
}

// measure measures a cell once.
func (l *ladder) measure(c Cell) (Sample, error) {
	defer quiet()()
	if c.Rung == Kernel {
		return l.kernel.measure(c, l.opt.Window)
	}
	r, err := l.newRig(c)
	if err != nil {
		return Sample{}, err
	}
	s, err := r.measure(l.opt.Window)
	return s, errors.Join(err, r.close())
}

// ticksOf is the time after some batches, of a worker that takes four million
// packets a second.
func ticksOf(batches uint64) flow.Tick { return flow.Tick(batches >> 12) }
