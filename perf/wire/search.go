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

	searchTries = 2    // a rate has failed when it has failed as often in a row
	backOff     = 0.95 // if the whole window loses where the short trials did not
	backOffs    = 12
)

// lossFree returns a window at the highest rate at which it was free of loss, or
// at the last one tried.
func (r *rig) lossFree(ctx context.Context, opt *Options) (trial, error) {
	passes := func(rate int, d time.Duration) (t trial, ok bool, err error) {
		for range searchTries {
			if t, err = r.try(ctx, rate, d); err != nil || t.free() {
				return t, err == nil, err
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
