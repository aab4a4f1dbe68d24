package wire

import (
	"context"
	"math"
	"testing"
	"time"

	"weir/perf/measure"
)

// model is a subject that forwards so many frames per second and no more, and a
// generator in front of it.
type model struct {
	capacity float64
	flooded  float64 // what it forwards under a flood
	short    float64 // loses at rates above this in trials that are long; 0 does not
	offers   float64 // the most that the generator offers; 0 is no limit

	first  int  // so many of its first trials
	loses  bool // lose half at any rate,
	offset bool // or lose nothing, as only a part of the rate is offered,
	silent bool // and these do not say that something else had the core

	trials int
}

func (m *model) overload(context.Context, time.Duration, time.Duration) (trial, error) {
	return trial{passed: passed{offered: 1e8, delivered: uint64(m.flooded)}, seconds: 1}, nil
}

func (m *model) try(_ context.Context, rate int, d time.Duration) (trial, error) {
	m.trials++
	capacity, offered := m.capacity, float64(rate)
	if m.short > 0 && d >= time.Second {
		capacity = m.short
	}
	if m.offers > 0 {
		offered = min(offered, m.offers)
	}
	t := trial{seconds: d.Seconds(), asked: rate}
	if m.trials <= m.first {
		if m.offset {
			offered = min(offered, capacity) / 2
		}
		if m.loses {
			capacity = offered / 2
		}
		if !m.silent {
			t.worker.Waited = d / 10
		}
	}
	t.offered = uint64(offered * t.seconds)
	t.delivered = uint64(min(offered, capacity) * t.seconds)
	return t, nil
}

func searchOptions() *Options {
	return &Options{Setup: measure.Setup{Window: time.Second}, Step: 100 * time.Millisecond, Steps: 8}
}

// The search finds what the model can do, to the step of the search and the loss
// that is allowed, and is not led astray by trials that were disturbed, nor by
// those in which less was offered than asked.
func TestLossFree(t *testing.T) {
	for name, m := range map[string]model{
		"more than under a flood":       {capacity: 2e6, flooded: 1.35e6},
		"as under a flood":              {capacity: 5e5, flooded: 5e5},
		"collapses under a flood":       {capacity: 2e6, flooded: 1e4},
		"nothing under a flood":         {capacity: 2e6},
		"disturbed and losing":          {capacity: 1e6, flooded: 1e6, first: patience, loses: true},
		"disturbed and little offered":  {capacity: 1e6, flooded: 1e6, first: patience, offset: true},
		"loses once without a reason":   {capacity: 1e6, flooded: 4e5, first: 1, loses: true, silent: true},
		"little is offered once":        {capacity: 1e6, flooded: 1e6, first: 1, offset: true, silent: true},
		"loses in the whole window":     {capacity: 1e6, flooded: 1e6, short: 8e5},
		"generator limits":              {capacity: 9e6, flooded: 1e6, offers: 3e6},
		"generator limits at its start": {capacity: 9e6, flooded: 2e6, offers: 3e6},
	} {
		t.Run(name, func(t *testing.T) {
			opt := searchOptions()
			got, err := lossFree(t.Context(), &m, opt)
			if err != nil {
				t.Fatal(err)
			}
			want := m.capacity
			if m.short > 0 {
				want = m.short
			}
			if m.offers > 0 {
				want = min(want, m.offers)
			}
			if got.failed || got.loss() > MaxLoss {
				t.Errorf("failed %v, loses %g", got.failed, got.loss())
			}
			if limited := m.offers > 0; got.byGenerator != limited {
				t.Errorf("limited by the generator: %v, want %v", got.byGenerator, limited)
			}
			if got.tries != m.trials || !m.silent && got.discards != m.first {
				t.Errorf("%d tries and %d discards of %d trials, %d of them disturbed", got.tries, got.discards, m.trials, m.first)
			}
			step := max(headroom*m.flooded, 2*want) / math.Exp2(float64(opt.Steps))
			rate := float64(got.asked)
			lowest := (want - step) * (1 - 1e-9)
			if m.short > 0 {
				lowest *= backOff
			}
			highest := want / (1 - MaxLoss)
			if m.offers > 0 {
				highest = want / offersAll
			}
			if rate < lowest || rate > highest {
				t.Errorf("found %.0f, want %.0f (%.0f to %.0f)", rate, want, lowest, highest)
			}
		})
	}
}

// A generator that is held up all the time offers a part of whatever it is asked.
// What it has offered is found then, and is said to be its limit.
func TestHeldUp(t *testing.T) {
	m := model{flooded: 1e6, capacity: 1e6, first: math.MaxInt, offset: true}
	got, err := lossFree(t.Context(), &m, searchOptions())
	if err != nil || got.failed || !got.byGenerator {
		t.Fatalf("%+v, %v", got, err)
	}
	if rate := got.rate(); rate < 200_000 || rate > 500_000 {
		t.Errorf("found %d, of a generator that offers half, and at most 500000", rate)
	}
}

// Where nothing gets through at any rate, no rate is found, and the search ends
// without trying none.
func TestNoLossFree(t *testing.T) {
	for name, m := range map[string]model{
		"loses at any rate":     {flooded: 1e6, capacity: 1e6, first: math.MaxInt, loses: true, silent: true},
		"nothing is delivered":  {flooded: 1e6},
		"disturbed at any rate": {flooded: 1e6, capacity: 1e6, first: math.MaxInt, loses: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := lossFree(t.Context(), &m, searchOptions())
			if err != nil || !got.failed {
				t.Errorf("%+v, %v", got, err)
			}
			c := Cell{Scenario: LossFree, Failed: got.failed}
			if c.set(&got.trial); !c.failed() {
				t.Errorf("the cell has not failed: %+v", c)
			}
			if got.asked == 0 || got.tries > patience+votes*(1+searchOptions().Steps) {
				t.Errorf("%d tries, the last with a rate of %d", got.tries, got.asked)
			}
		})
	}
}
