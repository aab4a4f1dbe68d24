package wire

import (
	"context"
	"errors"
	"os"
	"time"
	"weir/perf/measure"
)

// trial is what happened between two moments.
type trial struct {
	seconds   float64
	asked     int // frames per second
	offered   uint64
	delivered uint64
	loop      measure.ThreadTime
	generator measure.ThreadTime
}

// loss is the share of the offered frames that was not delivered.
func (t *trial) loss() float64 { return measure.Loss(t.offered, t.delivered) }

// read returns all counters as they are, with no time.
func (r *rig) read() (t trial, err error) {
	p, err := r.counts()
	if err != nil {
		return t, err
	}
	t.offered, t.delivered = p.offered, p.delivered
	if t.loop, err = r.loop.Time(); err != nil {
		return t, err
	}
	if r.Source != nil {
		t.generator, err = measure.ReadThread(os.Getpid(), r.Source.Thread())
	}
	return t, err
}

// since turns counters into a trial.
func (t *trial) since(before trial, d time.Duration) trial {
	return trial{
		seconds:   d.Seconds(),
		offered:   t.offered - before.offered,
		delivered: t.delivered - before.delivered,
		loop:      t.loop.Since(before.loop),
		generator: t.generator.Since(before.generator),
	}
}

// try offers so many frames per second for some time, waits for the last of
// them, and says what came of it. Nothing is on its way before or after.
func (r *rig) try(ctx context.Context, rate int, d time.Duration) (trial, error) {
	before, err := r.read()
	if err != nil {
		return trial{}, err
	}
	start := time.Now()
	if err := r.Source.SetRate(rate); err != nil {
		return trial{}, err
	}
	slept := measure.Sleep(ctx, d)
	if err := errors.Join(slept, r.Source.SetRate(0)); err != nil {
		return trial{}, err
	}
	d = time.Since(start)
	if err := measure.Settle(ctx, r.counts); err != nil {
		return trial{}, err
	}
	after, err := r.read()
	t := after.since(before, d)
	t.asked = rate
	return t, err
}

// watch says what happens in some time without anything being done.
func (r *rig) watch(ctx context.Context, d time.Duration) (trial, error) {
	before, err := r.read()
	if err != nil {
		return trial{}, err
	}
	start := time.Now()
	if err := measure.Sleep(ctx, d); err != nil {
		return trial{}, err
	}
	after, err := r.read()
	return after.since(before, time.Since(start)), err
}
