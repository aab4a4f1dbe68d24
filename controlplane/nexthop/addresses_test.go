package nexthop

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestTrackerFollowsOwnAddresses(t *testing.T) {
	one, two, six := netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("10.0.0.3/24"), netip.MustParsePrefix("2001:db8::2/64")
	k := newFake()
	k.links[77] = link{index: 77, name: "eth1.42", vlan: 42, parent: 2}
	on := func(prefixes ...netip.Prefix) (own []ownAddress) {
		for _, p := range prefixes {
			own = append(own, ownAddress{p, 2})
		}
		return own
	}
	want := func(prefixes ...netip.Prefix) (all []Address) {
		for _, p := range prefixes {
			all = append(all, Address{p, eth1.name})
		}
		return all
	}
	k.addresses = append(on(six, two, one), ownAddress{two, 77}) // by the VLAN interface on the same NIC
	if got := newTracker(slog.New(slog.DiscardHandler), nil, &fakeWire{}).Addresses(); len(got) != 0 {
		t.Errorf("of one that does not run: %v", got)
	}
	simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		pause()
		before := tr.Addresses()
		if !slices.Equal(before, want(one, two, six)) || !changed(tr) {
			t.Fatalf("at first: got %v", before)
		}
		set := func(prefixes ...netip.Prefix) {
			k.mu.Lock()
			k.addresses = on(prefixes...)
			k.mu.Unlock()
		}
		set(one)
		k.notify <- notification{events: []event{{kind: anyRouteChanged}}}
		pause()
		if got := tr.Addresses(); !slices.Equal(got, want(one)) || !changed(tr) {
			t.Errorf("after a change: got %v", got)
		}
		if !slices.Equal(before, want(one, two, six)) {
			t.Error("what was returned before was modified")
		}
		k.notify <- notification{events: []event{{kind: anyRouteChanged}}}
		pause()
		if changed(tr) {
			t.Error("signalled a change though there is none")
		}
		set(two)
		time.Sleep((refreshBeats + 1) * beat)
		if got := tr.Addresses(); !slices.Equal(got, want(two)) || !changed(tr) {
			t.Errorf("after a change that was not notified: got %v", got)
		}
	})
}
