package snapshots

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/reconcile"
	"weir/dataplane/affinity"
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/perf/measure"
)

// While says what goes on while a worker is watched.
type While string

// What goes on.
const (
	Quiet      While = "nothing"
	Changing   While = "changes"   // of health, one right after the other
	Collecting While = "collector" // garbage collections, one right after the other
)

func whiles() []While { return []While{Quiet, Changing, Collecting} }

// long is how long a worker is away that is counted: what a queue of 2,048 frames
// takes to fill at ten million a second is twice that.
const long = 100 * time.Microsecond

// Away is how long a worker was not at its queue. It is one that looks for a new
// snapshot and at the clock, over and over, on a CPU of its own.
type Away struct {
	While   While   `json:"while"`
	Round   int     `json:"round"`
	Watched float64 `json:"watched_seconds"`
	Longest float64 `json:"longest_seconds"`
	Long    int     `json:"long"`   // times for more than 100 µs
	Waited  float64 `json:"waited"` // share of time in which its thread waited for its CPU

	Adopts   []float64 `json:"adopts_seconds"`  // what it took to adopt each snapshot
	Cycles   int       `json:"cycles"`          // of the collector
	Cycle    float64   `json:"cycle_seconds"`   // how long one took; only while Collecting
	Stopped  float64   `json:"stopped_seconds"` // of all goroutines, per cycle
	Snapshot float64   `json:"first_adopt_seconds"`
}

// spinner is the worker.
type spinner struct {
	from    *atomic.Pointer[snapshot.Snapshot]
	forward *forward.Forwarder
	room    *affinity.Room
	stop    atomic.Bool
	away    Away
	err     error
}

// watchWorker watches a worker while what the Away says goes on.
func (w *world) watchWorker(ctx context.Context, rec *reconcile.Reconciler, a Away, changes int) (Away, error) {
	return w.watch(a, func() error {
		switch a.While {
		case Quiet:
			return measure.Sleep(ctx, time.Second)
		case Changing:
			for n := range changes {
				if _, err := w.change(ctx, rec, Health, n); err != nil {
					return err
				}
			}
			return nil
		case Collecting:
			for range collections {
				runtime.GC()
			}
			return ctx.Err()
		}
		return fmt.Errorf("watch a worker while %q: there is no such thing", a.While)
	})
}

const collections = 5

func (w *world) watch(a Away, do func() error) (Away, error) {
	flows, err := flow.New(1024, flow.DefaultTimeouts())
	if err != nil {
		return a, err
	}
	defer flows.Close()
	s := &spinner{from: &w.snap, room: w.room, away: a, forward: forward.New(forward.Config{
		Flows: flows, Space: w.space, Counters: &stats.Counters{}, Outbox: nobody{},
	})}
	runtime.GC()
	ready, done := make(chan struct{}), make(chan struct{})
	go s.run(ready, done)
	<-ready
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	err = do()
	took := time.Since(start)
	s.stop.Store(true)
	<-done
	runtime.ReadMemStats(&after)
	if err == nil {
		err = s.err
	}
	s.away.Watched = took.Seconds()
	if n := int(after.NumGC - before.NumGC); n > 0 {
		s.away.Cycles, s.away.Stopped = n, float64(after.PauseTotalNs-before.PauseTotalNs)/1e9/float64(n)
		if a.While == Collecting {
			s.away.Cycle = took.Seconds() / float64(n)
		}
	}
	return s.away, err
}

// run spins on the last CPU that is allowed, until it is told to stop.
func (s *spinner) run(ready, done chan<- struct{}) {
	defer close(done)
	runtime.LockOSThread() // never unlocked: the thread ends with it, and its affinity
	unpin, err := s.pin()
	if s.err = err; err != nil {
		close(ready)
		return
	}
	defer unpin()
	snap := s.from.Load()
	start := time.Now()
	s.forward.Adopt(snap)
	s.away.Snapshot = time.Since(start).Seconds()
	tid := unix.Gettid()
	spentBefore, err := measure.ReadThread(os.Getpid(), tid)
	if err != nil {
		s.err = err
	}
	close(ready)
	begin := time.Now()
	longest, last := time.Duration(0), begin
	for over := false; !over; {
		over = s.stop.Load() // and then once more, so that the last snapshot is adopted in any case
		if now := s.from.Load(); now != snap {
			adopting := time.Now()
			s.forward.Adopt(now)
			s.away.Adopts = append(s.away.Adopts, time.Since(adopting).Seconds())
			snap = now
		}
		now := time.Now()
		away := now.Sub(last)
		longest, last = max(longest, away), now
		if away > long {
			s.away.Long++
		}
	}
	spent, err := measure.ReadThread(os.Getpid(), tid)
	if err != nil {
		s.err = err
	}
	s.away.Longest = longest.Seconds()
	s.away.Waited = spent.Since(spentBefore).Waited.Seconds() / last.Sub(begin).Seconds()
}

// pin has the thread run on the last CPU that is allowed, and all others elsewhere.
func (s *spinner) pin() (unpin func(), err error) {
	cpus, err := affinity.Allowed()
	if err != nil {
		return nil, err
	}
	cpu := cpus[len(cpus)-1]
	if _, err := s.room.Make([]int{cpu}); err != nil {
		return nil, err
	}
	return s.room.Pin(cpu)
}

// nobody is an outbox of a worker that gets no packets.
type nobody struct{}

func (nobody) Pass(int, []byte, handover.Meta)  {}
func (nobody) Learn([16]byte, int)              {}
func (nobody) Claim([16]byte, packet.MAC, bool) {}
