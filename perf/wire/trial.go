package wire

import (
	"context"
	"errors"
	"os"
	"time"

	"weir/perf/generator"
	"weir/perf/measure"
)

// trial is what happened between two moments.
type trial struct {
	passed
	counters  Counters
	seconds   float64
	asked     int // frames per second
	worker    work
	ticks     measure.Ticks // of it
	generator measure.ThreadTime
}

// loss is the share of the offered frames that was not delivered.
func (t *trial) loss() float64 { return measure.Loss(t.offered, t.delivered) }

// waited is the share of the time in which worker or generator had to wait for
// their core, whichever was worse.
func (t *trial) waited() float64 {
	return max(t.worker.Waited, t.generator.Waited).Seconds() / t.seconds
}

// moment is all counters at one time.
type moment struct {
	trial
	at time.Time
}

func (r *rig) read() (m moment, err error) {
	if m.counters, err = r.running.Counters(); err != nil {
		return m, err
	}
	if r.Source != nil {
		if err := r.Alive(); err != nil {
			return m, err
		}
		if m.generator, err = measure.ReadThread(os.Getpid(), r.Source.Thread()); err != nil {
			return m, err
		}
	}
	if m.worker, err = r.running.Work(r.delivered); err != nil {
		return m, err
	}
	if m.ticks, err = r.running.Ticks(); err != nil {
		return m, err
	}
	begun := time.Now()
	m.passed, err = r.counts()
	m.at = begun.Add(time.Since(begun) / 2)
	return m, err
}

// since turns two moments into a trial.
func (m *moment) since(before *moment) trial {
	return trial{
		passed: passed{m.offered - before.offered, m.delivered - before.delivered},
		counters: Counters{
			Dropped: m.counters.Dropped - before.counters.Dropped,
			Decided: m.counters.Decided - before.counters.Decided,
		},
		seconds:   m.at.Sub(before.at).Seconds(),
		worker:    m.worker.since(before.worker),
		ticks:     m.ticks.Since(before.ticks),
		generator: m.generator.Since(before.generator),
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
	if err := r.settle(ctx); err != nil {
		return trial{}, err
	}
	after, err := r.read()
	t := after.since(&before)
	t.seconds, t.asked = d.Seconds(), rate
	return t, err
}

// overload offers as much as the generator can, and says what happens in some
// time in the midst of it.
func (r *rig) overload(ctx context.Context, warmUp, d time.Duration) (t trial, err error) {
	if r.Source != nil {
		if err := r.Source.SetRate(generator.Unlimited); err != nil {
			return t, err
		}
		defer func() {
			err = errors.Join(err, r.Source.SetRate(0))
			if err == nil {
				err = r.settle(ctx)
			}
		}()
	}
	if err := measure.Sleep(ctx, warmUp); err != nil {
		return t, err
	}
	before, err := r.read()
	if err != nil {
		return t, err
	}
	if err := measure.Sleep(ctx, d); err != nil {
		return t, err
	}
	after, err := r.read()
	return after.since(&before), err
}
