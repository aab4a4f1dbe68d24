// Package announcetest has what tests around announcers need: a Fake to put in an
// announcer's place, and the contract that every announcer has to keep.
//
// The problem it solves: callers are tested without a network, and an announcer
// that somebody adds later is right when it passes the same checks as the others,
// whatever protocol it speaks.
package announcetest

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weir/controlplane/announce"
)

// Fake is an announcer without a network: what is Set is announced at once, while
// it runs. Its methods may be called from any goroutine.
type Fake struct {
	name    string
	changes chan struct{}

	mu      sync.Mutex
	ads     []announce.Advertisement
	sets    int
	running bool
	left    bool
	since   time.Time
	report  []announce.Status           // if not nil, what Status says
	leave   func(context.Context) error // if not nil, what Leave does first
}

// NewFake returns a fake announcer with that name.
func NewFake(name string) *Fake {
	return &Fake{name: name, changes: make(chan struct{}, 1)}
}

// Name is part of announce.Announcer.
func (f *Fake) Name() string { return f.name }

// Set is part of announce.Announcer.
func (f *Fake) Set(ads []announce.Advertisement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets++
	f.ads, f.since = ads, time.Now()
	f.signal()
}

// Status is part of announce.Announcer: everything is announced to "everybody",
// or what Report has been given last.
func (f *Fake) Status() []announce.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.report != nil {
		return slices.Clone(f.report)
	}
	var all []announce.Status
	for _, p := range f.told() {
		all = append(all, announce.Status{
			Address: p, Protocol: f.name, To: "everybody", State: announce.Announced,
			Since: f.since, Sent: 1, Last: f.since,
		})
	}
	return all
}

// Changes is part of announce.Announcer.
func (f *Fake) Changes() <-chan struct{} { return f.changes }

// Run is part of announce.Announcer.
func (f *Fake) Run(ctx context.Context) error {
	f.become(func() { f.running = true })
	<-ctx.Done()
	f.become(func() { f.running = false })
	return nil
}

// Leave is part of announce.Announcer.
func (f *Fake) Leave(ctx context.Context) error {
	f.mu.Lock()
	first := f.leave
	f.mu.Unlock()
	if first != nil {
		if err := first(ctx); err != nil {
			return err
		}
	}
	f.become(func() { f.left = true })
	return nil
}

// Ads returns what has been Set last.
func (f *Fake) Ads() []announce.Advertisement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ads)
}

// Sets returns how often Set has been called.
func (f *Fake) Sets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets
}

// Left reports whether Leave has been called and has succeeded.
func (f *Fake) Left() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left
}

// Told returns what the network has been told: the addresses that are Set, while
// the fake runs and has not left.
func (f *Fake) Told() []netip.Prefix {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.told()
}

// Report makes all what Status returns from now on, and signals the change; nil
// brings back the truth.
func (f *Fake) Report(all []announce.Status) {
	f.become(func() { f.report = all })
}

// OnLeave makes Leave call do first; if that fails, nothing is left. It is for
// tests of what happens when leaving takes long or fails.
func (f *Fake) OnLeave(do func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leave = do
}

func (f *Fake) become(what func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what()
	f.signal()
}

func (f *Fake) told() []netip.Prefix {
	if !f.running || f.left {
		return nil
	}
	var all []netip.Prefix
	for _, ad := range f.ads {
		all = append(all, netip.PrefixFrom(ad.Address, ad.Address.BitLen()))
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

func (f *Fake) signal() {
	select {
	case f.changes <- struct{}{}:
	default:
	}
}
