package l2

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// lastOfOthers returns who of lb2 and lb3 has ever had the address, last.
func lastOfOthers(w *world, a netip.Addr) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range slices.Backward(w.holdings) {
		if strings.HasSuffix(line, " "+a.String()) && strings.Contains(line, "+") && !strings.Contains(line, "lb1") {
			return strings.Split(strings.Split(line, "+")[1], " ")[0]
		}
	}
	return ""
}

func TestNodeLeaves(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(10)
		nodes := w.with(all, "lb1", "lb2", "lb3")
		wait(5 * time.Second)
		begin := time.Now()
		if err := nodes[0].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		// All have another owner, which is known to all, before the node ends.
		for _, a := range all {
			if w.owner(a) == "lb1" {
				t.Errorf("%v is still here", a)
			}
			if got := nodes[0].states(a); got != "standby "+w.owner(a) {
				t.Errorf("status %q", got)
			}
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		nodes[0].Set(advertise(vips(11)...))
		wait(10 * time.Second)
		if got := w.holders(vips(11)[10]); len(got) != 0 {
			t.Errorf("taken by %v, which has left", got)
		}
	})
}

func TestLastNodeLeaves(t *testing.T) {
	for _, tc := range []struct {
		name  string
		other func(*world)
		took  time.Duration // by Leave
	}{
		{"alone", func(*world) {}, gossipTime},
		{"others are not ready", func(w *world) { w.with(nil, "lb2") }, 2*settle + gossipTime},
		{"another one finds the address taken", func(w *world) {
			w.occupy(vip4(), packetMAC(9))
			w.with([]netip.Addr{vip4()}, "lb2")
		}, 2*settle + 3*gossipTime + 2*wireTime},
		{"another one does not get on", func(w *world) {
			n := w.make("lb2", true)
			n.Announcer.link = broken{}
			n.Set(advertise(vip4()))
			n.run()
		}, handTime + gossipTime},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				n := w.with([]netip.Addr{vip4()}, "lb1")[0]
				wait(5 * time.Second)
				tc.other(w)
				wait(5 * time.Second)
				begin := time.Now()
				if err := n.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took < tc.took || took > tc.took+2*stepTime {
					t.Errorf("took %v, not %v", took, tc.took)
				}
				wait(applyTime)
				if got := w.holders(vip4()); len(got) != 0 {
					t.Errorf("held by %v", got)
				}
			})
		})
	}
}

// broken is a link on which nothing can be sent.
type broken struct{}
