package balancer

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
	"weir/dataplane/worker"
	"weir/perf/splice"
)

// spliced is a plane of one worker, which sends by another interface than it
// receives by. An engine would have a worker for each and hand frames over; here
// the snapshot has one interface, and where frames leave is the queue's secret.
type spliced struct {
	status   engine.InterfaceStatus
	port     *splice.Port
	table    *flow.Table
	space    *nat.Space
	snapshot atomic.Pointer[snapshot.Snapshot]
	worker   *worker.Worker
}

func openSpliced(opt *Options) (_ *spliced, err error) {
	if opt.Queues != 1 {
		return nil, fmt.Errorf("send by %s: only with one queue, not %d", opt.Out, opt.Queues)
	}
	s := &spliced{space: nat.NewSpace()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	link, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", opt.Interface, err)
	}
	s.status = engine.InterfaceStatus{Name: opt.Interface, MAC: packet.MAC(link.Attrs().HardwareAddr), MTU: link.Attrs().MTU}
	if s.table, err = flow.New(opt.Entries, flow.DefaultTimeouts()); err != nil {
		return nil, err
	}
	if s.port, err = splice.Open(splice.Options{Driver: opt.Driver, In: opt.Interface, Out: opt.Out, Log: opt.Log}); err != nil {
		return nil, err
	}
	if _, err := opt.Room.Make([]int{opt.CPU}); err != nil {
		return nil, err
	}
	s.worker = worker.New(worker.Config{
		CPU: opt.CPU, Room: opt.Room, Queue: s.port.Queue, Flows: s.table, Space: s.space, Snapshot: &s.snapshot, Log: opt.Log,
	})
	return s, nil
}

// Run implements plane.
func (s *spliced) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.port.Run(ctx) })
	g.Go(func() error {
		if s.snapshot.Load() == nil { // not to be forwarded by
			return nil
		}
		return s.worker.Run(ctx)
	})
	return errors.Join(g.Wait(), s.close())
}

// Apply implements plane.
func (s *spliced) Apply(snap *snapshot.Snapshot, set steer.Set) error {
	s.snapshot.Store(snap)
	return s.port.Steer(set)
}

// Interfaces implements plane.
func (s *spliced) Interfaces() []engine.InterfaceStatus { return []engine.InterfaceStatus{s.status} }

// NATSpace implements plane.
func (s *spliced) NATSpace() *nat.Space { return s.space }

// Workers implements plane.
func (s *spliced) Workers() []engine.Worker {
	return []engine.Worker{{Interface: s.status.Name, Worker: s.worker}}
}

func (s *spliced) close() error {
	var errs []error
	if s.port != nil {
		errs = append(errs, s.port.Close())
	}
	if s.table != nil {
		errs = append(errs, s.table.Close())
	}
	return errors.Join(errs...)
}
