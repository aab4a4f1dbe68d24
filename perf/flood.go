package perf

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"weir/lab/netlab"
	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/measure"
)

// FloodOptions says how to measure floods.
type FloodOptions struct {
	measure.Setup
	Modes     []balancer.Mode // default FloodModes
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

// parseRate is the reverse of String.
func parseRate(text string) (Rate, error) {
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

// FloodModes returns the modes that are measured by default.
func FloodModes() []balancer.Mode {
	return []balancer.Mode{balancer.DSR, balancer.NAT, balancer.Limited}
}

// Rates returns the rates that floods have by default.
func Rates() []Rate { return []Rate{0, 250_000, 500_000, 1_000_000, FullSpeed} }

func (opt *FloodOptions) complete() error {
	if len(opt.Modes) == 0 {
		opt.Modes = FloodModes()
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

// floodFrom is where floods come from: elsewhere than flows do.
func floodFrom() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10}), 8) }

// Flood measures what floods of each rate do to weir in each mode, and to flows
// that were established before, in rounds as [Loops] does. It needs root. If it
// fails, or ctx ends, the report has what was measured until then.
func Flood(ctx context.Context, opt FloodOptions) (FloodReport, error) {
	if err := opt.complete(); err != nil {
		return FloodReport{}, fmt.Errorf("measure floods: %w", err)
	}
	if _, err := netlab.Sweep(); err != nil {
		return FloodReport{}, fmt.Errorf("measure floods: %w", err)
	}
	machine, err := measure.ThisMachine()
	if err != nil {
		return FloodReport{}, fmt.Errorf("measure floods: %w", err)
	}
	report := FloodReport{
		Measured:    time.Now().UTC().Truncate(time.Second),
		Machine:     machine,
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
		Seed:        opt.Seed,
	}
	var cells []FloodCell
	for _, mode := range opt.Modes {
		for _, rate := range opt.Rates {
			cells = append(cells, FloodCell{Mode: mode, Rate: rate})
		}
	}
	err = measure.Rounds(&opt.Setup, cells, func(round int, cell FloodCell) error {
		cell.Round = round
		if err := cell.measure(ctx, &opt); err != nil {
			return fmt.Errorf("measure flood of %s/s, %s, round %d: %w", cell.Rate, cell.Mode, cell.Round, err)
		}
		report.add(cell)
		opt.Log.Info("measured", "mode", cell.Mode, "flood", cell.Rate, "round", cell.Round, "offered", measure.Round3(cell.Offered),
			"taken", measure.Round3(cell.Taken), "loss", cell.FlowsLoss, "gone", cell.Gone, "moved", cell.Moved, "waited", cell.WorkerWaited)
		return nil
	})
	return report, err
}
