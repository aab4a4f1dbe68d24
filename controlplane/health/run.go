package health

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Run carries the checks out until ctx is done, and returns nil once the last
// probe has ended. It may be called once. The sockets are those of the
// process's network namespace.
//
// A check has a goroutine only while it is probed.
func (c *Checker) Run(ctx context.Context) error {
	if c.own != nil {
		defer c.own.Close()
	}
	var all sync.WaitGroup
	defer all.Wait()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-next.C:
		}
		next.Reset(c.start(ctx, &all))
	}
}

// start starts the probes that are due, and returns how long it is until the
// next are.
func (c *Checker) start(ctx context.Context, all *sync.WaitGroup) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.queue) > 0 && !c.queue[0].due.After(now) && len(c.checks)-len(c.queue) < most {
		r := heap.Pop(&c.queue).(*running)
		var own context.Context
		own, r.stop = context.WithTimeout(ctx, r.check.Timeout)
		all.Go(func() { c.probe(own, r, now) })
	}
	if len(c.queue) == 0 {
		return time.Hour
	}
	return max(c.queue[0].due.Sub(now), tick)
}

// probe makes one probe, which was begun at a time, and puts the check back into
// the queue.
func (c *Checker) probe(ctx context.Context, r *running, begun time.Time) {
	started := time.Now()
	err := explain(ctx, r.probe(ctx), r.check.Timeout)
	ended := time.Now()
	if late := ended.Sub(begun) - r.check.Timeout; errors.As(err, new(noAnswer)) && late > r.check.Timeout/lateness {
		err = fmt.Errorf("this box is too busy: a probe ended %v after its time-out: %w", late.Round(time.Millisecond), ErrNotNow)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	stopped := c.checks[r.check.ID] != r || errors.Is(ctx.Err(), context.Canceled) // removed, or Run ends
	r.stop()
	r.stop = nil
	if stopped {
		return
	}
	c.observe(r, err, ended.Sub(started), ended)
	interval := r.check.Interval
	if r.suspect || errors.Is(err, ErrUnable) {
		interval = min(interval, urgent)
	}
	interval += rand.N(interval/5+1) - interval/10
	if r.due = started.Add(interval); r.again || r.due.Before(ended) {
		r.due = ended
	}
	r.again = false
	full := len(c.checks)-len(c.queue) >= most
	heap.Push(&c.queue, r)
	if c.queue[0] == r || full {
		signal(c.wake)
	}
}

// observe records the result of a probe. It is called with mu held.
func (c *Checker) observe(r *running, err error, took time.Duration, now time.Time) {
	before := r.verdict.State
	changed := r.verdict.observe(&r.check, err, took, now)
	notNow := errors.Is(err, ErrNotNow)
	if notNow && took > r.check.Timeout { // not for want of a way, which others tell of
		c.tell(r, err, now)
	}
	unable := notNow || r.verdict.unable > 0
	if r.verdict.unable == worth {
		c.tell(r, err, now)
	}
	if was := r.verdict.Unable; was != (r.verdict.unable >= worth) {
		r.verdict.Unable = !was
		c.changed.Add(r.check.ID)
		signal(c.changes)
	}
	if unable || r.verdict.State == Down || err == nil && !r.again {
		r.suspect, r.again = false, false
	}
	if !changed {
		return
	}
	c.changed.Add(r.check.ID)
	signal(c.changes)
	attrs := []any{"check", r.check.ID, "targets", r.check.Targets, "kind", r.check.Probe.String(), "was", before.String()}
	// Whoever uses the verdict says what follows from it, and louder.
	switch r.verdict.State {
	case Up:
		c.log.Debug("backend is up", attrs...)
	case Unknown:
		c.log.Debug("backend may be up, as nobody can ask", append(attrs, "err", err)...)
	default:
		c.log.Debug("backend is down", append(attrs, "failures", r.check.Fall, "err", err)...)
	}
}

// tell logs that a check cannot be made. It is called with mu held.
func (c *Checker) tell(r *running, err error, now time.Time) {
	if now.Sub(c.mention) > mentionedIn {
		c.mention, c.mentions = now, 0
	}
	switch c.mentions++; {
	case c.mentions <= mentioned:
		c.log.Warn("a health check cannot be made, which counts against nobody", "check", r.check.ID, "err", err)
	case c.mentions == mentioned+1:
		c.log.Warn("more health checks cannot be made")
	}
}

// queue is a heap of checks by when they are due (container/heap).
type queue []*running

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

func (q *queue) Push(x any) {
	r := x.(*running)
	r.at = len(*q)
	*q = append(*q, r)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	r.at = -1
	return r
}
