package nexthop

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weir/controlplane/changelog"
)

const (
	// settle is how long changes are collected before they are worked in:
	// they come in bursts, as one link going down changes every neighbour.
	settle = 20 * time.Millisecond

	// share bounds the time spent: after a pass of duration d, the next one
	// starts no earlier than share × d later. A routing daemon that reloads
	// a table can then take no more than a fifth of a CPU.
	share = 4

	// beat is the rhythm of all that is repeated.
	beat = time.Second

	// refreshBeats is after how many beats everything has been asked for
	// again, in case a change was not notified.
	refreshBeats = 5

	// After a failure, or when notifications were lost, the sockets are
	// opened again after backoffMin, and if that does not last, more and
	// more slowly.
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// Tracker keeps the hops of a set of backend addresses current. Run does the
// work; the other methods may be called from any goroutine, at any time.
type Tracker struct {
	log  *slog.Logger
	open func() (kernel, error)
	wire wire

	mu     sync.Mutex
	wanted []netip.Addr // guarded by mu

	retarget chan struct{} // capacity 1: wanted has changed
	changes  chan struct{}
	moved    changelog.Log[netip.Addr]
	hops     atomic.Pointer[map[netip.Addr]Hop] // the map is never written once stored
	own      atomic.Pointer[[]Address]          // likewise
}

// New returns a tracker without targets. It does nothing until Run.
func New(log *slog.Logger) *Tracker { return newTracker(log, openKernel, newSockets(log)) }

func newTracker(log *slog.Logger, open func() (kernel, error), w wire) *Tracker {
	t := &Tracker{
		log:      log,
		open:     open,
		wire:     w,
		retarget: make(chan struct{}, 1),
		changes:  make(chan struct{}, 1),
	}
	t.hops.Store(&map[netip.Addr]Hop{})
	t.own.Store(new([]Address))
	return t
}

// SetTargets replaces the set of addresses to track. Those that are new are
// looked up at once. An IPv4-mapped IPv6 address is taken as the IPv4 address,
// an invalid one is left out, and of doubles one is kept.
func (t *Tracker) SetTargets(addrs []netip.Addr) {
	wanted := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a.IsValid() {
			wanted = append(wanted, a.Unmap())
		}
	}
	t.mu.Lock()
	t.wanted = wanted
	t.mu.Unlock()
	signal(t.retarget)
}

// Hops returns the answer for every target that has been looked up at least
// once. The map is a snapshot that all callers share: it must not be modified.
func (t *Tracker) Hops() map[netip.Addr]Hop { return *t.hops.Load() }

// Moved returns the targets whose hop has changed since an earlier call returned
// now, or all: that any may have. It does not say which targets have gone.
func (t *Tracker) Moved(since uint64) (addrs []netip.Addr, now uint64, all bool) {
	return t.moved.Since(since)
}

// Addresses returns the machine's own addresses on all interfaces, ascending,
// those of loopback interfaces included; none before Run has read them. All
// callers share them: they must not be modified.
func (t *Tracker) Addresses() []Address { return *t.own.Load() }

// Changes signals that Hops or Addresses differs from before. It has a capacity
// of one: a signal stands for any number of changes.
func (t *Tracker) Changes() <-chan struct{} { return t.changes }

// Run follows the kernel until ctx is done, and then returns nil. It looks at
// the network namespace of the thread it is called on. It needs CAP_NET_ADMIN,
// to make the kernel probe neighbours, and CAP_NET_RAW, to poll them. It may be
// called once.
//
// The error is of the first attempt to open the kernel's sockets. If they fail
// later or lose notifications, Run logs it, keeps the hops it has, and opens
// them again.
func (t *Tracker) Run(ctx context.Context) error {
	k, err := t.open()
	if err != nil {
		return fmt.Errorf("follow routes and neighbours: %w", err)
	}
	defer t.wire.Close()
	s := newState(t.log)
	for backoff := backoffMin; ; {
		if k != nil {
			started := time.Now()
			err = t.follow(ctx, k, s)
			if time.Since(started) > backoffMax {
				backoff = backoffMin
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		t.log.Warn("cannot follow routes and neighbours, trying again", "after", backoff, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, backoffMax)
		k, err = t.open()
		if err != nil {
			k = nil
		}
	}
}

// notification is what one kernel.Receive returned.
type notification struct {
	events []event
	err    error
}

// follow reads everything once and then keeps up with notifications, until ctx
// is done or the kernel's sockets fail. It closes k.
func (t *Tracker) follow(ctx context.Context, k kernel, s *state) error {
	ctx, cancel := context.WithCancel(ctx)
	notifications := make(chan notification)
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer k.Close()
	defer cancel()
	receiver.Go(func() {
		for {
			events, err := k.Receive()
			select {
			case notifications <- notification{events, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})

	s.forget()
	t.mu.Lock()
	s.setTargets(t.wanted)
	t.mu.Unlock()

	var (
		next      = time.NewTimer(0) // of the pass
		scheduled = true             // next is running
		busy      time.Duration      // length of the last pass
		beats     = time.NewTicker(beat)
		slots     = time.NewTicker(slot)
	)
	defer next.Stop()
	defer beats.Stop()
	defer slots.Stop()
	schedule := func() {
		if !scheduled {
			scheduled = true
			next.Reset(max(settle, share*busy))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.retarget:
			t.mu.Lock()
			s.setTargets(t.wanted)
			t.mu.Unlock()
			schedule()
		case <-beats.C:
			s.beat()
			t.wire.Tidy()
			schedule()
		case <-slots.C:
			s.tick(k, t.wire)
		case n := <-notifications:
			if n.err != nil {
				return n.err
			}
			if s.apply(n.events) {
				schedule()
			}
		case <-next.C:
			scheduled = false
			started := time.Now()
			changed, err := s.pass(k)
			if err != nil {
				return err
			}
			busy = time.Since(started)
			if changed {
				hops := s.hops()
				t.hops.Store(&hops)
				t.moved.Add(s.moved...)
				own := s.own
				t.own.Store(&own)
				signal(t.changes)
			}
		}
	}
}

// signal leaves a token in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
