// Package flood measures what a flood of SYNs does to weir, and to who was there
// before.
//
// The problem it solves: that a flood takes no flow and no memory (decision 0014)
// cannot be seen from outside, where the same backend would be chosen again. So
// all backends are drained before it: a flow whose entry is lost goes elsewhere.
package flood

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/measure"
)

// Options says how to measure floods.
type Options struct {
	measure.Setup
	Modes     []balancer.Mode // default Modes
	Rates     []Rate          // of the flood; default none to full speed
	Flows     uint32          // established before the flood; default 10,000
	FlowsRate int             // packets per second of these, in all; default 20,000
	Entries   int             // of the flow table; default 262,144
}

// Rate is how many SYNs a flood has per second.
type Rate int

// FullSpeed is as many as the generator can send.
const FullSpeed Rate = -1

func (r Rate) String() string {
	if r == FullSpeed {
		return "full"
	}
	return strconv.Itoa(int(r))
}

// ParseRate is the reverse of String.
func ParseRate(text string) (Rate, error) {
	if text == FullSpeed.String() {
		return FullSpeed, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("rate %q is neither a number nor %q", text, FullSpeed)
	}
	return Rate(n), nil
}

func (r Rate) generators() int {
	if r == FullSpeed {
		return generator.Unlimited
	}
	return int(r)
}

// Modes returns the modes that are measured by default.
func Modes() []balancer.Mode {
	return []balancer.Mode{balancer.DSR, balancer.NAT, balancer.Limited}
}

// Rates returns the rates that floods have by default.
func Rates() []Rate { return []Rate{0, 250_000, 500_000, 1_000_000, FullSpeed} }

func (opt *Options) complete() error {
	if len(opt.Modes) == 0 {
		opt.Modes = Modes()
	}
	for _, m := range opt.Modes {
		if !slices.Contains(balancer.Modes(), m) {
			return fmt.Errorf("no mode %q: there are %v", m, balancer.Modes())
		}
	}
	if len(opt.Rates) == 0 {
		opt.Rates = Rates()
	}
	if opt.Flows == 0 {
		opt.Flows = 10_000
	}
	if opt.FlowsRate == 0 {
		opt.FlowsRate = 20_000
	}
	if opt.Entries == 0 {
		opt.Entries = 1 << 18
	}
	return opt.Setup.Complete()
}

// sources is where floods come from: elsewhere than flows do.
func sources() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 8) }

// Run measures what floods of each rate do to weir in each mode, and to flows
// that were established before, in rounds of random order. It needs root. If it
// fails, or ctx ends, the report has what was measured until then.
func Run(ctx context.Context, opt Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("measure floods: %w", err)
	}
	head, err := opt.Begin()
	if err != nil {
		return Report{}, fmt.Errorf("measure floods: %w", err)
	}
	report := Report{
		Head:        head,
		Driver:      "veth",
		Mode:        "copy",
		FrameLen:    generator.FrameLen,
		Flows:       opt.Flows,
		FlowsRate:   opt.FlowsRate,
		Entries:     opt.Entries,
		NewRate:     balancer.NewRate,
		Limit:       balancer.LimitNewFlows,
		Window:      opt.Window.Seconds(),
		GeneratorOn: opt.CPUs[0],
		WorkerOn:    opt.CPUs[1],
	}
	var cells []Cell
	for _, mode := range opt.Modes {
		for _, rate := range opt.Rates {
			cells = append(cells, Cell{Mode: mode, Rate: rate})
		}
	}
	err = measure.Rounds(&opt.Setup, cells, func(round int, cell Cell) error {
		cell.Round = round
		if err := cell.measure(ctx, &opt); err != nil {
			return fmt.Errorf("measure flood of %s/s, %s, round %d: %w", cell.Rate, cell.Mode, cell.Round, err)
		}
		report.Add(cell)
		opt.Log.Info("measured", "mode", cell.Mode, "flood", cell.Rate, "round", cell.Round, "offered", measure.Round3(cell.Offered),
			"taken", measure.Round3(cell.Taken), "loss", cell.FlowsLoss, "gone", cell.Gone, "moved", cell.Moved, "waited", cell.WorkerWaited)
		return nil
	})
	return report, err
}
