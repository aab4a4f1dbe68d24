package engine

import (
	"context"
	"time"
)

// A worker that hangs (in a driver, on a CPU that something else does not give
// back) forwards nothing, and yet its interface is up and all else goes on. Each
// counts its turns, of which it makes several in a second even without work. They
// are looked at often enough that the VIPs can be announced by another node
// before many clients have given up, and missed often enough that a busy machine
// is not taken for a dead one.
const (
	lookInterval = 500 * time.Millisecond
	missesStuck  = 4 // looks in a row without a turn: two seconds
)

// pulse is what the looks at one worker have shown. It counts looks and not time:
// after a machine has stood still as a whole (a virtual machine that is moved,
// say), no worker has had its chance before the next look.
type pulse struct {
	turns  uint32 // at the last look
	misses int    // looks in a row since the last turn
}

func (p *pulse) look(turns uint32) {
	if turns != p.turns {
		*p = pulse{turns: turns}
		return
	}
	p.misses++
}

func (p *pulse) stuck() bool { return p.misses >= missesStuck }

// watchWorkers looks at all workers until ctx ends.
func (e *Engine) watchWorkers(ctx context.Context) error {
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if e.lookAtWorkers() {
				e.changed()
			}
		}
	}
}

// lookAtWorkers takes the pulse of each worker, and returns whether one has
// begun to be stuck or has come back.
func (e *Engine) lookAtWorkers() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := false
	for _, i := range e.interfaces {
		for n, w := range i.workers {
			p := &i.pulses[n]
			before := p.stuck()
			p.look(w.Turns())
			if p.stuck() == before {
				continue
			}
			changed = true
			log := e.cfg.Log.With("interface", i.cfg.Name, "queue", n)
			if before {
				log.Info("worker is back")
			} else {
				log.Error("worker is stuck: what its queue gets is not forwarded", "for", missesStuck*lookInterval)
			}
		}
	}
	return changed
}

// stuck tells whether one of the interface's workers is. The engine's mutex is
// held.
func (i *iface) stuck() bool {
	for n := range i.pulses {
		if i.pulses[n].stuck() {
			return true
		}
	}
	return false
}

// Hangs tells whether there are workers and all of them are stuck.
func (e *Engine) Hangs() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	workers := 0
	for _, i := range e.interfaces {
		for n := range i.pulses {
			if !i.pulses[n].stuck() {
				return false
			}
			workers++
		}
	}
	return workers > 0
}
