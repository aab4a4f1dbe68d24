package wire

import (
	"context"
	"errors"
	"net/netip"

	"weir/lab/netlab"
	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
	"weir/perf/testbed"
)

// A rig is one loop at work in a network of its own: at the far end of a wire,
// or, if the loop only sends, on an ifb, which drops whatever a program sends
// through it (drivers/net/ifb.c).
type rig struct {
	*testbed.Bed
	loop running
	task loops.Task
}

// running is a loop, or what takes its place.
type running interface {
	Time() (measure.ThreadTime, error) // of its threads
	Stop() (loops.Counters, error)     // it is called once
}

func newRig(ctx context.Context, opt *Options, kind loops.Kind, task loops.Task) (_ *rig, err error) {
	bed, err := testbed.New()
	if err != nil {
		return nil, err
	}
	r := &rig{Bed: bed, task: task}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	mode, queues := balancerOf(kind)
	if task == loops.Forward {
		err = r.Cable(max(queues, 1))
	} else {
		err = r.BlackHole(testbed.FarName)
	}
	if err != nil {
		return nil, err
	}
	if queues > 0 {
		r.loop, err = startBalancer(r.Far, opt, mode, queues)
	} else {
		r.loop, err = loops.Start(r.Far, opt.Program, loops.Options{
			Kind: kind, Task: task, Interface: testbed.FarName, CPU: opt.CPUs[1], Ring: opt.Ring,
		})
	}
	if err != nil {
		return nil, err
	}
	if task == loops.Forward {
		err = r.OpenEnds(ctx, generator.Options{
			To:    netip.AddrPortFrom(loops.VIP, testbed.Port),
			Flows: opt.Flows,
			CPU:   opt.CPUs[0],
		})
	}
	return r, err
}

// passed is how many frames were offered and delivered so far.
type passed struct{ offered, delivered uint64 }

func (r *rig) counts() (p passed, err error) {
	if r.task == loops.Send {
		p.delivered, err = r.Swallowed(testbed.FarName)
		return p, err
	}
	if p.offered, err = r.Source.Sent(); err != nil {
		return p, err
	}
	arrived, err := r.Sink.Arrived()
	p.delivered = arrived.Datagrams
	return p, err
}

// account ends the loop and says what has become of all frames.
func (r *rig) account() (a Account, err error) {
	if a.Counters, err = r.loop.Stop(); err != nil {
		return Account{}, err
	}
	p, err := r.counts()
	a.Offered, a.Delivered = p.offered, p.delivered
	if err != nil || r.task == loops.Send {
		return a, err
	}
	a.Refused, err = r.Refused()
	return a, err
}

// balancerLoop is a balancer in place of a loop.
type balancerLoop struct{ *balancer.Process }

func startBalancer(host *netlab.Host, opt *Options, mode balancer.Mode, queues int) (*balancerLoop, error) {
	p, err := balancer.Start(host, opt.Program, balancer.Options{
		Mode: mode, Interface: testbed.FarName, Queues: queues, CPU: opt.CPUs[1], Entries: balancerEntries, Clients: generator.FlowSources(),
	})
	return &balancerLoop{p}, err
}

// Stop ends the balancer and returns what it has counted. Workers are asked one
// after the other, so it waits until none of them does anything any more.
func (b *balancerLoop) Stop() (c loops.Counters, err error) {
	err = measure.Settle(context.Background(), func() (loops.Counters, error) {
		s, err := b.Status()
		c = loops.Counters{
			Received: s.Received, ReceiveDropped: s.ReceiveDropped, Sent: s.Sent, GivenUp: s.TransmitDropped, HandedOver: s.HandedOver,
		}
		return c, err
	})
	return c, errors.Join(err, b.Process.Stop())
}
