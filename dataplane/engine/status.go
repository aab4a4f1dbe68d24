package engine

import (
	"context"
	"slices"
	"sync"

	"weir/dataplane/nic"
	"weir/dataplane/packet"
	"weir/dataplane/worker"
)

// InterfaceStatus is an interface as it is now.
type InterfaceStatus struct {
	Name    string
	Ifindex int
	MAC     packet.MAC
	MTU     int
	Up      bool  // present, administratively up and with carrier
	Err     error // why it is not worked; nil if it is
	Driver  nic.Driver
	Mode    string
	Reasons []string // why what is better than Driver and Mode did not work
	Workers int

	// Stuck says that one of the workers has not looked for work for seconds:
	// what its queue gets is not forwarded. See Alive.
	Stuck bool
}

// Alive tells whether frames that come in on the interface are forwarded, as far
// as that is this node's doing.
func (s *InterfaceStatus) Alive() bool {
	return s.Up && s.Err == nil && s.Workers > 0 && !s.Stuck
}

// Interfaces returns all interfaces, in the order of the configuration, which
// is also that of their numbers in the snapshot.
func (e *Engine) Interfaces() []InterfaceStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]InterfaceStatus, 0, len(e.interfaces))
	for _, i := range e.interfaces {
		s := InterfaceStatus{
			Name:    i.cfg.Name,
			Ifindex: i.link.index,
			MAC:     i.link.mac,
			MTU:     i.link.mtu,
			Up:      i.link.up,
			Err:     i.err,
			Workers: len(i.workers),
			Stuck:   i.stuck(),
		}
		if i.nic != nil {
			s.Driver, s.Mode, s.Reasons = i.nic.Driver, i.nic.Mode, i.nic.Reasons
		}
		all = append(all, s)
	}
	return all
}

// Worker is a worker together with the interface it works.
type Worker struct {
	Interface string
	*worker.Worker
}

// Workers returns the workers there are now. One of an interface that fails
// meanwhile answers with worker.ErrStopped.
func (e *Engine) Workers() []Worker {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Worker
	for _, i := range e.interfaces {
		for _, w := range i.workers {
			all = append(all, Worker{i.cfg.Name, w})
		}
	}
	return all
}

// WorkerStatus is what one worker answered.
type WorkerStatus struct {
	Interface string
	worker.Status
	Err error // it did not answer; then Status has only Index and CPU
}

// Status asks every worker for its state, all at the same time, so that one
// that is stuck does not use up the patience of ctx for the others.
func (e *Engine) Status(ctx context.Context) []WorkerStatus { return e.StatusAgain(ctx, nil) }

// StatusAgain is Status in the memory of an earlier one, which is gone with it.
func (e *Engine) StatusAgain(ctx context.Context, earlier []WorkerStatus) []WorkerStatus {
	workers := e.Workers()
	all := slices.Grow(earlier[:0], len(workers))[:len(workers)]
	var asking sync.WaitGroup
	for i, w := range workers {
		asking.Go(func() {
			s := worker.Status{Counters: all[i].Counters}
			s.Counters.Reset()
			if err := w.StatusInto(ctx, &s); err != nil { // s may still be written to
				all[i] = WorkerStatus{w.Interface, worker.Status{Index: w.Index(), CPU: w.CPU()}, err}
				return
			}
			all[i] = WorkerStatus{w.Interface, s, nil}
		})
	}
	asking.Wait()
	return all
}
