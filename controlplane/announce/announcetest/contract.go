package announcetest

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"weir/controlplane/announce"
)

// Subject is an announcer under test, made anew for every check.
type Subject struct {
	// Announcer does not run yet and has been Set nothing; the check does both.
	// Everything else that it needs (links, sessions, a configuration) is there, or
	// comes by itself once it runs.
	Announcer announce.Announcer

	// Ads can all be announced here. There are two at least.
	Ads []announce.Advertisement

	// Told returns what the other side of the network believes to be announced at
	// this moment. It must not ask the announcer.
	Told func() []netip.Prefix
}

// Check is one clause of the contract.
type Check struct {
	Name string
	Run  func(*testing.T, Subject)
}

// patience is how long a check waits for something that has to happen, and calm
// how long it watches that something does not. With virtual time (testing/synctest)
// they cost nothing.
const (
	patience = 20 * time.Second
	calm     = 200 * time.Millisecond
	step     = 10 * time.Millisecond
)

// Contract returns the clauses that every announcer keeps. Each is run as a
// subtest, in a synctest bubble if the announcer allows for it:
//
//	for _, c := range announcetest.Contract() {
//		t.Run(c.Name, func(t *testing.T) {
//			synctest.Test(t, func(t *testing.T) { c.Run(t, subject(t)) })
//		})
//	}
func Contract() []Check {
	return []Check{
		{"announces what is set", announcesWhatIsSet},
		{"announces what was set before it ran", announcesWhatWasSetBefore},
		{"withdraws what is not set any more", withdrawsWhatIsNotSet},
		{"announces again what was withdrawn", announcesAgain},
		{"the same set again changes nothing", sameSetAgain},
		{"says when something has changed", saysWhenChanged},
		{"status is sorted", statusIsSorted},
		{"leaves nothing behind, and stays silent", leavesNothing},
		{"leaves without having announced", leavesFromNothing},
		{"does not outstay the time given to leave", leaveIsBounded},
		{"any goroutine may call", anyGoroutine},
	}
}

// run starts the subject and returns it with what is needed to look at it. When
// the test ends it is stopped, and Run has to return nil.
func run(t *testing.T, s Subject) *running {
	t.Helper()
	if s.Announcer.Name() == "" {
		t.Error("it has no name")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Announcer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return &running{t: t, Subject: s}
}

type running struct {
	t *testing.T
	Subject
}

// knows reports whether the network has been told of the address.
func (r *running) knows(a netip.Addr) bool {
	return slices.ContainsFunc(r.Told(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// says reports whether some announcement of the address is in the state.
func (r *running) says(a netip.Addr, state announce.State) bool {
	return slices.ContainsFunc(r.Announcer.Status(), func(s announce.Status) bool {
		return s.Address.Contains(a) && s.State == state
	})
}

// until waits for a condition.
func (r *running) until(what string, is func() bool) {
	r.t.Helper()
	for range patience / step {
		if is() {
			return
		}
		time.Sleep(step)
	}
	r.t.Fatalf("not in %v: %s; told %v, status %+v", patience, what, r.Told(), r.Announcer.Status())
}

// stays watches that a condition holds for a while.
func (r *running) stays(what string, is func() bool) {
	r.t.Helper()
	for range calm / step {
		if !is() {
			r.t.Fatalf("not true any more: %s; told %v, status %+v", what, r.Told(), r.Announcer.Status())
		}
		time.Sleep(step)
	}
}

// set sets a number of the subject's ads and waits until they are announced.
func (r *running) set(n int) {
	r.t.Helper()
	r.Announcer.Set(slices.Clone(r.Ads[:n]))
	for _, ad := range r.Ads[:n] {
		r.until("the network knows "+ad.Address.String(), func() bool { return r.knows(ad.Address) })
		r.until("Status says that "+ad.Address.String()+" is announced", func() bool { return r.says(ad.Address, announce.Announced) })
	}
}

func announcesWhatIsSet(t *testing.T, s Subject) {
	r := run(t, s)
	r.stays("nothing is announced", func() bool { return len(r.Told()) == 0 })
	r.set(2)
	for _, st := range r.Announcer.Status() {
		if st.Protocol == "" || st.To == "" || st.Since.IsZero() || !st.Address.IsValid() {
			t.Errorf("says too little: %+v", st)
		}
		if st.State == announce.Announced && (st.Sent == 0 || st.Last.IsZero() || st.Err != "") {
			t.Errorf("announced, but: %+v", st)
		}
	}
}

func announcesWhatWasSetBefore(t *testing.T, s Subject) {
	s.Announcer.Set(slices.Clone(s.Ads[:2]))
	r := run(t, s)
	for _, ad := range s.Ads[:2] {
		r.until("the network knows "+ad.Address.String(), func() bool { return r.knows(ad.Address) })
	}
}

func withdrawsWhatIsNotSet(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(2)
	stays, goes := r.Ads[0].Address, r.Ads[1].Address
	r.Announcer.Set(slices.Clone(r.Ads[:1]))
	r.until("the second is withdrawn", func() bool { return !r.knows(goes) })
	r.until("Status says so", func() bool { return !r.says(goes, announce.Announced) })
	r.stays("the first is announced", func() bool { return r.knows(stays) && !r.knows(goes) })
	r.Announcer.Set(nil)
	r.until("all is withdrawn", func() bool { return len(r.Told()) == 0 })
}

func announcesAgain(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(1)
	r.Announcer.Set(nil)
	r.until("it is withdrawn", func() bool { return len(r.Told()) == 0 })
	r.set(1)
}

func sameSetAgain(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(2)
	reversed := slices.Clone(r.Ads[:2])
	slices.Reverse(reversed)
	for _, ads := range [][]announce.Advertisement{slices.Clone(r.Ads[:2]), reversed} {
		r.Announcer.Set(ads)
		r.stays("both are announced", func() bool { return r.knows(r.Ads[0].Address) && r.knows(r.Ads[1].Address) })
	}
}

func saysWhenChanged(t *testing.T, s Subject) {
	r := run(t, s)
	if n := cap(r.Announcer.Changes()); n != 1 {
		t.Errorf("Changes has a capacity of %d", n)
	}
	// A caller that looks only when it is told has to see the end of it.
	waitFor := func(state func() bool, what string) {
		t.Helper()
		timeout := time.After(patience)
		for !state() {
			select {
			case <-r.Announcer.Changes():
			case <-timeout:
				t.Fatalf("Changes did not say that %s; status %+v", what, r.Announcer.Status())
			}
		}
	}
	first := r.Ads[0].Address
	r.Announcer.Set(slices.Clone(r.Ads[:1]))
	waitFor(func() bool { return r.says(first, announce.Announced) }, "the address is announced")
	r.Announcer.Set(nil)
	waitFor(func() bool { return !r.says(first, announce.Announced) }, "the address is withdrawn")
}

func statusIsSorted(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(len(r.Ads))
	sorted := slices.IsSortedFunc(r.Announcer.Status(), func(a, b announce.Status) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.To, b.To))
	})
	if !sorted {
		t.Errorf("not sorted: %+v", r.Announcer.Status())
	}
}

func leavesNothing(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(2)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Announcer.Leave(ctx); err != nil {
		t.Fatalf("leave: %v", err)
	}
	r.until("nothing is announced", func() bool { return len(r.Told()) == 0 })
	for _, ad := range r.Ads[:2] {
		if r.says(ad.Address, announce.Announced) {
			t.Errorf("has left, and says it announces: %+v", r.Announcer.Status())
		}
	}
	r.Announcer.Set(slices.Clone(r.Ads))
	r.stays("nothing is announced", func() bool { return len(r.Told()) == 0 })
	if err := r.Announcer.Leave(ctx); err != nil {
		t.Errorf("leave a second time: %v", err)
	}
}

func leavesFromNothing(t *testing.T, s Subject) {
	r := run(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Announcer.Leave(ctx); err != nil {
		t.Errorf("leave: %v", err)
	}
}

func leaveIsBounded(t *testing.T, s Subject) {
	r := run(t, s)
	r.set(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	returned := make(chan error, 1)
	go func() { returned <- r.Announcer.Leave(ctx) }()
	select {
	case <-returned: // with or without an error: it may have been that quick
	case <-time.After(patience):
		t.Fatal("Leave goes on, though its time is over")
	}
}

func anyGoroutine(t *testing.T, s Subject) {
	r := run(t, s)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 20 {
				r.Announcer.Set(slices.Clone(r.Ads[:(n+i)%2+1]))
				r.Announcer.Status()
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	r.set(2)
}
