package ladder

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"weir/dataplane/forward"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/worker"
)

// job is what a source is told to do.
type job struct {
	batches int
	restore bool // make packets, and do no more
}

// source is a queue in memory that has packets when it has a job, and forgets
// what it is sent. It neither locks nor copies, unlike queuetest's, which is
// there to find mistakes. Its counts are the worker's until it is idle.
type source struct {
	*stream // of who gives the jobs, who lets it be while there is one

	jobs    chan job
	done    chan time.Duration // how long the worker's thread has run for a job
	wake    chan struct{}
	timeout *time.Timer // the worker's
	busy    bool        // with a job
	left    int         // batches of it
	started time.Duration

	sent, released uint64
}

func newSource(s *stream) *source {
	return &source{stream: s, jobs: make(chan job, 1), done: make(chan time.Duration, 1), wake: make(chan struct{}, 1), timeout: time.NewTimer(0)}
}

// Receive implements [queue.Queue]. A job has ended when the worker asks for
// more: then it is done with the last batch.
func (s *source) Receive(frames []queue.Frame) (int, error) {
	batch := (*[forward.BatchSize]queue.Frame)(frames)
	if s.left == 0 {
		s.finish()
		if !s.begin(batch) {
			return 0, nil
		}
	}
	s.left--
	s.restore(batch, 1)
	return len(batch), nil
}

func (s *source) finish() {
	if s.busy {
		s.done <- threadTime() - s.started
		s.busy = false
	}
}

// begin takes the next job, and reports whether it has packets for the worker.
// Those of others are made in the worker's frames, too.
func (s *source) begin(batch *[forward.BatchSize]queue.Frame) bool {
	var j job
	select {
	case j = <-s.jobs:
	default:
		return false
	}
	s.busy, s.started = true, threadTime()
	if j.restore {
		s.restore(batch, j.batches)
		s.finish()
		return false
	}
	s.left = j.batches
	return s.left > 0
}

// do has the worker's thread do a job, and returns how long it has run for it.
func (s *source) do(j job, ended <-chan error) (time.Duration, error) {
	s.jobs <- j
	s.Wake()
	select {
	case took := <-s.done:
		return took, nil
	case err := <-ended:
		return 0, fmt.Errorf("worker has ended: %w", err)
	}
}

// Alloc implements [queue.Queue]. Nothing comes from other workers.
func (s *source) Alloc([]queue.Frame) int { return 0 }

// Send implements [queue.Queue].
func (s *source) Send(frames []queue.Frame) (int, error) {
	s.sent += uint64(len(frames))
	return len(frames), nil
}

// Release implements [queue.Queue].
func (s *source) Release(frames []queue.Frame) { s.released += uint64(len(frames)) }

// Wait implements [queue.Queue].
func (s *source) Wait(timeout time.Duration) error {
	s.timeout.Reset(timeout)
	select {
	case <-s.wake:
	case <-s.timeout.C:
	}
	return nil
}

// Wake implements [queue.Queue].
func (s *source) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats implements [queue.Queue].
func (s *source) Stats() queue.Stats { return queue.Stats{} }

// Close implements [queue.Queue].
func (s *source) Close() error { return nil }

// worker is a turn of the worker.
func (r *rig) worker(cpu int) error {
	source := newSource(&r.stream)
	var snap atomic.Pointer[snapshot.Snapshot]
	snap.Store(r.snap)
	w := worker.New(worker.Config{
		CPU: cpu, Queue: source, Flows: r.flows, Space: r.space, Snapshot: &snap, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	r.closers = append(r.closers, func() error {
		stop()
		return <-ended
	})
	r.loop = func(batches int, restore bool) (time.Duration, error) {
		took, err := source.do(job{batches: batches, restore: restore}, ended)
		if err != nil {
			ended <- err // for close
		}
		return took, err
	}
	r.count = func() (counts, error) {
		status, err := w.Status(ctx)
		c := countsOf(&status.Counters, status.Counters.Received.Packets)
		c.dropped += source.released
		return c, err
	}
	return nil
}
