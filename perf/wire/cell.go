package wire

import (
	"context"
	"fmt"
	"time"

	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
)

// Cell is one measurement: of one loop, in one scenario, once. Rates are in
// frames per second.
type Cell struct {
	Loop     loops.Kind `json:"loop"`
	Scenario Scenario   `json:"scenario"`
	Round    int        `json:"round"`

	Seconds   float64 `json:"seconds"`
	Asked     int     `json:"asked_pps"`     // of the generator; 0 in send, and for as much as it can
	Offered   float64 `json:"offered_pps"`   // what the generator sent, less than asked if it was held up; 0 in send
	Delivered float64 `json:"delivered_pps"` // what came out at the other end
	Loss      float64 `json:"loss"`          // share of what was offered
	NsPerPkt  float64 `json:"ns_per_packet"` // time the loop's thread ran, system calls included, for each frame delivered

	// Share of the time for which the loop's and the generator's thread could
	// have run and were not let, because something else had their core. This
	// is how disturbed the measurement was.
	LoopWaited      float64 `json:"loop_waited"`
	GeneratorWaited float64 `json:"generator_waited"`

	Account Account `json:"account"` // of the whole life of the loop
}

// Account says where all frames of a cell have ended. Offered - Refused is what
// the loop's interface was given, and the loop's counters say what became of
// that; Sent is Delivered but for what the driver has dropped.
type Account struct {
	Offered   uint64 `json:"offered"` // by the generator
	Refused   uint64 `json:"refused"` // by the veth between generator and loop
	Delivered uint64 `json:"delivered"`
	loops.Counters
}

// Binary search for the loss-free rate.
const (
	searchFrom  = 4_000_000 // frames per second
	searchSteps = 9         // to 8,000 frames per second
	searchTries = 2         // a rate has failed when it has failed as often in a row
	backOff     = 0.95      // if the whole window loses where the short trials did not
	backOffs    = 12
)

// failed tells whether no rate without loss was found. The cell then has the
// last one tried.
func (c *Cell) failed() bool { return c.Scenario == LossFree && (c.Loss > MaxLoss || c.Delivered == 0) }

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	task := loops.Forward
	if c.Scenario == SendOnly {
		task = loops.Send
	}
	r, err := newRig(ctx, opt, c.Loop, task)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	var t trial
	switch c.Scenario {
	case Overload:
		t, err = overload(ctx, r, opt)
	case LossFree:
		t, err = lossFree(ctx, r, opt)
	case SendOnly:
		t, err = sendOnly(ctx, r, opt)
	default:
		err = fmt.Errorf("no such scenario: there are %v", Scenarios())
	}
	if err != nil {
		return err
	}
	c.set(t)
	c.Account, err = r.account()
	return err
}

func (c *Cell) set(t trial) {
	c.Seconds = t.seconds
	if t.asked != generator.Unlimited {
		c.Asked = t.asked
	}
	c.Offered = float64(t.offered) / t.seconds
	c.Delivered = float64(t.delivered) / t.seconds
	c.Loss = t.loss()
	if t.delivered > 0 {
		c.NsPerPkt = float64(t.loop.Ran) / float64(t.delivered)
	}
	c.LoopWaited = t.loop.Waited.Seconds() / t.seconds
	c.GeneratorWaited = t.generator.Waited.Seconds() / t.seconds
}

func overload(ctx context.Context, r *rig, opt *Options) (trial, error) {
	if _, err := r.try(ctx, generator.Unlimited, opt.Step); err != nil { // to warm up
		return trial{}, err
	}
	return r.try(ctx, generator.Unlimited, opt.Window)
}

func sendOnly(ctx context.Context, r *rig, opt *Options) (trial, error) {
	if err := measure.Sleep(ctx, opt.Step); err != nil { // to warm up
		return trial{}, err
	}
	return r.watch(ctx, opt.Window)
}

func lossFree(ctx context.Context, r *rig, opt *Options) (trial, error) {
	passes := func(rate int, d time.Duration) (t trial, ok bool, err error) {
		for range searchTries {
			if t, err = r.try(ctx, rate, d); err != nil || t.loss() <= MaxLoss {
				return t, err == nil, err
			}
		}
		return t, false, nil
	}
	good, bad := 0, searchFrom
	for range searchSteps {
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
