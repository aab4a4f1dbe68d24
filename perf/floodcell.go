package perf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/measure"
	"weir/perf/sink"
)

// FloodCell is one measurement: of one flood, in one mode, once. Counts are of
// the window.
type FloodCell struct {
	Mode  balancer.Mode `json:"mode"`
	Rate  Rate          `json:"rate"` // SYNs per second asked of the generator, -1 for as many as it can
	Round int           `json:"round"`

	Seconds  float64 `json:"seconds"`
	Offered  float64 `json:"offered_pps"`   // SYNs the generator sent
	Taken    float64 `json:"taken_pps"`     // SYNs the worker received, whatever became of them
	CPU      float64 `json:"cpu"`           // share of the time that the worker's thread ran
	NsPerPkt float64 `json:"ns_per_packet"` // time that it ran, for each packet it received

	// Of the flows that were established before.
	FlowsSent    uint64  `json:"flows_sent"`    // packets
	FlowsArrived uint64  `json:"flows_arrived"` // behind weir
	FlowsLoss    float64 `json:"flows_loss"`    // share of the packets sent
	balancer.Loss

	// Of the flow table.
	Evicted          uint64 `json:"evicted"` // trusted flows
	UntrustedEvicted uint64 `json:"untrusted_evicted"`
	Unrecorded       uint64 `json:"unrecorded"` // above the rate of new entries
	Refused          uint64 `json:"refused"`    // no room in the table, or no SNAT port
	TakenOver        uint64 `json:"taken_over"` // SNAT ports
	Limited          uint64 `json:"limited"`
	Entries          int    `json:"entries"` // in use in the end

	MemoryBefore uint64 `json:"memory_before"` // bytes of the whole process
	MemoryAfter  uint64 `json:"memory_after"`

	WorkerWaited    float64 `json:"worker_waited"` // as in Cell
	GeneratorWaited float64 `json:"generator_waited"`

	Account FloodAccount `json:"account"` // of the whole life of the balancer
}

// FloodAccount says where all frames of a cell have ended.
type FloodAccount struct {
	Flood    uint64          `json:"flood"`   // by the generator
	Flows    uint64          `json:"flows"`   // by the generator
	Refused  uint64          `json:"refused"` // by the veth between generator and balancer
	Arrived  sink.Counts     `json:"arrived"`
	Balancer balancer.Status `json:"balancer"`
}

// floodRig is a balancer at the far end of a wire.
type floodRig struct {
	wire
	balancer *balancerProcess
}

func newFloodRig(ctx context.Context, opt *FloodOptions, cell *FloodCell) (_ *floodRig, err error) {
	r := &floodRig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.hosts(); err != nil {
		return nil, err
	}
	if err := r.cable(1); err != nil {
		return nil, err
	}
	if r.balancer, err = startBalancer(r.far, &opt.Setup, cell.Mode, 1, opt.Entries); err != nil {
		return nil, err
	}
	return r, r.openEnds(ctx, generator.Options{
		To:     vip(),
		SYN:    true,
		Flood:  floodFrom(),
		Seed:   opt.Seed + uint64(cell.Round),
		Beside: opt.Flows,
		CPU:    opt.CPUs[0],
	})
}

// moment is all counters at one time.
type moment struct {
	sent     floodSent
	arrived  sink.Counts
	balancer balancer.Status
	worker   measure.ThreadTime
	source   measure.ThreadTime
}

// floodSent is what was sent so far.
type floodSent struct{ flood, flows uint64 }

func (r *floodRig) sent() (s floodSent, err error) {
	if s.flood, err = r.source.Sent(); err != nil {
		return s, err
	}
	s.flows, err = r.source.SentBeside()
	return s, err
}

// read waits until nothing is on its way and returns all counters. The worker is
// asked each time, for one that does not get its core has frames and is silent.
func (r *floodRig) read(ctx context.Context) (m moment, err error) {
	type passed struct {
		sent     floodSent
		arrived  sink.Counts
		received uint64
	}
	err = measure.Settle(ctx, func() (p passed, err error) {
		if m.sent, err = r.sent(); err != nil {
			return p, err
		}
		if m.arrived, err = r.sink.Arrived(); err != nil {
			return p, err
		}
		m.balancer = balancer.Status{}
		err = r.balancer.ask(askStatus, &m.balancer)
		return passed{m.sent, m.arrived, m.balancer.Received}, err
	})
	if err != nil {
		return m, err
	}
	if m.worker, err = r.balancer.Time(); err != nil {
		return m, err
	}
	m.source, err = measure.ReadThread(os.Getpid(), r.source.Thread())
	return m, err
}

// Establishing flows: at this rate few packets are lost, and the tries are for
// those.
const (
	establishRate  = 50_000 // packets per second
	establishTries = 20
)

// establish has all flows show their two packets. No acknowledgement is sent
// before all openings have been seen: a flow that begins with one has shown a
// single packet then, and is not trusted.
func (r *floodRig) establish(ctx context.Context, flows uint32) error {
	for _, step := range []struct {
		flags uint8
		done  func(balancer.Known) int
	}{
		{generator.Open, func(k balancer.Known) int { return k.All }},
		{generator.Acknowledge, func(k balancer.Known) int { return k.Established }},
	} {
		done := 0
		for try := 0; done < int(flows); try++ {
			if try == establishTries {
				return fmt.Errorf("only %d of %d flows are established: more do not fit the flow table, or most packets are lost", done, flows)
			}
			if err := r.once(ctx, step.flags, flows); err != nil {
				return err
			}
			var known balancer.Known
			if err := r.balancer.ask(askKnown, &known); err != nil {
				return err
			}
			done = step.done(known)
		}
	}
	return nil
}

// once has all flows send one packet.
func (r *floodRig) once(ctx context.Context, flags uint8, flows uint32) error {
	before, err := r.source.SentBeside()
	if err != nil {
		return err
	}
	if err := r.source.SetBeside(flags, establishRate); err != nil {
		return err
	}
	for sent := before; sent < before+uint64(flows); {
		if err := measure.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
		if sent, err = r.source.SentBeside(); err != nil {
			return err
		}
	}
	if err := r.source.SetBeside(flags, 0); err != nil {
		return err
	}
	return measure.Settle(ctx, r.sink.Arrived)
}

// measure fills the cell.
func (c *FloodCell) measure(ctx context.Context, opt *FloodOptions) (err error) {
	r, err := newFloodRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.establish(ctx, opt.Flows); err != nil {
		return err
	}
	if err := r.balancer.ask(askDrain, new(balancer.Status)); err != nil {
		return err
	}
	before, err := r.read(ctx)
	if err != nil {
		return err
	}
	if c.MemoryBefore, err = r.balancer.memory(); err != nil {
		return err
	}
	start := time.Now()
	if err := r.rates(opt.FlowsRate, c.Rate.generators()); err != nil {
		return err
	}
	slept := measure.Sleep(ctx, opt.Window)
	if err := errors.Join(slept, r.rates(0, 0)); err != nil {
		return err
	}
	c.Seconds = time.Since(start).Seconds()
	after, err := r.read(ctx)
	if err != nil {
		return err
	}
	if c.MemoryAfter, err = r.balancer.memory(); err != nil {
		return err
	}
	if err := r.balancer.ask(askLost, &c.Loss); err != nil {
		return err
	}
	c.set(&before, &after)
	c.Account = FloodAccount{Flood: after.sent.flood, Flows: after.sent.flows, Arrived: after.arrived, Balancer: after.balancer}
	if c.Account.Refused, err = r.refused(); err != nil {
		return err
	}
	_, err = r.balancer.stop()
	return err
}

// rates has flows and flood send so many packets per second.
func (r *floodRig) rates(flows, flood int) error {
	return errors.Join(r.source.SetBeside(generator.Acknowledge, flows), r.source.SetRate(flood))
}

func (c *FloodCell) set(before, after *moment) {
	was, is := &before.balancer, &after.balancer
	kept := is.Kept - was.Kept
	c.Offered = float64(after.sent.flood-before.sent.flood) / c.Seconds
	c.Taken = float64(is.Received-was.Received-kept) / c.Seconds
	worker := after.worker.Since(before.worker)
	c.CPU = worker.Ran.Seconds() / c.Seconds
	if received := is.Received - was.Received; received > 0 {
		c.NsPerPkt = float64(worker.Ran) / float64(received)
	}
	c.WorkerWaited = worker.Waited.Seconds() / c.Seconds
	c.GeneratorWaited = after.source.Since(before.source).Waited.Seconds() / c.Seconds

	c.FlowsSent = after.sent.flows - before.sent.flows
	c.FlowsArrived = after.arrived.Segments - before.arrived.Segments
	c.FlowsLoss = measure.Loss(c.FlowsSent, c.FlowsArrived)

	c.Evicted = is.Evicted - was.Evicted
	c.UntrustedEvicted = is.UntrustedEvicted - was.UntrustedEvicted
	c.Unrecorded = is.Unrecorded - was.Unrecorded
	c.Refused = is.Refused - was.Refused
	c.TakenOver = is.TakenOver - was.TakenOver
	c.Limited = is.Limited - was.Limited
	c.Entries = is.Flows
}
