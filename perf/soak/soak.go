// Package soak runs weir's data plane at full load for long, and looks whether
// anything grows or gets lost.
//
// The problem it solves: what leaks a frame in a million, or a kilobyte with each
// snapshot, passes every test and takes a box down after a week. So everything
// that can leak is made to move: packets at full speed, a share of which begin
// new flows, so that entries come and go; and a new snapshot every second, in
// which another backend is out. What is looked at is the process (memory, heap,
// goroutines, descriptors), the flow table, and each single frame of the AF_XDP
// socket: it is in a ring, with the kernel, or free.
package soak

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"weir/dataplane/flow"
	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/measure"
	"weir/perf/sink"
	"weir/perf/testbed"
	"weir/perf/world"
)

// Options says how to soak.
type Options struct {
	measure.Setup               // but Repeats and Window
	For           time.Duration // default 30 min
	Every         time.Duration // between two snapshots, at each of which is looked; default 1 s
	Mode          balancer.Mode // of Modes; default DSR
	Flows         uint32        // that stay; default 65,536
	New           float64       // share of packets that begin another flow; default 0.05
	Rate          int           // packets per second; default as many as possible
	Entries       int           // of the flow table; default 1 Mi
}

func (opt *Options) complete() error {
	if opt.For == 0 {
		opt.For = 30 * time.Minute
	}
	if opt.Every == 0 {
		opt.Every = time.Second
	}
	if opt.Mode == "" {
		opt.Mode = balancer.DSR
	}
	if opt.Flows == 0 {
		opt.Flows = 1 << 16
	}
	if opt.New == 0 {
		opt.New = 0.05
	}
	if opt.Rate == 0 {
		opt.Rate = generator.Unlimited
	}
	if opt.Entries == 0 {
		opt.Entries = 1 << 20
	}
	if opt.For < minTurns*opt.Every {
		return fmt.Errorf("%v with a snapshot every %v: it takes %d of them to tell what grows", opt.For, opt.Every, minTurns)
	}
	if !slices.Contains(Modes(), opt.Mode) {
		return fmt.Errorf("no mode %q: there are %v", opt.Mode, Modes())
	}
	return opt.Setup.Complete()
}

// Modes returns the modes to soak in.
func Modes() []balancer.Mode { return []balancer.Mode{balancer.DSR, balancer.NAT} }

// minTurns is how many samples there have to be.
const minTurns = 16

// Run soaks for as long as asked, and looks in the end once more when all traffic
// is at rest. It needs root. If it fails, or ctx ends, the report has what was
// seen until then.
func Run(ctx context.Context, opt Options) (report Report, err error) {
	if err := opt.complete(); err != nil {
		return Report{}, fmt.Errorf("soak: %w", err)
	}
	if report, err = newReport(&opt); err != nil {
		return report, fmt.Errorf("soak: %w", err)
	}
	r, err := newRig(ctx, &opt)
	if err != nil {
		return report, fmt.Errorf("soak: %w", err)
	}
	err = r.soak(ctx, &opt, &report)
	if err == nil {
		err = r.rest(ctx, &report)
	}
	if err == nil && opt.For >= waitFor {
		err = r.outlive(ctx, &report)
	}
	report.Conclude()
	if err = errors.Join(err, r.close()); err != nil {
		return report, fmt.Errorf("soak: %w", err)
	}
	return report, nil
}

// rig is a data plane at the far end of a wire.
type rig struct {
	*testbed.Bed
	plane   *measure.Asked
	silence context.CancelFunc // ends the generator
	start   time.Time
}

// snats is how many SNAT addresses there are.
const snats = 4

func newRig(ctx context.Context, opt *Options) (_ *rig, err error) {
	bed, err := testbed.New()
	if err != nil {
		return nil, err
	}
	r := &rig{Bed: bed}
	ctx, r.silence = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.Cable(1); err != nil {
		return nil, err
	}
	r.plane, err = measure.StartAsked(r.Far, exec.Command(opt.Program, "perf", planeName), balancer.Options{
		Mode: opt.Mode, Interface: testbed.FarName, Queues: 1, CPU: opt.CPUs[1], Entries: opt.Entries,
		NewRate: balancer.NewRate, SNAT: snats,
	})
	if err != nil {
		return nil, fmt.Errorf("start data plane: %w", err)
	}
	return r, r.OpenEnds(ctx, generator.Options{
		To: world.VIP(false), TCP: true, Flows: opt.Flows, SYNShare: opt.New, Seed: opt.Seed, CPU: opt.CPUs[0],
	}, sink.Options{})
}

func (r *rig) close() error {
	r.silence()
	var err error
	if r.plane != nil {
		err = r.plane.Stop(measure.StopGrace)
	}
	return errors.Join(err, r.Close())
}

// soak sends, and takes a sample with each new snapshot.
func (r *rig) soak(ctx context.Context, opt *Options, report *Report) error {
	if err := r.Source.SetRate(opt.Rate); err != nil {
		return err
	}
	r.start = time.Now()
	for next := r.start; next.Before(r.start.Add(opt.For)); next = next.Add(opt.Every) {
		if err := measure.Sleep(ctx, time.Until(next)); err != nil {
			return err
		}
		s, err := r.sample(ctx, askTurn)
		if err != nil {
			return err
		}
		report.Samples = append(report.Samples, s)
		if len(report.Samples)%logEvery == 0 {
			opt.Log.Info("soaking", "seconds", int(s.Seconds), "memory", s.Memory, "heap", s.Heap, "flows", s.Flows, "received", s.Received)
		}
	}
	return r.Source.SetRate(0)
}

// logEvery is how many samples there are for each line in the log.
const logEvery = 60

// rest waits until nothing moves any more, and takes the last sample.
func (r *rig) rest(ctx context.Context, report *Report) error {
	type moved struct {
		sent, received uint64
		arrived        sink.Counts
	}
	var last Rest
	err := measure.Settle(ctx, func() (m moved, err error) {
		if last.Offered, err = r.Source.Sent(); err != nil {
			return m, err
		}
		if last.Arrived, err = r.Sink.Arrived(); err != nil {
			return m, err
		}
		last.Sample, err = r.sample(ctx, askSample)
		return moved{last.Offered, last.Received, last.Arrived}, err
	})
	if err != nil {
		return err
	}
	last.Refused, err = r.Refused()
	report.Rest = &last
	return err
}

// waitFor is how long a run has to be for it to be worth waiting until new flows
// have gone, which takes a minute and a quarter.
const waitFor = 5 * time.Minute

// outlive waits until all flows of one packet are over, or should be, and looks
// how many are left.
func (r *rig) outlive(ctx context.Context, report *Report) error {
	r.silence()                   // the generator keeps a core busy at any rate
	const sweep = 8 * time.Second // of the worker, over its table
	deadline := time.Now().Add(2 * (flow.DefaultTimeouts().TCPSYN + sweep))
	for {
		s, err := r.sample(ctx, askSample)
		if err != nil {
			return err
		}
		if report.Gone = &s; s.Flows <= int(report.Flows) || time.Now().After(deadline) {
			return nil
		}
		if err := measure.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// sample asks the plane for a sample. What is seen from outside is added here.
func (r *rig) sample(ctx context.Context, question string) (s Sample, err error) {
	if err := r.plane.Ask(ctx, question, &s); err != nil {
		return s, err
	}
	s.Seconds = time.Since(r.start).Seconds()
	s.Memory, err = measure.ResidentMemory(r.plane.Process.PID())
	return s, err
}
