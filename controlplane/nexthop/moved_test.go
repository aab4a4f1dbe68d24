package nexthop

import (
	"net/netip"
	"slices"
	"testing"
	"weir/controlplane/changelog"
)

// Whoever asks for what has moved hears of every hop, and of nothing else.
func TestTrackerMoved(t *testing.T) {
	k := newFake()
	simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		other := netip.MustParseAddr("10.0.0.8")
		tr.SetTargets([]netip.Addr{backend, other})
		pause()
		_, now, all := tr.Moved(changelog.Never)
		if !all {
			t.Error("who has heard of nothing is not told of all")
		}
		for _, step := range []struct {
			what string
			do   func()
			want []netip.Addr
		}{
			{"an answer", func() { k.learn(known(2, backend, serverMAC, fresh)) }, []netip.Addr{backend}},
			{"no news", func() { k.learn(known(2, backend, serverMAC, stale)) }, nil},
			{"two", func() {
				k.learn(known(2, backend, routerMAC, stale))
				k.learn(known(2, other, routerMAC, stale))
			}, []netip.Addr{other, backend}},
		} {
			step.do()
			pause()
			var got []netip.Addr
			got, now, all = tr.Moved(now)
			slices.SortFunc(got, netip.Addr.Compare)
			if all || !slices.Equal(got, step.want) {
				t.Errorf("after %s: %v, all %t; want %v", step.what, got, all, step.want)
			}
		}
	})
}
