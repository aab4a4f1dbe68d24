package l2

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/dataplane/packet"
)

// These tests are of one node and stations that are none.

func packetMAC(last byte) packet.MAC { return packet.MAC{2, 0, 0, 0, 9, last} }

// alone starts a node without a cluster.
func (w *world) alone(addrs ...netip.Addr) *weir {
	n := w.make("lb1", false)
	n.Set(advertise(addrs...))
	n.run()
	return n
}

func (w *world) expect(from int, want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.diary[min(from, len(w.diary)):]; !slices.Equal(got, want) {
		w.t.Errorf("frames:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (w *world) frames() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.diary)
}

func TestAsksThenTakesThenAnnounces(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := w.alone(vip4())
		wait(150 * time.Second)
		// After that it is announced again and again.
		w.mu.Lock()
		first, again := w.diary[:6], w.diary[6:]
		w.diary = first
		w.mu.Unlock()
		if len(again) < 2 || len(again) > 4 {
			t.Errorf("announced again: %v", again)
		}
		w.expect(0,
			"0s lb1 probes 203.0.113.10 on eth1",
			"200ms lb1 probes 203.0.113.10 on eth1",
			"400ms lb1 probes 203.0.113.10 on eth1",
			"620ms lb1 announces 203.0.113.10 on eth1",
			"1.62s lb1 announces 203.0.113.10 on eth1",
			"2.62s lb1 announces 203.0.113.10 on eth1",
		)
		s := n.Status()
		if len(s) != 1 || s[0].State != "announced" || s[0].Sent != uint64(3+len(again)) || s[0].Protocol != "arp" || s[0].To != "eth1" ||
			s[0].Owner != "" || s[0].Err != "" || time.Since(s[0].Last) > Interval || !s[0].Since.Equal(w.start.Add(620*time.Millisecond)) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestStatusOnTheWay(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := w.alone(vip6())
		for _, step := range []struct {
			at   time.Duration
			want string
		}{{0, "probing"}, {610 * time.Millisecond, "probing"}, {630 * time.Millisecond, "announced"}} {
			wait(step.at - w.now())
			if got := n.states(vip6()); got != step.want {
				t.Errorf("at %v: %q", w.now(), got)
			}
		}
		if s := n.Status(); s[0].Protocol != "ndp" || s[0].Address.Bits() != 128 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWaitsForOthersToTell(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := w.with([]netip.Addr{vip4()}, "lb1")[0] // the others do not come
		wait(startTime - time.Millisecond)
		w.expect(0)
		wait(time.Second)
		if got := w.owner(vip4()); got != "lb1" || n.logged("no other node tells") != 1 {
			t.Errorf("owner %s", got)
		}
	})
}

func TestAddressIsTakenAlready(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.occupy(vip4(), packetMAC(1))
		n := w.alone(vip4())
		wait(time.Hour)
		if got := w.holders(vip4()); len(got) != 0 {
			t.Fatalf("held by %v", got)
		}
		if got := n.states(vip4()); got != "conflict 02:00:00:00:09:01" || n.Status()[0].Err == "" {
			t.Errorf("status %q %+v", got, n.Status())
		}
		if got := n.logged("another station has the address"); got != 1 {
			t.Errorf("logged %d times", got)
		}
		// 10 s, 20 s, 40 s, and 60 s from then on, all up to a quarter longer.
		if got := w.frames(); got < 48 || got > 62 {
			t.Errorf("asked %d times in an hour", got)
		}
		w.occupy(vip4(), packet.MAC{})
		wait(conflictMax*5/4 + time.Second)
		if w.owner(vip4()) != "lb1" || n.states(vip4()) != "announced" {
			t.Errorf("status %q", n.states(vip4()))
		}
	})
}

func TestSomebodyElseAsksAtTheSameTime(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := w.alone(vip4())
		wait(300 * time.Millisecond)
		w.say(vip4(), packetMAC(1), true)
		wait(time.Second)
		if got := n.states(vip4()); got != "conflict 02:00:00:00:09:01" {
			t.Errorf("status %q", got)
		}
		wait(conflictMin*5/4 + time.Second)
		if got := n.states(vip4()); got != "announced" {
			t.Errorf("status %q", got)
		}
		w.say(vip4(), packetMAC(1), true) // the workers answer that now
		wait(time.Minute)
		if w.owner(vip4()) != "lb1" || w.count(vip4()) != 1 {
			t.Errorf("taken %d times", w.count(vip4()))
		}
	})
}

// A backend that answers ARP for a VIP is not left alone with it: it is taken, kept,
// announced against what the backend says, and reported, once.
func TestBackendClaimsTheAddress(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.occupy(vip4(), packetMAC(1))
		n := w.alone(vip4())
		n.SetBackends(func() map[packet.MAC]netip.Addr {
			return map[packet.MAC]netip.Addr{packetMAC(1): netip.MustParseAddr("10.0.0.11")}
		})
		wait(5 * time.Second)
		if w.owner(vip4()) != "lb1" || n.states(vip4()) != "announced" {
			t.Fatalf("status %q, held by %v", n.states(vip4()), w.holders(vip4()))
		}
		from := w.frames()
		for range 3 {
			w.say(vip4(), packetMAC(1), false)
			wait(100 * time.Millisecond)
		}
		wait(time.Second)
		if got := w.frames() - from; got < 1 || got > 2 {
			t.Errorf("announced %d times against three claims within a second", got)
		}
		if err := n.Status()[0].Err; !strings.Contains(err, "10.0.0.11") || !strings.Contains(err, "arp_ignore") {
			t.Errorf("error is %q", err)
		}
		if got := n.logged("a backend claims a VIP"); got != 1 {
			t.Errorf("logged %d times", got)
		}
		w.occupy(vip4(), packet.MAC{})
		wait(leakMemory + time.Minute)
		if err := n.Status()[0].Err; err != "" {
			t.Errorf("mended, error is still %q", err)
		}
	})
}

// Two that do not know each other: one gets it, and keeps it.
func TestTwoWithoutACluster(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		for _, name := range []string{"lb1", "lb2"} {
			n := w.make(name, false)
			n.Set(advertise(vip4(), vip6()))
			n.run()
		}
		wait(10 * time.Minute)
		for _, a := range []netip.Addr{vip4(), vip6()} {
			w.owner(a)
			if w.count(a) != 1 {
				t.Errorf("%v was taken %d times\n%s", a, w.count(a), w.story())
			}
		}
	})
}

// Two that do not know each other, and each has the address when their links become
// one: one of them keeps it.
func TestTwoWithoutAClusterMeet(t *testing.T) {
	for range 20 {
		in(t, func(t *testing.T, w *world) {
			w.part(true, true, pair("lb1", "lb2"))
			for _, name := range []string{"lb1", "lb2"} {
				n := w.make(name, false)
				n.Set(advertise(vip4(), vip6()))
				n.run()
			}
			wait(time.Minute)
			if got := w.holders(vip4()); len(got) != 2 {
				t.Fatalf("held by %v", got)
			}
			w.part(true, false, pair("lb1", "lb2"))
			wait(Interval + 2*conflictMax)
			for _, a := range []netip.Addr{vip4(), vip6()} {
				w.owner(a)
				if w.count(a) > 3 {
					t.Errorf("%v was taken %d times", a, w.count(a))
				}
			}
		})
	}
}

// A station that was taken for foreign turns out to be a node.
func TestNodeThatWasNotKnown(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.part(true, false, pair("lb1", "lb2"))
		nodes := w.with([]netip.Addr{vip4()}, "lb1")
		wait(5 * time.Second)
		second := w.with([]netip.Addr{vip4()}, "lb2")[0]
		wait(5 * time.Second)
		if got := second.states(vip4()); got != "conflict 02:00:00:00:00:01" {
			t.Errorf("status %q", got)
		}
		w.part(false, false, pair("lb1", "lb2"))
		wait(time.Second)
		if got := second.states(vip4()); got != "standby lb1" || w.owner(vip4()) != "lb1" || w.count(vip4()) != 1 {
			t.Errorf("status %q", got)
		}
		_ = nodes
	})
}

func TestOwnAddresses(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		mine, its := netip.MustParseAddr("10.0.0.240"), netip.MustParseAddr("10.0.0.241")
		all := w.with([]netip.Addr{vip4()}, "lb1", "lb2")
		all[0].SetOwn([]netip.Addr{mine})
		all[1].SetOwn([]netip.Addr{its})
		wait(5 * time.Second)
		if w.owner(mine) != "lb1" || w.owner(its) != "lb2" {
			t.Errorf("%v at %s, %v at %s", mine, w.owner(mine), its, w.owner(its))
		}
		w.owner(vip4())
		// The same on both is a mistake of whoever has configured it.
		all[1].SetOwn([]netip.Addr{its, mine})
		wait(5 * time.Second)
		if got := all[1].states(mine); got != "conflict 02:00:00:00:00:01" || w.owner(mine) != "lb1" {
			t.Errorf("status %q", got)
		}
		if err := all[0].Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if got := w.holders(mine); len(got) != 0 {
			t.Errorf("held by %v", got)
		}
	})
}

func TestAnnouncesAgain(t *testing.T) {
	other := eth1("lb1", true)
	other[0].MAC = packet.MAC{2, 0, 0, 0, 7, 7}
	for _, tc := range []struct {
		name string
		do   func(*weir)
		want int // rounds
	}{
		{"nothing has changed", func(n *weir) { n.SetInterfaces(eth1("lb1", true)); n.Set(advertise(vip4())) }, 0},
		{"another MAC", func(n *weir) { n.mac = other[0].MAC; n.SetInterfaces(other) }, burst},
		{"another address", func(n *weir) { n.Set(advertise(vip4(), vip6())) }, 0},
		{"nothing to announce", func(n *weir) { n.Set(nil) }, 0},
		{"a link more", func(n *weir) { n.SetInterfaces(two("lb1", true, true)) }, burst},
		{"its link is there again", func(n *weir) {
			n.SetInterfaces(two("lb1", true, true))
			wait(10 * time.Second)
			n.SetInterfaces(two("lb1", true, false))
			wait(10 * time.Second)
			n.SetInterfaces(two("lb1", true, true))
		}, 2 * burst},
		{"its pool belongs on one link more", func(n *weir) {
			n.Configure(Config{Pools: map[string]PoolConfig{"public": {Interfaces: []string{"eth1"}}}})
			n.SetInterfaces(two("lb1", true, true))
			wait(10 * time.Second)
			n.Configure(Config{Pools: map[string]PoolConfig{"public": {Interfaces: []string{"eth2", "eth1"}}}})
		}, burst},
		{"a pool that belongs on two links", func(n *weir) {
			n.Configure(Config{Pools: map[string]PoolConfig{"public": {Interfaces: []string{"eth2", "eth1"}}}})
			n.SetInterfaces(two("lb1", true, true))
		}, burst},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				n := w.make("lb1", false)
				n.Announcer.link = quiet{wire{n}}
				n.Set(advertise(vip4()))
				n.run()
				wait(10 * time.Second) // the burst is over, the next round is far off
				before := w.announced(vip4(), "lb1")
				tc.do(n)
				wait(10 * time.Second)
				if got := w.announced(vip4(), "lb1") - before; got != tc.want {
					t.Errorf("%d announcements, want %d\n%s", got, tc.want, w.story())
				}
			})
		})
	}
}

// quiet is a wire that only eth1 goes over.
type quiet struct{ wire }

func (q quiet) send(name string, frames []message) error {
	if name == "eth1" {
		return q.wire.send(name, frames)
	}
	return nil
}

func TestLinksOfAnAddress(t *testing.T) {
	prefix := netip.MustParsePrefix
	links := []Interface{
		{Name: "eth2", MAC: packetMAC(2), Up: true, Workers: true, Prefixes: []netip.Prefix{prefix("10.1.0.2/24"), prefix("fe80::2/64")}},
		{Name: "eth1", MAC: packetMAC(1), Up: true, Workers: true, Prefixes: []netip.Prefix{prefix("203.0.113.2/24")}},
		{Name: "eth3", MAC: packetMAC(3), Up: false, Workers: true, Prefixes: []netip.Prefix{prefix("203.0.113.3/24")}},
	}
	for _, tc := range []struct {
		name  string
		addr  string
		pool  []string
		want  string
		ready uint8
	}{
		{"by prefix", "10.1.0.9", nil, "eth2", 2},
		{"by prefix, two, one down", "203.0.113.9", nil, "eth1 eth3", 1},
		{"everywhere", "192.0.2.1", nil, "eth1 eth2 eth3", 1},
		{"everywhere, IPv6", "2001:db8::1", nil, "eth1 eth2 eth3", 1},
		{"by pool", "10.1.0.9", []string{"eth1"}, "eth1", 2},
		{"by pool, twice", "10.1.0.9", []string{"eth2", "eth1", "eth2"}, "eth1 eth2", 2},
		{"by pool, down", "10.1.0.9", []string{"eth3"}, "eth3", 0},
		{"by pool, not there", "10.1.0.9", []string{"eth9"}, "eth9", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine("lb1", nil, false)
			m.configure(time.Now(), inputs{
				version: 1, interfaces: links, ads: advertise(netip.MustParseAddr(tc.addr)),
				config: Config{Pools: map[string]PoolConfig{"public": {Interfaces: tc.pool}}},
			})
			v := m.vips[netip.MustParseAddr(tc.addr)]
			if got := strings.Join(v.links, " "); got != tc.want || uint8(v.ready) != tc.ready {
				t.Errorf("%s, readiness %d", got, v.ready)
			}
		})
	}
}
