package wire

import (
	"context"
	"errors"
	"fmt"

	"weir/perf/generator"
)

// Cell is one measurement: of one subject, in one scenario, with so many flows,
// once. Rates are in frames per second.
type Cell struct {
	Subject  string   `json:"subject"`
	Scenario Scenario `json:"scenario"`
	Flows    uint32   `json:"flows"`
	Round    int      `json:"round"`
	Cores    Cores    `json:"cores"`

	Seconds   float64 `json:"seconds"`
	Asked     int     `json:"asked_pps"`     // of the generator; 0 for as much as it can
	Offered   float64 `json:"offered_pps"`   // what the generator sent, less than asked if it was held up; 0 in Send
	Delivered float64 `json:"delivered_pps"` // what came out at the other end
	Loss      float64 `json:"loss"`          // share of what was offered

	// NsPerPkt is the time that the worker ran, system calls included, for each
	// frame delivered; zero if it is not known. Where it is not the run time of a
	// thread, see Saturated, it is the time of the core.
	NsPerPkt  float64 `json:"ns_per_packet"`
	Saturated bool    `json:"saturated,omitempty"`

	// Unknown is the share of the packets delivered whose flow was not known,
	// where the subject tells: there should be none.
	Unknown float64 `json:"unknown"`

	// Share of the time for which the worker's and the generator's thread could
	// have run and were not let, because something else had their core. This
	// is how disturbed the measurement was.
	WorkerWaited    float64 `json:"worker_waited"`
	GeneratorWaited float64 `json:"generator_waited"`

	Account Account `json:"account"` // of the whole life of the subject

	subject *Subject
}

// Account says where all frames of a cell have ended. Offered - Refused is what
// the subject's interface was given, and its counters say what became of that;
// Sent is Delivered but for what the driver has dropped.
type Account struct {
	Offered   uint64 `json:"offered"` // by the generator
	Refused   uint64 `json:"refused"` // by the veth between generator and subject
	Delivered uint64 `json:"delivered"`
	Counters
}

// saturates is the loss from which on a core is taken to be busy all the time.
const saturates = 0.01

// failed tells whether no rate without loss was found. The cell then has the
// last one tried.
func (c *Cell) failed() bool { return c.Scenario == LossFree && (c.Loss > MaxLoss || c.Delivered == 0) }

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	r, err := newRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.prepare(ctx, c.Flows); err != nil {
		return err
	}
	var t trial
	switch c.Scenario {
	case Core, Flood, Send:
		t, err = r.overload(ctx, opt.Step, opt.Window)
	case LossFree:
		t, err = r.lossFree(ctx, opt)
	default:
		err = fmt.Errorf("no such scenario: there are %v", Scenarios())
	}
	if err != nil {
		return err
	}
	c.set(&t)
	c.Account, err = r.account()
	return err
}

func (c *Cell) set(t *trial) {
	c.Seconds = t.seconds
	if t.asked != generator.Unlimited {
		c.Asked = t.asked
	}
	c.Offered = float64(t.offered) / t.seconds
	c.Delivered = float64(t.delivered) / t.seconds
	c.Loss = t.loss()
	if t.delivered > 0 {
		switch {
		case t.timed:
			c.NsPerPkt = float64(t.worker.Ran) / float64(t.delivered)
		case c.Loss > saturates:
			c.NsPerPkt, c.Saturated = 1e9*t.seconds/float64(t.delivered), true
		}
		c.Unknown = float64(t.counters.Decided) / float64(t.delivered)
	}
	c.WorkerWaited = t.worker.Waited.Seconds() / t.seconds
	c.GeneratorWaited = t.generator.Waited.Seconds() / t.seconds
}
