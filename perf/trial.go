package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// trial is what happened between two moments.
type trial struct {
	seconds   float64
	asked     int // frames per second
	offered   uint64
	delivered uint64
	loop      threadTime
	generator threadTime
}

// loss is the share of the offered frames that was not delivered.
func (t *trial) loss() float64 { return loss(t.offered, t.delivered) }

func loss(offered, delivered uint64) float64 {
	if offered == 0 || delivered >= offered {
		return 0
	}
	return 1 - float64(delivered)/float64(offered)
}

// threadTime is how long a thread has run, and how long it was ready to run and
// did not get a core.
type threadTime struct{ ran, waited time.Duration }

func (t threadTime) since(before threadTime) threadTime {
	return threadTime{t.ran - before.ran, t.waited - before.waited}
}

// readThread reads the scheduler's account of a thread
// (Documentation/scheduler/sched-stats.rst).
func readThread(pid, tid int) (threadTime, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
	if err != nil {
		return threadTime{}, fmt.Errorf("read run time of thread (needs CONFIG_SCHED_INFO): %w", err)
	}
	var ran, waited int64
	if _, err := fmt.Sscan(string(b), &ran, &waited); err != nil {
		return threadTime{}, fmt.Errorf("read run time of thread: %q: %w", b, err)
	}
	return threadTime{time.Duration(ran), time.Duration(waited)}, nil
}

// read returns all counters as they are, with no time.
func (r *rig) read() (t trial, err error) {
	p, err := r.counts()
	if err != nil {
		return t, err
	}
	t.offered, t.delivered = p.offered, p.delivered
	if t.loop, err = r.loop.time(); err != nil {
		return t, err
	}
	if r.source != nil {
		t.generator, err = readThread(os.Getpid(), r.source.Thread())
	}
	return t, err
}

// since turns counters into a trial.
func (t *trial) since(before trial, d time.Duration) trial {
	return trial{
		seconds:   d.Seconds(),
		offered:   t.offered - before.offered,
		delivered: t.delivered - before.delivered,
		loop:      t.loop.since(before.loop),
		generator: t.generator.since(before.generator),
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
	if err := r.source.SetRate(rate); err != nil {
		return trial{}, err
	}
	slept := sleep(ctx, d)
	if err := errors.Join(slept, r.source.SetRate(0)); err != nil {
		return trial{}, err
	}
	d = time.Since(start)
	if err := settle(ctx, r.counts); err != nil {
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
	if err := sleep(ctx, d); err != nil {
		return trial{}, err
	}
	after, err := r.read()
	return after.since(before, time.Since(start)), err
}
