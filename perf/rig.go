package perf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
)

// A rig is one loop at work in a network of its own: at the far end of a wire,
// or, if the loop only sends, on an ifb, which drops whatever a program sends
// through it (drivers/net/ifb.c).
type rig struct {
	wire
	loop running
	task loops.Task
}

// running is a loop, or what takes its place.
type running interface {
	Time() (measure.ThreadTime, error) // of its threads
	stop() (loops.Counters, error)     // it is called once
}

func newRig(ctx context.Context, opt *Options, kind loops.Kind, task loops.Task) (_ *rig, err error) {
	r := &rig{task: task}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.hosts(); err != nil {
		return nil, err
	}
	mode, queues := balancerOf(kind)
	if task == loops.Forward {
		err = r.cable(max(queues, 1))
	} else {
		err = r.blackHole()
	}
	if err != nil {
		return nil, err
	}
	if queues > 0 {
		r.loop, err = startBalancer(r.far, &opt.Setup, mode, queues, balancerEntries)
	} else {
		r.loop, err = startLoop(r.far, opt, kind, task)
	}
	if err != nil {
		return nil, err
	}
	if task == loops.Forward {
		err = r.openEnds(ctx, generator.Options{
			To:    netip.AddrPortFrom(loops.VIP, sinkPort),
			Flows: opt.Flows,
			CPU:   opt.CPUs[0],
		})
	}
	return r, err
}

// blackHole gives the far host the ifb.
func (r *rig) blackHole() error {
	return r.far.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = loopName, 1, 1
		ifb := &netlink.Ifb{LinkAttrs: attrs}
		if err := netlink.LinkAdd(ifb); err != nil {
			return fmt.Errorf("create ifb (needs a kernel with CONFIG_IFB): %w", err)
		}
		return netlink.LinkSetUp(ifb)
	})
}

// passed is how many frames were offered and delivered so far.
type passed struct{ offered, delivered uint64 }

func (r *rig) counts() (p passed, err error) {
	if r.task == loops.Send {
		s, err := statistics(r.far, loopName)
		return passed{delivered: s.RxPackets}, err // on an ifb the frames it was given
	}
	if p.offered, err = r.source.Sent(); err != nil {
		return p, err
	}
	arrived, err := r.sink.Arrived()
	p.delivered = arrived.Datagrams
	return p, err
}

// account ends the loop and says what has become of all frames.
func (r *rig) account() (a Account, err error) {
	if a.Counters, err = r.loop.stop(); err != nil {
		return Account{}, err
	}
	p, err := r.counts()
	a.Offered, a.Delivered = p.offered, p.delivered
	if err != nil || r.task == loops.Send {
		return a, err
	}
	a.Refused, err = r.refused()
	return a, err
}
