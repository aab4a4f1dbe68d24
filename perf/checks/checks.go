// Package checks measures what thousands of health checks cost weir.
//
// The problem it solves: a check is cheap and there are many, and what one costs
// is spent in sockets, tunnel and kernel as much as in weir. So the built weir is
// measured as a whole, as a user runs it, with all of its threads.
package checks

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"weir/perf/measure"
)

// Kind is what is asked of a backend.
type Kind string

// The kinds. With none, backends are there all the same.
const (
	None Kind = "none"
	TCP  Kind = "tcp"
	HTTP Kind = "http"
)

// Target is who is asked.
type Target string

// A VIP is asked through the tunnel, on one given backend; a backend at its own
// address, by the kernel's routes. In the configuration this is check_address.
const (
	ToVIP     Target = "vip"
	ToBackend Target = "backend"
)

// Options says how to measure health checks.
type Options struct {
	measure.Setup               // default of Repeats 3, of Window 10 s; CPUs are not used
	Weir          string        // the weir binary
	Backends      int           // default 5,000
	Interval      time.Duration // of each check; default 1 s
	WarmUp        time.Duration // from the last backend's being up to the measurement; default 3 s
}

func (opt *Options) complete() error {
	if opt.Weir == "" {
		return errors.New("no weir binary: build it with make build")
	}
	var err error
	if opt.Weir, err = filepath.Abs(opt.Weir); err != nil {
		return err
	}
	if opt.Backends == 0 {
		opt.Backends = 5000
	}
	if opt.Backends < minChecked || opt.Backends > maxChecked {
		return fmt.Errorf("%d backends, want %d to %d", opt.Backends, minChecked, maxChecked)
	}
	if opt.Interval == 0 {
		opt.Interval = time.Second
	}
	if opt.WarmUp == 0 {
		opt.WarmUp = 3 * time.Second
	}
	if opt.Repeats == 0 {
		opt.Repeats = 3
	}
	if opt.Window == 0 {
		opt.Window = 10 * time.Second
	}
	return opt.Setup.CompleteWithoutCPUs()
}

// cells returns what is measured in a round: the same backends each time, so
// that the first is what they cost when nobody checks them.
func (opt *Options) cells() []Cell {
	all := opt.Backends
	return []Cell{
		{Kind: None},
		{Kind: TCP, To: ToVIP, Checked: all / 5},
		{Kind: TCP, To: ToVIP, Checked: all},
		{Kind: HTTP, To: ToVIP, Checked: all},
		{Kind: TCP, To: ToBackend, Checked: all},
	}
}

// Run measures what the health checks of many backends cost weir, the built
// binary, in rounds of random order. It needs root. If it fails, or ctx ends, the
// report has what was measured until then.
func Run(ctx context.Context, opt Options) (Report, error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("measure health checks: %w", err)
	}
	head, err := opt.Begin()
	if err != nil {
		return Report{}, fmt.Errorf("measure health checks: %w", err)
	}
	version, err := measure.VersionOf(ctx, opt.Weir)
	if err != nil {
		return Report{}, fmt.Errorf("measure health checks: %w", err)
	}
	report := Report{
		Head:     head,
		Weir:     version,
		Backends: opt.Backends,
		Interval: opt.Interval.Seconds(),
		Window:   opt.Window.Seconds(),
		WarmUp:   opt.WarmUp.Seconds(),
	}
	err = measure.Rounds(&opt.Setup, opt.cells(), func(round int, cell Cell) error {
		cell.Round = round
		if err := cell.measure(ctx, &opt); err != nil {
			return fmt.Errorf("measure %d %s checks to %s, round %d: %w", cell.Checked, cell.Kind, cell.To, round, err)
		}
		report.Add(cell)
		opt.Log.Info("measured", "checks", cell.Checked, "kind", cell.Kind, "to", cell.To, "round", round, "cpu", cell.CPU,
			"made", cell.Made, "up", cell.Up, "ready", cell.Ready, "start_cpu", cell.StartCPU, "logged", cell.Logged, "waited", cell.Waited)
		return nil
	})
	return report, err
}
