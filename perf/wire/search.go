package wire

import (
	"context"
	"time"
)

// Binary search for the loss-free rate.
const (
	// headroom is how many times more than under a flood may go without loss:
	// who does not have to drop what is too much can do more.
	headroom = 2.5

	searchTries = 2    // a rate has failed when it has failed as often in a row,
	disturbed   = 0.01 // not counting trials in which worker or generator had to wait for their core for this share of the time,
	disturbs    = 8    // of which there may be as many
	backOff     = 0.95 // if the whole window loses where the short trials did not
	backOffs    = 12
)

// prober is a rig as the search sees it.
type prober interface {
	overload(ctx context.Context, warmUp, d time.Duration) (trial, error)
	try(ctx context.Context, rate int, d time.Duration) (trial, error)
}

// lossFree returns a window at the highest rate at which it was free of loss, or
// at the last one tried.
func lossFree(ctx context.Context, r prober, opt *Options) (trial, error) {
	passes := func(rate int, d time.Duration) (t trial, ok bool, err error) {
		for tries, disturbs := 0, disturbs; tries < searchTries; {
			if t, err = r.try(ctx, rate, d); err != nil || t.free() {
				return t, err == nil, err
			}
			if disturbs > 0 && t.waited() > disturbed {
				disturbs--
			} else {
				tries++
			}
		}
		return t, false, nil
	}
	flood, err := r.overload(ctx, opt.Step, opt.Step)
	if err != nil {
		return flood, err
	}
	good, bad := 0, max(int(headroom*float64(flood.delivered)/flood.seconds), 1000)
	for range opt.Steps {
		rate := (good + bad) / 2
		_, ok, err := passes(rate, opt.Step)
		if err != nil {
			return trial{}, err
		}
		if ok {
			good = rate
		} else {
			bad = rate
		}
	}
	var t trial
	for range backOffs {
		var ok bool
		var err error
		if t, ok, err = passes(good, opt.Window); err != nil || ok {
			return t, err
		}
		good = int(float64(good) * backOff)
	}
	return t, nil // it has failed, which shows
}

// free tells whether a trial lost nothing to speak of.
func (t *trial) free() bool { return t.delivered > 0 && t.loss() <= MaxLoss }
