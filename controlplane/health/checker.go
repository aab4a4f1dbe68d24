package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"
)

// Checker runs a set of checks. Run does the work; the other methods may be
// called from any goroutine, at any time.
type Checker struct {
	log     *slog.Logger
	probing func(Check) probe

	mu     sync.Mutex
	checks map[string]*running // guarded by mu, with what is in it

	wake    chan struct{} // capacity 1: there are checks to start
	changes chan struct{}
}

// running is one check, from SetChecks on until it is replaced or removed.
type running struct {
	check   Check // never written
	verdict verdict
	stop    context.CancelFunc // nil while it has not been started; called with mu held
	unable  bool               // the latest probe could not even be made
}

// New returns a checker without checks. It does nothing until Run.
func New(log *slog.Logger) *Checker { return newChecker(log, direct) }

func newChecker(log *slog.Logger, probing func(Check) probe) *Checker {
	return &Checker{
		log:     log,
		probing: probing,
		checks:  map[string]*running{},
		wake:    make(chan struct{}, 1),
		changes: make(chan struct{}, 1),
	}
}

// SetChecks replaces the set of checks. One that is the same as before keeps
// its state and its schedule; one that is gone stops. One whose ID and address
// are the same but that is different otherwise starts anew, from the state it
// had: a server that is down must not get traffic because its interval was
// edited. Of two checks with one ID, the last counts.
func (c *Checker) SetChecks(checks []Check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.checks
	c.checks = make(map[string]*running, len(checks))
	now := time.Now()
	differs := false
	for _, check := range checks {
		check = check.complete()
		old := before[check.ID]
		if old != nil && reflect.DeepEqual(old.check, check) {
			c.checks[check.ID] = old
			continue
		}
		r := &running{check: check, verdict: verdict{Result: Result{Since: now}}}
		if old != nil && old.check.Address == check.Address {
			r.verdict.Result = old.verdict.Result
		}
		differs = differs || old != nil && old.verdict.State != r.verdict.State
		c.checks[check.ID] = r
	}
	for id, old := range before {
		if c.checks[id] != old && old.stop != nil {
			old.stop()
		}
	}
	if differs {
		signal(c.changes)
	}
	signal(c.wake)
}

// Results returns the state of every check by its ID. The map is a copy.
func (c *Checker) Results() map[string]Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	results := make(map[string]Result, len(c.checks))
	for id, r := range c.checks {
		results[id] = r.verdict.Result
	}
	return results
}

// Changes signals that the State of a check differs from before. It has a
// capacity of one: a signal stands for any number of changes.
func (c *Checker) Changes() <-chan struct{} { return c.changes }

// Run carries the checks out until ctx is done, and returns nil once the last
// probe has ended. It may be called once. The sockets are those of the
// process's network namespace.
func (c *Checker) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for {
		c.mu.Lock()
		for _, r := range c.checks {
			if r.stop == nil {
				var own context.Context
				own, r.stop = context.WithCancel(ctx)
				all.Go(func() { c.repeat(own, r) })
			}
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
	}
}

// repeat makes the probes of one check until ctx is done.
//
// The first is made almost at once, and each interval is stretched or shortened
// a little: however many checks are set in one moment, their probes drift
// apart.
func (c *Checker) repeat(ctx context.Context, r *running) {
	defer r.stop()
	probe := c.probing(r.check)
	next := time.NewTimer(rand.N(r.check.Interval/10 + 1))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		started := time.Now()
		err := attempt(ctx, probe, r.check.Timeout)
		took := time.Since(started)
		c.observe(ctx, r, err, took)
		interval := r.check.Interval - r.check.Interval/10 + rand.N(r.check.Interval/5+1)
		next.Reset(max(interval-took, 0))
	}
}

// attempt makes one probe.
func attempt(ctx context.Context, probe probe, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", timeout)
	}
	return err
}

// observe records the result of a probe, unless the check was stopped while it
// was made.
func (c *Checker) observe(ctx context.Context, r *running, err error, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if unable := err != nil && ours(err); unable != r.unable {
		r.unable = unable
		if unable {
			c.log.Warn("a health check cannot be made; its backend keeps its state", "check", r.check.ID, "err", err)
		}
	}
	before := r.verdict.State
	if !r.verdict.observe(&r.check, err, took, time.Now()) {
		return
	}
	signal(c.changes)
	attrs := []any{"check", r.check.ID, "backend", r.check.Address, "port", r.check.Port, "kind", r.check.Kind.String(), "was", before.String()}
	// Whoever uses the verdict says what follows from it, and louder.
	if r.verdict.State == Up {
		c.log.Debug("backend is up", attrs...)
	} else {
		c.log.Debug("backend is down", append(attrs, "failures", r.check.Fall, "err", err)...)
	}
}

// signal leaves a token in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
