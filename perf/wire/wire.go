// Package wire measures what forwards packets from one end of a wire to the
// other: weir in each of its modes and on each of its drivers, the floor under
// it, which is the same driver and no load balancing, and what a user would pick
// instead.
//
// The problem it solves: what a packet costs from wire to wire is not the sum of
// what its parts cost alone, and two programs can only be compared if they were
// given the same packets in the same way. So everything that is compared is a
// [Subject]: it is started at the far end of the same wire, in the same run, and
// is asked the same by each [Scenario]. Of two figures it is their ratio in one
// run that says something.
package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"weir/perf/measure"
)

// Scenario is what is asked of a subject.
type Scenario string

// The scenarios.
const (
	// Core is more frames than the subject can take, which leave by an interface
	// that drops them at once: what does a packet cost its core?
	Core Scenario = "core"

	// Flood is more frames than the subject can take: what does it deliver?
	Flood Scenario = "flood"

	// LossFree is the most that can be offered before more than [MaxLoss] is
	// lost, found by binary search (RFC 2544, section 26.1, in short).
	LossFree Scenario = "lossfree"

	// Latency is how long packets are under way at some shares of the loss-free
	// rate, and when there are next to none (see [Loads]).
	Latency Scenario = "latency"

	// Send is sending without receiving, to an interface that drops everything:
	// what does sending alone cost? For loops only.
	Send Scenario = "send"
)

// Scenarios returns all scenarios.
func Scenarios() []Scenario { return []Scenario{Core, Flood, LossFree, Latency, Send} }

// MaxLoss is the share of frames that a loss-free trial may lose.
const MaxLoss = 0.001

// Options says what to measure and how.
type Options struct {
	measure.Setup
	Subjects  []string   // names; default MainSubjects
	Scenarios []Scenario // default all but Send

	// Flows is how many flows there are, all of them known; default 1 Ki, 64 Ki
	// and 1 Mi. Core is measured with each number, everything else with the first.
	Flows []uint32

	TCP      bool          // and not UDP: segments with ACK; who insists has seen a SYN of each flow before. Not with Zipf
	Zipf     float64       // exponent of how popular flows are; default 0, they take turns
	FrameLen int           // bytes; default the least there is
	Step     time.Duration // of a trial of the binary search, and of warming up; default 200 ms
	Steps    int           // of the binary search; default 8
	Ring     int           // entries of the other libraries' rings; default 2048
	Verify   bool          // look at each packet that arrives by the wire, which costs some tens of nanoseconds
}

func (opt *Options) complete() error {
	if len(opt.Subjects) == 0 {
		opt.Subjects = MainSubjects()
	}
	if len(opt.Scenarios) == 0 {
		opt.Scenarios = []Scenario{Core, Flood, LossFree, Latency}
	}
	for _, s := range opt.Scenarios {
		if !slices.Contains(Scenarios(), s) {
			return fmt.Errorf("no scenario %q; there are %v", s, Scenarios())
		}
	}
	if opt.TCP && opt.Zipf > 0 {
		return errors.New("TCP by Zipf's law: rare flows would not be opened")
	}
	if len(opt.Flows) == 0 {
		opt.Flows = []uint32{1 << 10, 1 << 16, 1 << 20}
	}
	if opt.Step == 0 {
		opt.Step = 200 * time.Millisecond
	}
	if opt.Steps == 0 {
		opt.Steps = 8
	}
	if opt.Ring == 0 {
		opt.Ring = 2048
	}
	return opt.Setup.Complete()
}

// cells returns what is measured in a round.
func (opt *Options) cells() ([]Cell, error) {
	all, err := subjects(opt.Subjects)
	if err != nil {
		return nil, err
	}
	var cells []Cell
	for i := range all {
		s := &all[i]
		if !slices.ContainsFunc(opt.Scenarios, s.can) {
			opt.Log.Info("left out: it cannot be measured in any of these scenarios", "subject", s.Name, "scenarios", opt.Scenarios)
		}
		for _, scenario := range opt.Scenarios {
			if !s.can(scenario) {
				continue
			}
			for n, flows := range opt.Flows {
				if scenario != Core && n > 0 {
					continue
				}
				cells = append(cells, Cell{Subject: s.Name, Scenario: scenario, Flows: flows, Cores: s.cores(scenario, opt.CPUs), subject: s})
			}
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("%v cannot be measured in %v", opt.Subjects, opt.Scenarios)
	}
	return cells, nil
}

// Run measures each subject in each scenario with each number of flows, as often
// as asked, in rounds: all of them once, in random order, before any of them
// again. It needs root. A subject that this kernel does not have is left out, and
// the report says so. If it fails, or ctx ends, the report has what was measured
// until then.
func Run(ctx context.Context, opt Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("measure: %w", err)
	}
	cells, err := opt.cells()
	if err != nil {
		return Report{}, fmt.Errorf("measure: %w", err)
	}
	report, err := newReport(&opt)
	if err != nil {
		return Report{}, fmt.Errorf("measure: %w", err)
	}
	err = measure.Rounds(&opt.Setup, cells, func(round int, cell Cell) error {
		cell.Round = round
		switch err := cell.measure(ctx, &opt); {
		case errors.Is(err, errNotHere):
			if _, known := report.LeftOut[cell.Subject]; !known {
				opt.Log.Warn("left out", "subject", cell.Subject, "reason", err)
			}
			report.leaveOut(cell.Subject, err)
			return nil
		case err != nil:
			return fmt.Errorf("measure %s, %s, %d flows, round %d: %w", cell.Subject, cell.Scenario, cell.Flows, round, err)
		}
		if cell.Wrong != "" {
			opt.Log.Warn("not what it should be", "subject", cell.Subject, "scenario", cell.Scenario, "flows", cell.Flows, "round", round, "wrong", cell.Wrong)
		}
		report.Add(cell)
		opt.Log.Info("measured", "subject", cell.Subject, "scenario", cell.Scenario, "flows", cell.Flows, "round", round,
			"offered", measure.Round3(cell.Offered), "delivered", measure.Round3(cell.Delivered), "ns", cell.NsPerPkt, "waited", cell.WorkerWaited)
		return nil
	})
	return report, err
}
