package health

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"weir/controlplane/changelog"
)

const (
	// tick is how exact probes are in time. Those that fall due within one tick
	// start together, which costs a busy checker far fewer wake-ups.
	tick = 5 * time.Millisecond

	// urgent is the longest interval of a suspected check while it fails, and of
	// one for which there is no way yet: it may be there in a moment.
	urgent = 500 * time.Millisecond

	// worth is how many probes in a row that cannot be made are worth mentioning:
	// the first often only comes before the way to its backend is known.
	worth = 2

	// mentioned is how many checks that cannot be made are mentioned in a row, within
	// mentionedIn: what keeps one from being made mostly keeps many.
	mentioned   = 8
	mentionedIn = time.Minute

	// most is how many probes are under way at once. Beyond it they wait, so that a
	// box that does not keep up checks less often, and not all in vain.
	most = 2048

	// firstIn bounds the time until a check is probed first, and rush is how many of
	// them begin per second then.
	firstIn = time.Second
	rush    = 5000

	// lateness is how much later than its time-out a probe may end, as a part of
	// that, before it is this box that was too slow, and not the backend.
	lateness = 5

	// suspicions is the least time between two that count, per check.
	suspicions = time.Second
)

// Checker runs a set of checks. Run does the work; the other methods may be
// called from any goroutine, at any time.
type Checker struct {
	log     *slog.Logger
	probing func(Check) attempt
	shared  *shared
	own     *Kernel // nil if the network is the caller's

	mu     sync.Mutex
	checks map[string]*running // guarded by mu, with what is in it
	queue  queue               // of checks that are not being probed; guarded by mu

	changed  changelog.Log[string]
	mentions int       // since mention; guarded by mu
	mention  time.Time // guarded by mu

	wake    chan struct{} // capacity 1: the head of the queue is another one
	changes chan struct{}
}

// running is one check, from SetChecks on until it is replaced or removed.
type running struct {
	check   Check   // never written
	probe   attempt // never written
	verdict verdict

	due  time.Time          // of the next probe
	at   int                // place in the queue; -1 while a probe is under way
	stop context.CancelFunc // of the probe under way

	suspected time.Time // when it was, last
	suspect   bool      // failures repeat quickly
	again     bool      // suspected since the probe under way has started
}

// New returns a checker without checks. It does nothing until Run. Without a
// network (nil), it has one of its own, the kernel's sockets, until the end of
// Run; else the network is the caller's to close, after Run.
func New(log *slog.Logger, network Network) *Checker {
	shared := newShared()
	var own *Kernel
	if network == nil {
		own = NewKernel(nil)
		network = own
	}
	c := newChecker(log, func(check Check) attempt { return attemptOn(check, network, shared) })
	c.shared, c.own = shared, own
	return c
}

func newChecker(log *slog.Logger, probing func(Check) attempt) *Checker {
	return &Checker{
		log:     log,
		probing: probing,
		shared:  newShared(),
		checks:  map[string]*running{},
		wake:    make(chan struct{}, 1),
		changes: make(chan struct{}, 1),
	}
}

// SetChecks replaces the set of checks. One that is the same as before keeps
// its state and its schedule; one that is gone stops. One whose ID is the same but
// that is different otherwise starts anew: from the state it had if its targets
// are the same, and from Down in any case if it was Down. A server that is down must
// not get traffic because its interval or its port was edited. Of two checks with
// one ID, the last counts.
//
// The first probe is made almost at once, within a second of all but very many,
// and each interval is stretched or
// shortened a little: however many checks are set in one moment, their probes
// drift apart.
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
		r.due = now.Add(rand.N(first(check.Interval, len(checks)) + 1))
		if old != nil && (old.verdict.State == Down || reflect.DeepEqual(old.check.Targets, check.Targets)) {
			r.verdict.Result = old.verdict.Result
		}
		if old != nil && (old.verdict.State != r.verdict.State || old.verdict.Unable != r.verdict.Unable) {
			differs = true
			c.changed.Add(check.ID)
		}
		c.checks[check.ID] = r
	}
	for id, old := range before {
		if c.checks[id] != old && old.stop != nil {
			old.stop()
		}
	}
	clear(c.queue)
	c.queue = c.queue[:0]
	for _, r := range c.checks {
		if r.probe == nil {
			r.probe = c.probing(r.check)
		}
		if r.stop == nil {
			r.at = len(c.queue)
			c.queue = append(c.queue, r)
		}
	}
	heap.Init(&c.queue)
	c.shared.credentials.keep(c.checks)
	if differs {
		signal(c.changes)
	}
	signal(c.wake)
}

// first returns within which time a new check is probed first.
func first(interval time.Duration, checks int) time.Duration {
	spread := max(min(interval/10, firstIn), time.Duration(checks)*time.Second/rush)
	return min(spread, interval)
}

// Suspect probes a check at once, and as long as the probes fail, repeats them
// after at most 500 ms (± 10 %), so that Down is reached after Fall quick failures
// instead of Fall intervals. A success, Down, or a probe that cannot be made
// ends the suspicion. A check is suspected once per second, however often this
// is called; one that is Down already, or does not exist, not at all.
func (c *Checker) Suspect(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	r := c.checks[id]
	if r == nil || r.verdict.State == Down || now.Sub(r.suspected) < suspicions {
		return
	}
	r.suspected, r.suspect = now, true
	if r.stop != nil { // what it finds may be older than the suspicion
		r.again = true
		return
	}
	r.due = now
	heap.Fix(&c.queue, r.at)
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

// Result returns the state of one check; the zero Result if there is none.
func (c *Checker) Result(id string) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.checks[id]; r != nil {
		return r.verdict.Result
	}
	return Result{}
}

// Changed returns the IDs of the checks whose State or Unable has changed since an
// earlier call returned now, or all: that any may have.
func (c *Checker) Changed(since uint64) (ids []string, now uint64, all bool) {
	return c.changed.Since(since)
}

// Changes signals that the State of a check differs from before. It has a
// capacity of one: a signal stands for any number of changes.
func (c *Checker) Changes() <-chan struct{} { return c.changes }

// signal leaves a token in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
