package nexthop

import (
	"net/netip"
	"slices"
	"testing"
)

// asking is a question about the n-th of many neighbours on eth1.
func asking(n int) question {
	return question{neighKey{2, netip.AddrFrom4([4]byte{10, 2, byte(n >> 8), byte(n)})}, serverMAC, eth1.mac, own}
}

// ticks counts the questions in each of the next slots.
func ticks(w *watch, slots int) (perSlot []int) {
	for range slots {
		var asked []question
		w.tick(func(q question) bool {
			asked = append(asked, q)
			return true
		}, func(neighKey) {})
		for _, q := range asked {
			w.heard(answer{q.neighKey, q.to})
		}
		perSlot = append(perSlot, len(asked))
	}
	return perSlot
}

// Few or many, newly come or left over, neighbours are spread evenly, and each
// is asked once in a round.
func TestWatchSpreads(t *testing.T) {
	w := newWatch()
	spread := func(what string, want int, tolerance int) {
		t.Helper()
		w.sweep()
		perSlot := ticks(w, roundSlots)
		total := 0
		for _, n := range perSlot {
			total += n
		}
		if total != want || slices.Max(perSlot)-slices.Min(perSlot) > tolerance {
			t.Errorf("%s: asked %d in all, want %d, as %v", what, total, want, perSlot)
		}
	}
	spread("none", 0, 0)
	for n := range 5000 {
		w.want(asking(n))
	}
	spread("5000", 5000, 1)
	for n := range 1000 {
		w.want(asking(n))
	}
	spread("1000 of them", 1000, 1)
	for n := 500; n < 2000; n++ {
		w.want(asking(n))
	}
	spread("500 left, 1000 came", 1500, 1)
	spread("all left", 0, 0)
	if len(w.neighbours) != 0 {
		t.Errorf("%d are remembered", len(w.neighbours))
	}
}

func TestWatchHears(t *testing.T) {
	other := asking(1)
	other.to = routerMAC
	for _, tt := range []struct {
		name   string
		event  func(*watch)
		unsent bool
		loud   bool // everybody is asked then
	}{
		{name: "nothing", event: func(*watch) {}, loud: true},
		{name: "the owner", event: func(w *watch) { w.heard(answer{asking(1).neighKey, serverMAC}) }},
		{name: "who does not say", event: func(w *watch) { w.heard(answer{asking(1).neighKey, MAC{}}) }},
		{name: "another MAC", event: func(w *watch) { w.heard(answer{asking(1).neighKey, routerMAC}) }, loud: true},
		{name: "another address", event: func(w *watch) { w.heard(answer{asking(2).neighKey, serverMAC}) }, loud: true},
		{name: "the kernel has a new MAC", event: func(w *watch) { w.want(other) }},
		{name: "the kernel has the same MAC", event: func(w *watch) { w.want(asking(1)) }, loud: true},
		{name: "a second wish", event: func(w *watch) { w.want(asking(1)); w.want(other) }, loud: true},
		{name: "the question was not sent", event: func(*watch) {}, unsent: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatch()
			w.want(asking(1))
			w.sweep()
			var to []MAC
			ask := func(q question) bool { to = append(to, q.to); return !tt.unsent }
			doubt := func(key neighKey) { t.Errorf("doubt of %v", key) }
			for len(to) == 0 {
				w.tick(ask, doubt)
			}
			tt.event(w)
			for range patienceSlots {
				w.tick(ask, doubt)
			}
			want := []MAC{serverMAC}
			if tt.loud {
				want = append(want, MAC{})
			}
			if !slices.Equal(to, want) {
				t.Errorf("asked %v, want %v", to, want)
			}
		})
	}
}
