// Package wire measures what forwards packets from one end of a wire to the other:
// forwarding loops on the AF_XDP rings of dataplane/afxdp and on a ready-made
// library, and, in the same harness, weir's whole data plane.
//
// The problem it solves: what a packet costs from wire to wire is not the sum of
// what its parts cost alone.
package wire

import (
	"context"
	"fmt"
	"time"

	"weir/lab/netlab"
	"weir/perf/balancer"
	"weir/perf/loops"
	"weir/perf/measure"
)

// A whole data plane can take the place of a loop. It has one worker, but for
// WeirKeep2: that one has two on the same CPU, and as all frames come in by one
// queue, and a hash says which worker owns a flow, half of them are handed over.
const (
	WeirDSR   loops.Kind = "weir-dsr"
	WeirNAT   loops.Kind = "weir-nat" // towards the backend, IPv4 to IPv4
	WeirKeep  loops.Kind = "weir-keep"
	WeirKeep2 loops.Kind = "weir-keep-2"
)

// Balancers returns the kinds of loops that are whole data planes.
func Balancers() []loops.Kind { return []loops.Kind{WeirDSR, WeirNAT, WeirKeep, WeirKeep2} }

// balancerOf returns what such a kind is.
func balancerOf(kind loops.Kind) (mode balancer.Mode, queues int) {
	switch kind {
	case WeirDSR:
		return balancer.DSR, 1
	case WeirNAT:
		return balancer.NAT, 1
	case WeirKeep:
		return balancer.Keep, 1
	case WeirKeep2:
		return balancer.Keep, 2
	}
	return "", 0
}

// balancerEntries is how many entries their flow tables have: the default.
const balancerEntries = 1 << 20

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

// Options says how to measure loops.
type Options struct {
	measure.Setup
	Step      time.Duration // of a trial of the binary search; default 200 ms
	Flows     uint32        // default 1024
	Ring      int           // entries of the loops' rings; default 2048, which data planes have
	Kinds     []loops.Kind  // default all of package loops
	Scenarios []Scenario    // default all
}

func (opt *Options) complete() error {
	if opt.Step == 0 {
		opt.Step = 200 * time.Millisecond
	}
	if opt.Flows == 0 {
		opt.Flows = 1024
	}
	if opt.Ring == 0 {
		opt.Ring = 2048
	}
	if len(opt.Kinds) == 0 {
		opt.Kinds = loops.Kinds()
	}
	if len(opt.Scenarios) == 0 {
		opt.Scenarios = Scenarios()
	}
	return opt.Setup.Complete()
}

// Run measures each kind of loop in each scenario, as often as asked, in
// rounds: all of them once, in random order, before any of them again. It needs
// root. If it fails, or ctx ends, the report has what was measured until then.
func Run(ctx context.Context, opt Options) (Report, error) {
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
	var cells []Cell
	for _, kind := range opt.Kinds {
		for _, scenario := range opt.Scenarios {
			cells = append(cells, Cell{Loop: kind, Scenario: scenario})
		}
	}
	err = measure.Rounds(&opt.Setup, cells, func(round int, cell Cell) error {
		cell.Round = round
		if err := cell.measure(ctx, &opt); err != nil {
			return fmt.Errorf("measure loop %s, %s, round %d: %w", cell.Loop, cell.Scenario, cell.Round, err)
		}
		report.Add(cell)
		opt.Log.Info("measured", "loop", cell.Loop, "scenario", cell.Scenario, "round", cell.Round,
			"offered", measure.Round3(cell.Offered), "delivered", measure.Round3(cell.Delivered), "waited", cell.LoopWaited)
		return nil
	})
	return report, err
}
