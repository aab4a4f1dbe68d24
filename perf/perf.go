// Package perf measures weir, and what weir could have been built on, with
// programs that anybody can run again.
//
// The problem it solves: a claim about speed is worth what its measurement is.
// So everything that is compared runs on the same machine in the same run, in
// random order, each time in new network namespaces and a new process; a run
// writes down where it was made, all of its single results, the bad ones too,
// and what disturbed it; and tables are made from what it has written down.
//
// So far there is one measurement, [Loops]: the AF_XDP rings of
// dataplane/afxdp beside a ready-made library.
package perf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/perf/loops"
)

// Scenario is what is asked of a loop.
type Scenario string

// The scenarios.
const (
	// Overload is more frames than the loop can take: what does it deliver?
	Overload Scenario = "overload"

	// LossFree is the most that can be offered before the loop loses more than
	// [MaxLoss], found by binary search (RFC 2544, section 26.1, in short).
	LossFree Scenario = "lossfree"

	// SendOnly is sending without receiving, to an interface that does nothing
	// with it (ifb): what does sending alone cost?
	SendOnly Scenario = "send"
)

// Scenarios returns all scenarios.
func Scenarios() []Scenario { return []Scenario{Overload, LossFree, SendOnly} }

// MaxLoss is the share of frames that a loss-free trial may lose.
const MaxLoss = 0.001

// Options says how to measure.
type Options struct {
	Repeats   int           // of each loop in each scenario; default 5
	Window    time.Duration // of a measurement; default 2 s
	Step      time.Duration // of a trial of the binary search; default 200 ms
	Flows     uint32        // default 1024
	Ring      int           // entries of the loops' rings; default 2048
	CPUs      []int         // of generator and loop; default the first two allowed
	Seed      uint64        // of the order; default random
	Kinds     []loops.Kind  // default all
	Scenarios []Scenario    // default all

	// Program is started, with further arguments, for each loop. It has to have
	// [Command]. Default: the running one.
	Program string

	Log *slog.Logger // default: nothing is logged
}

func (opt *Options) complete() error {
	if opt.Repeats == 0 {
		opt.Repeats = 5
	}
	if opt.Window == 0 {
		opt.Window = 2 * time.Second
	}
	if opt.Step == 0 {
		opt.Step = 200 * time.Millisecond
	}
	if opt.Flows == 0 {
		opt.Flows = 1024
	}
	if opt.Ring == 0 {
		opt.Ring = 2048
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	if len(opt.Kinds) == 0 {
		opt.Kinds = loops.Kinds()
	}
	if len(opt.Scenarios) == 0 {
		opt.Scenarios = Scenarios()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Program == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own program: %w", err)
		}
		opt.Program = program
	}
	if len(opt.CPUs) == 0 {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			return fmt.Errorf("get allowed cpus: %w", err)
		}
		for cpu := 0; cpu < len(set)*64 && len(opt.CPUs) < 2; cpu++ {
			if set.IsSet(cpu) {
				opt.CPUs = append(opt.CPUs, cpu)
			}
		}
	}
	if len(opt.CPUs) != 2 || opt.CPUs[0] == opt.CPUs[1] {
		return errors.New("generator and loop need a cpu each: run on a machine with two, or name two")
	}
	return nil
}

// Loops measures each kind of loop in each scenario, as often as asked, in
// rounds: all of them once, in random order, before any of them again. It needs
// root. If it fails, or ctx ends, the report has what was measured until then.
func Loops(ctx context.Context, opt Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("measure loops: %w", err)
	}
	if _, err := netlab.Sweep(); err != nil {
		return Report{}, fmt.Errorf("measure loops: %w", err)
	}
	report, err := newReport(&opt)
	if err != nil {
		return Report{}, fmt.Errorf("measure loops: %w", err)
	}
	random := rand.New(rand.NewPCG(opt.Seed, 0))
	for round := range opt.Repeats {
		var cells []Cell
		for _, kind := range opt.Kinds {
			for _, scenario := range opt.Scenarios {
				cells = append(cells, Cell{Loop: kind, Scenario: scenario, Round: round + 1})
			}
		}
		random.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for _, cell := range cells {
			if err := cell.measure(ctx, &opt); err != nil {
				return report, fmt.Errorf("measure loop %s, %s, round %d: %w", cell.Loop, cell.Scenario, cell.Round, err)
			}
			report.add(cell)
			opt.Log.Info("measured", "loop", cell.Loop, "scenario", cell.Scenario, "round", cell.Round,
				"offered", round3(cell.Offered), "delivered", round3(cell.Delivered), "waited", cell.LoopWaited)
		}
	}
	return report, nil
}
