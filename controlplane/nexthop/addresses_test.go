package nexthop

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestTrackerFollowsOwnAddresses(t *testing.T) {
	one, two, six := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("2001:db8::2")
	k := newFake()
	k.addresses = []netip.Addr{six, two, one, two}
	simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		if got := tr.Addresses(); len(got) != 0 {
			t.Errorf("before the first look: %v", got)
		}
		pause()
		before := tr.Addresses()
		if !slices.Equal(before, []netip.Addr{one, two, six}) || !changed(tr) {
			t.Fatalf("at first: got %v", before)
		}
		set := func(addrs ...netip.Addr) {
			k.mu.Lock()
			k.addresses = addrs
			k.mu.Unlock()
		}
		set(one)
		k.notify <- notification{events: []event{{kind: anyRouteChanged}}}
		pause()
		if got := tr.Addresses(); !slices.Equal(got, []netip.Addr{one}) || !changed(tr) {
			t.Errorf("after a change: got %v", got)
		}
		if !slices.Equal(before, []netip.Addr{one, two, six}) {
			t.Error("what was returned before was modified")
		}
		k.notify <- notification{events: []event{{kind: anyRouteChanged}}}
		pause()
		if changed(tr) {
			t.Error("signalled a change though there is none")
		}
		set(two)
		time.Sleep((refreshBeats + 1) * beat)
		if got := tr.Addresses(); !slices.Equal(got, []netip.Addr{two}) || !changed(tr) {
			t.Errorf("after a change that was not notified: got %v", got)
		}
	})
}
