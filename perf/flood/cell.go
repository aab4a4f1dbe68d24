package flood

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
	"weir/perf/testbed"
	"weir/perf/world"
)

// Cell is one measurement: of one flood, in one mode, once. Counts are of
// the window.
type Cell struct {
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

	WorkerWaited    float64 `json:"worker_waited"`    // share of the time in which the worker was ready to run and had no core
	GeneratorWaited float64 `json:"generator_waited"` // the same of the generator

	Account Account `json:"account"` // of the whole life of the balancer
}

// Account says where all frames of a cell have ended.
type Account struct {
	Flood    uint64          `json:"flood"`   // by the generator
	Flows    uint64          `json:"flows"`   // by the generator
	Refused  uint64          `json:"refused"` // by the veth between generator and balancer
	Arrived  sink.Counts     `json:"arrived"`
	Balancer balancer.Status `json:"balancer"`
}

// rig is a balancer at the far end of a wire.
type rig struct {
	*testbed.Bed
	balancer *balancer.Process
}

func newRig(ctx context.Context, opt *Options, cell *Cell) (_ *rig, err error) {
	bed, err := testbed.New()
	if err != nil {
		return nil, err
	}
	r := &rig{Bed: bed}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.Cable(1); err != nil {
		return nil, err
	}
	r.balancer, err = balancer.Start(r.Far, opt.Program, balancer.Options{
		Mode: cell.Mode, Interface: testbed.FarName, Queues: 1, CPU: opt.CPUs[1], Entries: opt.Entries,
		NewRate: balancer.NewRate, SNAT: 4, Clients: generator.FlowSources(),
	})
	if err != nil {
		return nil, err
	}
	return r, r.OpenEnds(ctx, generator.Options{
		To:     world.VIP(false),
		SYN:    true,
		Flood:  sources(),
		Seed:   opt.Seed + uint64(cell.Round),
		Beside: opt.Flows,
		CPU:    opt.CPUs[0],
	}, sink.Options{})
}

// moment is all counters at one time.
type moment struct {
	sent     sent
	arrived  sink.Counts
	balancer balancer.Status
	worker   measure.ThreadTime
	source   measure.ThreadTime
}

// sent is what was sent so far.
type sent struct{ flood, flows uint64 }

func (r *rig) sent() (s sent, err error) {
	if s.flood, err = r.Source.Sent(); err != nil {
		return s, err
	}
	s.flows, err = r.Source.SentBeside()
	return s, err
}

// read waits until nothing is on its way and returns all counters. The worker is
// asked each time, for one that does not get its core has frames and is silent.
func (r *rig) read(ctx context.Context) (m moment, err error) {
	type passed struct {
		sent     sent
		arrived  sink.Counts
		received uint64
	}
	err = measure.Settle(ctx, func() (p passed, err error) {
		if m.sent, err = r.sent(); err != nil {
			return p, err
		}
		if m.arrived, err = r.Sink.Arrived(); err != nil {
			return p, err
		}
		m.balancer, err = r.balancer.Status()
		return passed{m.sent, m.arrived, m.balancer.Received}, err
	})
	if err != nil {
		return m, err
	}
	if m.worker, err = r.balancer.Time(); err != nil {
		return m, err
	}
	m.source, err = measure.ReadThread(os.Getpid(), r.Source.Thread())
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
func (r *rig) establish(ctx context.Context, flows uint32) error {
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
			known, err := r.balancer.Known()
			if err != nil {
				return err
			}
			done = step.done(known)
		}
	}
	return nil
}

// once has all flows send one packet.
func (r *rig) once(ctx context.Context, flags uint8, flows uint32) error {
	before, err := r.Source.SentBeside()
	if err != nil {
		return err
	}
	if err := r.Source.SetBeside(flags, establishRate); err != nil {
		return err
	}
	for sent := before; sent < before+uint64(flows); {
		if err := measure.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
		if sent, err = r.Source.SentBeside(); err != nil {
			return err
		}
	}
	if err := r.Source.SetBeside(flags, 0); err != nil {
		return err
	}
	return measure.Settle(ctx, r.Sink.Arrived)
}

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	r, err := newRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.establish(ctx, opt.Flows); err != nil {
		return err
	}
	if err := r.balancer.Drain(); err != nil {
		return err
	}
	before, err := r.read(ctx)
	if err != nil {
		return err
	}
	if c.MemoryBefore, err = r.balancer.Memory(); err != nil {
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
	if c.MemoryAfter, err = r.balancer.Memory(); err != nil {
		return err
	}
	if c.Loss, err = r.balancer.Lost(); err != nil {
		return err
	}
	c.set(&before, &after)
	c.Account = Account{Flood: after.sent.flood, Flows: after.sent.flows, Arrived: after.arrived, Balancer: after.balancer}
	if c.Account.Refused, err = r.Refused(); err != nil {
		return err
	}
	return r.balancer.Stop()
}

// rates has flows and flood send so many packets per second.
func (r *rig) rates(flows, flood int) error {
	return errors.Join(r.Source.SetBeside(generator.Acknowledge, flows), r.Source.SetRate(flood))
}

func (c *Cell) set(before, after *moment) {
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
