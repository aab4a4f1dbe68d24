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

	// In LossFree and Latency: whether no rate without loss was found, the cell has
	// the last one tried then; whether it could be higher, but the generator did not
	// offer more; and how many trials the search has made, and discarded of these,
	// because something else had worker's or generator's core.
	Failed      bool `json:"failed,omitempty"`
	ByGenerator bool `json:"by_generator,omitempty"`
	Trials      int  `json:"trials,omitempty"`
	Discarded   int  `json:"discarded,omitempty"`

	// NsPerPkt is the time that the worker's thread ran, system calls included,
	// for each frame that it has sent, of the kernel's each delivered; zero if it is
	// not known. A worker in the kernel is
	// a thread too, ksoftirqd, but only while its core is saturated; what it does
	// on top of other threads is charged to them, so it is too little there if the
	// core is disturbed.
	NsPerPkt float64 `json:"ns_per_packet"`

	// NsUser is how much of NsPerPkt was spent outside of the kernel, in Go. It
	// is a sample of some hundred ticks per second.
	NsUser float64 `json:"ns_user"`

	// Known is how many flows the subject knew when the measurement began; nil if it
	// works without knowing any.
	Known *int `json:"known,omitempty"`

	// Unknown is the share of the packets delivered whose flow weir did not know:
	// there should be none. Nobody else tells.
	Unknown float64 `json:"unknown"`

	Memory uint64 `json:"memory,omitempty"` // bytes of its process, resident, when all flows are known

	// Share of the time for which the worker's and the generator's thread could
	// have run and were not let, because something else had their core. This
	// is how disturbed the measurement was.
	WorkerWaited    float64 `json:"worker_waited"`
	GeneratorWaited float64 `json:"generator_waited"`

	Latencies []Latencies `json:"latencies,omitempty"` // one for each of Loads

	Account Account `json:"account"` // of the whole life of the subject

	// Wrong is what is wrong with the account, or with the frames that arrived: then
	// the cell is no measurement of the subject. It is empty if all is right.
	Wrong string `json:"wrong,omitempty"`

	subject *Subject
}

// saturates is the loss from which on a core is taken to be busy all the time.
const saturates = 0.01

// idles tells whether what was offered in Core was not too much: then the time per
// packet has sleeping and waking up in it, and is not what a packet costs a core
// that is busy.
func (c *Cell) idles() bool { return c.Scenario == Core && c.Loss <= saturates }

// failed tells whether nothing arrived, or not what should, or no rate without
// loss was found.
func (c *Cell) failed() bool {
	return c.Failed || c.Wrong != "" || c.Delivered == 0 || (c.Scenario == LossFree || c.Scenario == Latency) && c.Loss > MaxLoss
}

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	r, err := newRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.prepare(ctx, c.Flows, opt.Zipf > 0); err != nil {
		return err
	}
	n, ok, err := r.running.Known()
	if err != nil {
		return err
	}
	if ok && !r.send {
		c.Known = &n
	}
	if c.Memory, err = r.running.Memory(); err != nil {
		return err
	}
	var t trial
	switch c.Scenario {
	case Core, Flood, Send:
		t, err = r.overload(ctx, opt.Step, opt.Window)
	case LossFree, Latency:
		var f found
		f, err = lossFree(ctx, r, opt)
		t, c.Failed, c.ByGenerator, c.Trials, c.Discarded = f.trial, f.failed, f.byGenerator, f.tries, f.discards
		if err == nil && c.Scenario == Latency {
			c.Latencies, err = r.latencies(ctx, opt, int(float64(t.delivered)/t.seconds))
		}
	default:
		err = fmt.Errorf("no scenario %q", c.Scenario)
	}
	if err != nil {
		return err
	}
	c.set(&t)
	if c.Account, err = r.account(); err != nil {
		return err
	}
	if wrong := c.Account.check(c); wrong != nil {
		c.Wrong = wrong.Error()
	}
	return nil
}

func (c *Cell) set(t *trial) {
	c.Seconds = t.seconds
	if t.asked != generator.Unlimited {
		c.Asked = t.asked
	}
	c.Offered = float64(t.offered) / t.seconds
	c.Delivered = float64(t.delivered) / t.seconds
	c.Loss = t.loss()
	if t.worker.frames > 0 && (t.worker.always || c.Loss > saturates) {
		c.NsPerPkt = float64(t.worker.Ran) / float64(t.worker.frames)
		c.NsUser = c.NsPerPkt * t.ticks.UserShare()
	}
	if t.delivered > 0 {
		c.Unknown = float64(t.counters.Decided) / float64(t.delivered)
	}
	c.WorkerWaited = t.worker.Waited.Seconds() / t.seconds
	c.GeneratorWaited = t.generator.Waited.Seconds() / t.seconds
}
