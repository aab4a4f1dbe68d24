package wire

import (
	"context"
	"time"
)

// Search for the loss-free rate.
const (
	// headroom is how many times more than under a flood may go without loss, to
	// begin with: who does not have to drop what is too much can do more. Some
	// can do much more, so it is doubled until a rate fails.
	headroom = 2.5
	doubles  = 16

	votes     = 2    // a rate is judged when as many of its trials have come out the same,
	disturbed = 0.01 // not counting trials in which worker or generator had to wait for their core for this share of the time,
	patience  = 16   // of which there may be as many in a search; then they count, which shows in what the window has waited
	offersAll = 0.99 // share of what was asked that a generator which is not held up offers
	backOff   = 0.9  // if the whole window loses where the short trials did not
	backOffs  = 20
)

// prober is a rig as the search sees it.
type prober interface {
	overload(ctx context.Context, warmUp, d time.Duration) (trial, error)
	try(ctx context.Context, rate int, d time.Duration) (trial, error)
}

// found is what a search has come to.
type found struct {
	trial                // a window at the highest rate that was free of loss that it has found, or, without one, the last trial
	failed          bool // there is none
	byGenerator     bool // nothing was lost at the next higher rates either, but they were never offered
	tries, discards int  // trials in all, and those of them that did not count
}

// lossFree searches for a rate between one that is free of loss and one that is
// not, in halves.
func lossFree(ctx context.Context, r prober, opt *Options) (found, error) {
	s := search{prober: r, patience: patience}
	flood, err := r.overload(ctx, opt.Step, opt.Step)
	if err != nil {
		return found{}, err
	}
	good, bad := 0, max(int(headroom*float64(flood.delivered)/flood.seconds), 1000)
	why := lossy // of bad
	for range doubles {
		if why, err = s.judge(ctx, bad, opt.Step); err != nil {
			return found{}, err
		}
		if why != free {
			break
		}
		good, bad = bad, 2*bad
	}
	if why == short {
		good = max(good, s.last.rate())
	}
	for range opt.Steps {
		rate := (good + bad) / 2
		v, err := s.judge(ctx, rate, opt.Step)
		if err != nil {
			return found{}, err
		}
		switch v {
		case free:
			good = rate
		case lossy:
			bad, why = rate, v
		case short:
			good, bad, why = max(good, s.last.rate()), rate, v
		}
	}
	for range backOffs {
		if good == 0 {
			break
		}
		v, err := s.judge(ctx, good, opt.Window)
		if err != nil || v != lossy {
			s.last.byGenerator = v == short || why != lossy
			return s.last, err
		}
		good, why = int(float64(good)*backOff), lossy
	}
	s.last.failed = true
	return s.last, nil
}

// search is a search under way.
type search struct {
	prober
	last     found
	patience int
}

// judge tries a rate until as many trials agree.
func (s *search) judge(ctx context.Context, rate int, d time.Duration) (verdict, error) {
	for count := [verdicts]int{}; ; {
		t, err := s.try(ctx, rate, d)
		if err != nil {
			return lossy, err
		}
		s.last.trial = t
		s.last.tries++
		if s.patience > 0 && t.waited() > disturbed {
			s.patience--
			s.last.discards++
			continue
		}
		v := t.verdict()
		if count[v]++; count[v] == votes {
			return v, nil
		}
	}
}

// verdict is what a trial says of its rate.
type verdict int

const (
	free  verdict = iota // nothing to speak of was lost
	lossy                // more was
	short                // nothing was, but less was offered than asked: that much is free of loss, and of the rest nothing is known
	verdicts
)

func (t *trial) verdict() verdict {
	switch {
	case t.loss() > MaxLoss:
		return lossy
	case t.offered == 0 || float64(t.offered) < offersAll*float64(t.asked)*t.seconds:
		return short
	}
	return free
}

// rate is how much was offered per second.
func (t *trial) rate() int { return int(float64(t.offered) / t.seconds) }
