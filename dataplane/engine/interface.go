package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/dataplane/flow"
	"weir/dataplane/nic"
	"weir/dataplane/queue"
	"weir/dataplane/worker"
)

// iface is one interface and its workers. Its fields but cfg and index are
// guarded by the engine's mutex.
type iface struct {
	engine *Engine
	index  uint16
	cfg    Interface

	nic     *nic.NIC
	workers []*worker.Worker
	pulses  []pulse // of workers
	flows   []*flow.Table
	link    link  // as it was seen last, by staff or watchLinks
	opened  link  // as it was when nic was opened
	err     error // why it does not work; nil if it does

	retake context.CancelCauseFunc // ends work, for nic to be opened anew; nil while there is no work
}

// outgrown says why an interface that works has to be opened anew.
type outgrown struct{ why string }

func (o outgrown) Error() string { return o.why }

// retryInterval is how often it is tried to open an interface that is not open.
const retryInterval = time.Second

// open opens the interface and makes its workers, which do not run yet.
func (i *iface) open() error {
	opened, err := nic.Open(nic.Options{
		Interface: i.cfg.Name,
		Driver:    i.cfg.Driver,
		XDPModes:  i.cfg.XDPModes,
		Queues:    i.cfg.Queues,
		StateDir:  i.engine.cfg.StateDir,
		Log:       i.engine.cfg.Log,
	})
	i.engine.mu.Lock()
	defer i.engine.mu.Unlock()
	if err == nil {
		err = i.staff(opened)
	}
	i.err = err
	return err
}

// staff makes a worker for each queue and takes the NIC over; on an error it
// closes it.
func (i *iface) staff(opened *nic.NIC) error {
	e := i.engine
	i.nic = opened
	// From here on noteLink tells the NIC about a new address. The first must
	// not wait for it: a snapshot without it would answer ARP with zeros.
	var err error
	if i.link, err = readLink(i.cfg.Name); err != nil {
		return errors.Join(err, i.closeLocked())
	}
	i.opened = i.link
	if i.link.present {
		if err := opened.SetMAC(i.link.mac.HardwareAddr()); err != nil {
			return errors.Join(fmt.Errorf("interface %s: %w", i.cfg.Name, err), i.closeLocked())
		}
	}
	if err := opened.Steer(e.steered); err != nil {
		return errors.Join(fmt.Errorf("steer frames of %s: %w", i.cfg.Name, err), i.closeLocked())
	}
	if err := opened.Beat(); err != nil {
		return errors.Join(fmt.Errorf("steer frames of %s: %w", i.cfg.Name, err), i.closeLocked())
	}
	for n, q := range opened.Queues {
		table, err := flow.New(e.cfg.FlowEntries, e.cfg.Timeouts)
		if err != nil {
			return errors.Join(fmt.Errorf("interface %s queue %d: %w; lower flows.entries", i.cfg.Name, n, err), i.closeLocked())
		}
		i.flows = append(i.flows, table)
		i.workers = append(i.workers, worker.New(worker.Config{
			Number:    e.freeNumber(),
			Interface: i.index,
			Index:     n,
			CPU:       e.cpuFor(&i.cfg, n),
			Room:      e.cfg.Room,
			Queue:     q,
			Flows:     table,
			Space:     e.space,
			PathMTU:   e.pathMTU,
			Claims:    e.claims,
			Snapshot:  &e.snapshot,
			Log:       e.cfg.Log.With("interface", i.cfg.Name, "queue", n),
		}))
	}
	i.pulses = make([]pulse, len(i.workers))
	e.connect()
	e.makeRoom()
	return nil
}

func (i *iface) close() {
	i.engine.mu.Lock()
	defer i.engine.mu.Unlock()
	if err := i.closeLocked(); err != nil {
		i.engine.cfg.Log.Warn("closing interface", "interface", i.cfg.Name, "error", err)
	}
}

// closeLocked is called once the workers have stopped, with mu held.
func (i *iface) closeLocked() error {
	for _, w := range i.workers {
		i.engine.space.ReleaseAll(w.Number())
	}
	i.workers, i.pulses = nil, nil
	i.engine.connect()
	var errs []error
	if i.nic != nil {
		errs = append(errs, i.nic.Close())
		i.nic = nil
	}
	for _, table := range i.flows {
		errs = append(errs, table.Close())
	}
	i.flows = nil
	return errors.Join(errs...)
}

// run works the interface until ctx ends, opening it anew after a failure, and
// when it has outgrown the way it was opened.
func (i *iface) run(ctx context.Context) {
	log := i.engine.cfg.Log.With("interface", i.cfg.Name)
	defer i.close()
	for {
		err := i.work(ctx)
		i.close()
		if ctx.Err() != nil {
			return
		}
		if errors.As(err, new(outgrown)) {
			log.Info("interface is taken anew", "why", err)
			if err = i.open(); err == nil {
				i.engine.changed()
				continue
			}
		}
		i.fail(err)
		if errors.Is(err, queue.ErrGone) {
			log.Error("interface is gone; the others go on, and this one will be taken up again when it is back")
		} else {
			log.Error("interface failed; will try again", "error", err)
		}
		if !i.reopen(ctx) {
			return
		}
		log.Info("interface is back", "driver", i.nic.Driver, "mode", i.nic.Mode)
		i.engine.changed()
	}
}

// work runs the workers until one of them fails, the interface is outgrown, or
// ctx ends.
func (i *iface) work(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	i.workUntil(cancel)
	defer i.workUntil(nil)
	g, working := errgroup.WithContext(ctx)
	for _, w := range i.workers {
		g.Go(func() error { return w.Run(working) })
	}
	g.Go(func() error { return i.beat(working) })
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// workUntil says how work is ended for the interface to be opened anew. If it
// has outgrown its opening already, that is now.
func (i *iface) workUntil(retake context.CancelCauseFunc) {
	i.engine.mu.Lock()
	defer i.engine.mu.Unlock()
	i.retake = retake
	i.checkSize()
}

// checkSize ends work if the interface has outgrown its opening. The engine's
// mutex is held.
func (i *iface) checkSize() {
	if why := i.outgrows(i.link); why != "" && i.retake != nil {
		i.retake(outgrown{why})
	}
}

// outgrows returns why a NIC that was opened as it was before has to be opened
// anew to be worked as it is now; "" if it has not. The engine's mutex is held.
func (i *iface) outgrows(now link) string {
	switch {
	case !now.present || i.nic == nil:
		return ""
	case now.mtu > i.opened.mtu: // packet buffers were made for the old one
		return fmt.Sprintf("its MTU was raised from %d to %d", i.opened.mtu, now.mtu)
	case now.queues != i.opened.queues && (i.nic.Driver == nic.AFXDP || i.cfg.Queues == 0):
		return fmt.Sprintf("it has %d receive queues now and had %d", now.queues, i.opened.queues)
	}
	return ""
}

// beat shows the kernel's side that weir is alive.
func (i *iface) beat(ctx context.Context) error {
	t := time.NewTicker(nic.BeatInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := i.nic.Beat(); err != nil {
				return err
			}
		}
	}
}

// reopen tries to open the interface until it succeeds, and returns false if
// ctx ended first. It logs a reason once, not at every attempt.
func (i *iface) reopen(ctx context.Context) bool {
	t := time.NewTicker(retryInterval)
	defer t.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
		i.engine.mu.Lock()
		present := i.link.present
		i.engine.mu.Unlock()
		if !present {
			continue
		}
		err := i.open()
		if err == nil {
			return true
		}
		if text := err.Error(); text != logged {
			logged = text
			i.engine.cfg.Log.Error("interface cannot be opened; will try again", "interface", i.cfg.Name, "error", err)
			i.engine.changed()
		}
	}
}

func (i *iface) fail(err error) {
	i.engine.mu.Lock()
	i.err = err
	i.engine.mu.Unlock()
	i.engine.changed()
}
