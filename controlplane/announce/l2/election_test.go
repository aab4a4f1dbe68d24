package l2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/election"
	"weir/dataplane/packet"
)

// These tests are of several nodes and who of them has an address.

func vips(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}))
	}
	return all
}

// with starts clustered nodes at the same time, which all can serve the addresses.
func (w *world) with(addrs []netip.Addr, names ...string) []*weir {
	var all []*weir
	for _, name := range names {
		n := w.make(name, true)
		n.Set(advertise(addrs...))
		n.run()
		all = append(all, n)
	}
	return all
}

func in(t *testing.T, do func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		do(t, w)
		w.check()
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestAddressesAreSpreadOverNodes(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(100)
		w.with(all, "lb1", "lb2", "lb3")
		wait(5 * time.Second)
		share := make(map[string]int)
		for _, a := range all {
			share[w.owner(a)]++
			if w.count(a) != 1 {
				t.Errorf("%v was taken %d times", a, w.count(a))
			}
		}
		for _, name := range []string{"lb1", "lb2", "lb3"} {
			if share[name] < 20 || share[name] > 47 {
				t.Errorf("%s has %d of 100: %v", name, share[name], share)
			}
		}
	})
}

func TestNodeThatJoinsTakesOverNothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(20)
		w.with(all, "lb1")
		wait(5 * time.Second)
		second := w.with(all, "lb2")[0]
		wait(5 * time.Second)
		for _, a := range all {
			if w.owner(a) != "lb1" || w.count(a) != 1 {
				t.Errorf("%v: %s, taken %d times", a, w.owner(a), w.count(a))
			}
		}
		if got := second.states(all[0]); got != "standby lb1" {
			t.Errorf("status of the second: %q", got)
		}
		if slices.ContainsFunc(w.diary, func(s string) bool { return strings.Contains(s, "lb2") }) {
			t.Error("the second has spoken")
		}
	})
}

func TestOwnerIsKilled(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(30)
		nodes := w.with(all, "lb1", "lb2", "lb3")
		wait(5 * time.Second)
		before := make(map[netip.Addr]string)
		for _, a := range all {
			before[a] = w.owner(a)
		}
		nodes[0].stop()
		// Dead after a second, 3 probes 100 ms apart, and told 20 ms later.
		wait(deathTime + 3*probeQuick + 2*settle)
		for _, a := range all {
			switch now := w.owner(a); {
			case before[a] != "lb1" && now != before[a]:
				t.Errorf("%v moved from %s to %s", a, before[a], now)
			case now == "lb1":
				t.Errorf("%v is where nobody is", a)
			}
		}
		wait(time.Minute)
		for _, a := range all {
			if got := w.count(a); got > 2 {
				t.Errorf("%v was taken %d times", a, got)
			}
		}
		// It comes back and gets nothing.
		w.with(all, "lb1")
		wait(10 * time.Second)
		for _, a := range all {
			if w.owner(a) == "lb1" {
				t.Errorf("%v went back", a)
			}
		}
	})
}

// The node is back before anybody has noticed: what it had is free for all.
func TestNodeRestarts(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(10)
		nodes := w.with(all, "lb1", "lb2")
		wait(5 * time.Second)
		nodes[0].stop()
		wait(200 * time.Millisecond)
		w.with(all, "lb1")
		wait(2 * time.Second)
		for _, a := range all {
			w.owner(a)
			if w.count(a) > 2 {
				t.Errorf("%v was taken %d times", a, w.count(a))
			}
		}
	})
}

func TestWhatMakesANodeGiveUp(t *testing.T) {
	a := vip4()
	for _, tc := range []struct {
		name       string
		less, more func(*weir)
		state      string
	}{
		{"link down", func(n *weir) { n.SetInterfaces(eth1(n.name, false)) }, func(n *weir) { n.SetInterfaces(eth1(n.name, true)) }, "down"},
		{"workers stuck", func(n *weir) {
			i := eth1(n.name, true)
			i[0].Workers = false
			n.SetInterfaces(i)
		}, func(n *weir) { n.SetInterfaces(eth1(n.name, true)) }, "down"},
		{"nothing to serve it with", func(n *weir) { n.Set(nil) }, func(n *weir) { n.Set(advertise(a)) }, ""},
		{"its pool belongs elsewhere", func(n *weir) {
			n.Configure(Config{Pools: map[string]PoolConfig{"public": {Interfaces: []string{"eth2"}}}})
		}, func(n *weir) { n.Configure(Config{}) }, "down"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				nodes := w.with([]netip.Addr{a}, "lb1", "lb2")
				wait(5 * time.Second)
				first, second := nodes[0], nodes[1]
				if w.owner(a) != "lb1" {
					first, second = second, first
				}
				tc.less(first)
				wait(applyTime + time.Millisecond)
				if slices.Contains(w.holders(a), first.name) {
					t.Error("it still answers")
				}
				wait(4*probeQuick + 2*settle) // one more probe than otherwise, if the first was answered
				if w.owner(a) != second.name {
					t.Errorf("the owner is %s", w.owner(a))
				}
				if got := first.states(a); strings.Split(got, " ")[0] != tc.state {
					t.Errorf("its status is %q", got)
				}
				tc.more(first)
				wait(10 * time.Second)
				if w.owner(a) != second.name || w.count(a) != 2 {
					t.Errorf("owner %s, taken %d times", w.owner(a), w.count(a))
				}
				if got := first.states(a); got != "standby "+second.name {
					t.Errorf("its status is %q", got)
				}
			})
		})
	}
}

// two is a node's interfaces with one more, and either up or down.
func two(name string, first, second bool) []Interface {
	all := eth1(name, first)
	mac := macOf(name)
	mac[4] = 2
	return append(all, Interface{Name: "eth2", MAC: mac, Up: second, Workers: true})
}

// A node with all its links is better than one without, and that one better than
// none.
func TestHalfALoaf(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		a := vip4()
		var nodes []*weir
		for _, name := range []string{"lb1", "lb2"} {
			n := w.make(name, true)
			n.SetInterfaces(two(name, true, true))
			n.Set(advertise(a))
			n.Announcer.link = deaf{n} // this world has one link; nobody is asked here
			n.run()
			nodes = append(nodes, n)
		}
		wait(5 * time.Second)
		first, second := nodes[0], nodes[1]
		if w.holders(a)[0] != "lb1" {
			first, second = second, first
		}
		for _, step := range []struct {
			do   func()
			want *weir
		}{
			{func() { first.SetInterfaces(two(first.name, true, false)) }, second},
			{func() { second.SetInterfaces(two(second.name, false, true)) }, second},
			{func() { first.SetInterfaces(two(first.name, true, true)) }, first},
			{func() { second.SetInterfaces(two(second.name, true, true)) }, first},
			{func() { first.SetInterfaces(two(first.name, false, false)) }, second},
		} {
			step.do()
			wait(5 * time.Second)
			if got := w.holders(a); len(got) != 1 || got[0] != step.want.name {
				t.Fatalf("held by %v, want %s\n%s", got, step.want.name, w.story())
			}
		}
		if got := first.states(a); got != "down "+second.name+", down "+second.name {
			t.Errorf("status %q", got)
		}
	})
}

// deaf is a link that takes everything and tells nobody.
type deaf struct{ n *weir }

func (d deaf) send(string, []message) error { return nil }

// While the owner answers on the link, nobody takes an address from it, whatever
// the cluster says of it. When it is really gone, somebody does.
func TestPartitionOfTheClusterOnly(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(10)
		nodes := w.with(all, "lb1", "lb2")
		wait(5 * time.Second)
		w.part(true, false, pair("lb1", "lb2"))
		wait(10 * time.Second)
		// The owner is asked once a second, and most of these times come upon that.
		for range 5000 {
			wait(10 * time.Millisecond)
			for _, a := range all {
				owner := w.owner(a)
				other := nodes[0]
				if owner == "lb1" {
					other = nodes[1]
				}
				if got := other.states(a); got != "standby "+owner {
					t.Fatalf("%v: status %q", a, got)
				}
			}
		}
		for _, a := range all {
			if w.count(a) != 1 {
				t.Errorf("%v was taken %d times", a, w.count(a))
			}
		}
		nodes[0].stop()
		wait(waitInterval*5/4 + 4*probeQuick + 2*settle)
		for _, a := range all {
			if w.owner(a) != "lb2" {
				t.Errorf("%v: %s", a, w.owner(a))
			}
		}
	})
}

// A foreign station that answered once, and is gone, leaves nothing in the status of a node
// that waits for another.
func TestConflictEndsInWaiting(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		a := vip4()
		nodes := w.with([]netip.Addr{a}, "lb1", "lb2")
		wait(5 * time.Second)
		owner, other := w.owner(a), nodes[0]
		if owner == "lb1" {
			other = nodes[1]
		}
		w.part(true, false, pair("lb1", "lb2"))
		w.occupy(a, packet.MAC{2, 9})
		wait(conflictMin)
		if got := other.states(a); !strings.HasPrefix(got, "conflict") {
			t.Fatalf("status %q", got)
		}
		w.occupy(a, packet.MAC{})
		wait(2 * conflictMin)
		for range 1000 {
			wait(10 * time.Millisecond)
			if got := other.states(a); got != "standby "+owner {
				t.Fatalf("status %q", got)
			}
		}
	})
}

func TestSplitBrainHeals(t *testing.T) {
	for _, tc := range []struct {
		name         string
		gossip, link bool // what heals
	}{
		{"at once", true, true},
		{"the cluster only", true, false},
		{"the link only", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				all := vips(10)
				w.with(all, "lb1", "lb2", "lb3")
				wait(5 * time.Second)
				torn := [][2]string{pair("lb1", "lb2"), pair("lb1", "lb3")}
				w.part(true, true, torn...)
				wait(10 * time.Second)
				before := make(map[netip.Addr]int)
				for _, a := range all {
					got := w.holders(a)
					if len(got) != 2 || got[0] != "lb1" {
						t.Fatalf("%v is held by %v", a, got)
					}
					before[a] = w.count(a)
				}
				w.part(!tc.gossip, !tc.link, torn...)
				if !tc.gossip {
					wait(Interval) // until one of them announces for no other reason
				}
				wait(10 * time.Second)
				for _, a := range all {
					want := "lb1"
					if other := lastOfOthers(w, a); election.Beats(a, other, want) {
						want = other
					}
					if got := w.holders(a); len(got) != 1 || got[0] != want {
						t.Errorf("%v is held by %v, want %s\n%s", a, got, want, w.story())
					}
					if w.count(a) != before[a] {
						t.Errorf("%v was taken again", a)
					}
				}
				if tc.link {
					for _, a := range all {
						w.owner(a) // and is believed to be it
					}
				}
			})
		})
	}
}

// What a node said before it was away is not what it says now.
func TestNodeHadNothingWhenItCameBack(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(10)
		nodes := w.with(all, "lb1", "lb2")
		wait(5 * time.Second)
		w.part(true, true, pair("lb1", "lb2"))
		wait(5 * time.Second)
		nodes[0].Set(nil)
		wait(5 * time.Second)
		before := make(map[netip.Addr]int)
		for _, a := range all {
			before[a] = w.count(a)
		}
		w.part(false, false, pair("lb1", "lb2"))
		wait(5 * time.Second)
		for _, a := range all {
			if w.owner(a) != "lb2" || w.count(a) != before[a] {
				t.Errorf("%v: %s, taken %d times", a, w.owner(a), w.count(a)-before[a])
			}
		}
	})
}

func (broken) send(string, []message) error { return errNoBuffers }

func TestAllActive(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		a := vip4()
		var nodes []*weir
		for _, name := range []string{"lb1", "lb2", "lb3"} {
			n := w.make(name, true)
			n.Set(advertise(a))
			n.Configure(Config{Pools: map[string]PoolConfig{"public": {AllActive: true}}})
			n.run()
			nodes = append(nodes, n)
		}
		wait(5 * time.Second)
		members := func() string {
			var all []string
			for _, n := range nodes {
				if s := n.Stances()[a]; len(s.Members) > 0 && n.running {
					all = append(all, fmt.Sprintf("%s: %v", n.name, describe(s)))
				}
			}
			return strings.Join(all, "; ")
		}
		owner := w.owner(a)
		want := []string{"lb1 eth1 02:00:00:00:00:01", "lb2 eth1 02:00:00:00:00:02", "lb3 eth1 02:00:00:00:00:03"}
		self := slices.Index([]string{"lb1", "lb2", "lb3"}, owner)
		want[self] = owner + " self"
		if got := members(); got != fmt.Sprintf("%s: %v", owner, want) {
			t.Errorf("members: %s", got)
		}
		// One that is not ready is not given anything, one that is dead neither.
		nodes[(self+1)%3].Set(nil)
		wait(time.Second)
		without := slices.Delete(slices.Clone(want), (self+1)%3, (self+1)%3+1)
		if got := members(); got != fmt.Sprintf("%s: %v", owner, without) {
			t.Errorf("members: %s", got)
		}
		nodes[(self+2)%3].stop()
		wait(deathTime + time.Second)
		if got := members(); got != "" {
			t.Errorf("members: %s", got)
		}
	})
}

func describe(s announce.Stance) []string {
	var all []string
	for _, m := range s.Members {
		if m.Self {
			all = append(all, m.Node+" self")
		} else {
			all = append(all, fmt.Sprintf("%s %s %s", m.Node, m.Interface, m.MAC))
		}
	}
	return all
}
