package wire

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"weir/perf/measure"
)

// model is a subject that forwards so many frames per second and no more.
type model struct {
	capacity  float64
	flooded   float64 // what it forwards under a flood
	disturbed int     // so many of its first trials lose at any rate, because something else has its core
	silent    bool    // and these do not say so
	short     float64 // loses at rates above this in trials that are long; 0 does not
	trials    int
}

func (m *model) overload(context.Context, time.Duration, time.Duration) (trial, error) {
	return trial{passed: passed{offered: 1e8, delivered: uint64(m.flooded)}, seconds: 1}, nil
}

func (m *model) try(_ context.Context, rate int, d time.Duration) (trial, error) {
	m.trials++
	capacity := m.capacity
	if m.short > 0 && d >= time.Second {
		capacity = m.short
	}
	t := trial{seconds: d.Seconds(), asked: rate}
	t.offered = uint64(float64(rate) * t.seconds)
	t.delivered = uint64(min(float64(rate), capacity) * t.seconds)
	if m.trials <= m.disturbed {
		t.delivered /= 2
		if !m.silent {
			t.worker = measure.ThreadTime{Waited: d / 10}
		}
	}
	return t, nil
}

// The search finds what the model can do, to the step of the search and the loss
// that is allowed, and is not led astray by trials that were disturbed.
func TestLossFree(t *testing.T) {
	opt := &Options{Setup: measure.Setup{Window: time.Second}, Step: 100 * time.Millisecond, Steps: 8}
	for _, m := range []model{
		{capacity: 2e6, flooded: 1.35e6},
		{capacity: 5e5, flooded: 5e5},
		{capacity: 1e6, flooded: 1e6, disturbed: disturbs},
		{capacity: 1e6, flooded: 1e6, disturbed: 1, silent: true},
		{capacity: 1e6, flooded: 1e6, short: 8e5},
	} {
		t.Run(fmt.Sprintf("%+v", m), func(t *testing.T) {
			got, err := lossFree(t.Context(), &m, opt)
			if err != nil {
				t.Fatal(err)
			}
			want := m.capacity
			if m.short > 0 {
				want = m.short
			}
			if !got.free() {
				t.Errorf("loses %g", got.loss())
			}
			step := headroom * m.flooded / math.Exp2(float64(opt.Steps))
			rate := float64(got.asked)
			lowest := (want - step) * (1 - 1e-9)
			if m.short > 0 {
				lowest *= backOff
			}
			if rate < lowest || rate > want/(1-MaxLoss) {
				t.Errorf("found %.0f, want %.0f (at least %.0f)", rate, want, lowest)
			}
		})
	}
}

// A subject that loses at any rate has no loss-free one, and the search ends.
func TestNoLossFree(t *testing.T) {
	opt := &Options{Setup: measure.Setup{Window: time.Second}, Step: 100 * time.Millisecond, Steps: 8}
	m := model{flooded: 1e6, disturbed: math.MaxInt, silent: true, capacity: 1e6}
	got, err := lossFree(t.Context(), &m, opt)
	if err != nil || got.free() {
		t.Errorf("%+v, %v", got, err)
	}
}
