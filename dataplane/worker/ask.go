package worker

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// Do has the worker call fn between two batches and waits for it. fn holds up
// forwarding while it runs. It returns ErrStopped if the worker has ended, and
// ctx's error if the worker does not get round to it, in which case fn may
// still run later.
func (w *Worker) Do(ctx context.Context, fn func()) error {
	req := request{do: fn, done: make(chan struct{})}
	select {
	case w.requests <- req:
	case <-w.stopped:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("worker of queue %d does not respond: %w", w.cfg.Index, ctx.Err())
	}
	w.cfg.Queue.Wake()
	select {
	case <-req.done:
		return nil
	case <-w.stopped:
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("worker of queue %d does not respond: %w", w.cfg.Index, ctx.Err())
	}
}

// serve does one request, if there is one.
func (w *Worker) serve() bool {
	select {
	case req := <-w.requests:
		req.do()
		close(req.done)
		return true
	default:
		return false
	}
}

// Number returns the worker's number among all that run.
func (w *Worker) Number() uint16 { return w.cfg.Number }

// Index returns the number of the queue the worker works.
func (w *Worker) Index() int { return w.cfg.Index }

// CPU returns the CPU the worker is to be pinned to, negative for none.
func (w *Worker) CPU() int { return w.cfg.CPU }

// Turns returns how often the worker has looked for work, which it does every
// quarter of a second at least. If it stays the same for long, the worker hangs.
func (w *Worker) Turns() uint32 { return w.turns.Load() }

// Status is a worker's state: all at one moment but what Counters has of backends, one after
// the other.
type Status struct {
	Index    int
	CPU      int // negative if not pinned
	Flows    int // entries in use
	Capacity int // entries there are
	Queue    queue.Stats
	Counters stats.Counters
}

// copySlots is how many backends' counters are copied at one go, for the same reason
// as rangeSets.
const copySlots = 1024

// Status returns the worker's state as it is between two batches. With an error, that
// of Do, only Index and CPU are filled in.
func (w *Worker) Status(ctx context.Context) (Status, error) {
	s := new(Status)
	if err := w.StatusInto(ctx, s); err != nil {
		return Status{Index: w.cfg.Index, CPU: w.cfg.CPU}, err
	}
	return *s, nil
}

// StatusInto is Status in memory of the caller's, as far as that suffices: the worker
// allocates nothing in any case. After an error s may still be written to, and is not to
// be used again.
func (w *Worker) StatusInto(ctx context.Context, s *Status) error {
	s.Index, s.CPU = w.cfg.Index, w.cfg.CPU
	sent, backends, slots := s.Counters.Sent[:0], s.Counters.Backends[:0], 0
	err := w.Do(ctx, func() {
		s.Flows, s.Capacity = w.cfg.Flows.Len(), w.cfg.Flows.Cap()
		slots = len(w.counters.Backends)
		s.Counters = w.counters
	})
	if err != nil {
		return err
	}
	sent, backends = slices.Grow(sent, slots)[:slots], slices.Grow(backends, slots)[:slots]
	for from := 0; from < slots; from += copySlots {
		to := min(from+copySlots, slots)
		err := w.Do(ctx, func() {
			w.forward.Sent(from, sent[from:to])
			copy(backends[from:to], w.counters.Backends[from:])
		})
		if err != nil {
			return err
		}
	}
	s.Counters.Sent, s.Counters.Backends = sent, backends
	s.Queue = w.cfg.Queue.Stats()
	return nil
}

// Flow is one entry of a worker's flow table.
type Flow struct {
	Tuple      packet.Tuple
	Slot       uint32 // backend slot in the snapshot
	Generation uint32 // of the slot
	State      flow.State
	Idle       time.Duration // since the last packet, to 1/16 s

	// SNAT is what the backend sees the client as; the zero value if that is
	// the client's own address and port.
	SNAT netip.AddrPort
}

// rangeSets is how many sets of the flow table are listed at one go: short
// enough, at some tens of microseconds, not to be noticed by traffic.
const rangeSets = 256

// Flows calls yield for each entry of the flow table until yield returns false.
// The table changes meanwhile: each flow that exists throughout is seen once.
func (w *Worker) Flows(ctx context.Context, yield func(Flow) bool) error {
	chunk := make([]Flow, 0, rangeSets*8)
	for next := 0; ; {
		from := next
		chunk = chunk[:0]
		err := w.Do(ctx, func() {
			next = w.cfg.Flows.Range(from, rangeSets, w.now(), func(e *flow.Entry, s flow.State, idle time.Duration) {
				f := Flow{Tuple: e.Tuple, Slot: e.Backend, Generation: e.Generation, State: s, Idle: idle}
				if addr, port, ok := w.forward.Client(e); ok {
					f.SNAT = netip.AddrPortFrom(packet.NetipAddr(addr), port)
				}
				chunk = append(chunk, f)
			})
		})
		if err != nil {
			return err
		}
		for _, f := range chunk {
			if !yield(f) {
				return nil
			}
		}
		if next == 0 {
			return nil
		}
	}
}
