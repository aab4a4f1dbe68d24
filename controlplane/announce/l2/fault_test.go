package l2

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// These tests are of links on which frames cannot be sent.

func TestSendingFails(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.fail("eth1", errNoBuffers)
		n := w.alone(vip4())
		wait(10 * time.Second)
		if got := w.holders(vip4()); len(got) != 0 {
			t.Errorf("taken by %v without having asked", got)
		}
		if s := n.Status()[0]; s.State != "down" || s.Err != "no buffer space" || s.Sent != 0 || !s.Last.IsZero() {
			t.Errorf("%+v", s)
		}
		if got := n.logged("no buffer space"); got != 1 {
			t.Errorf("logged %d times", got)
		}
		w.fail("eth1", nil)
		wait(retryInterval + (probeCount+1)*probeSlow + settle)
		if w.owner(vip4()) != "lb1" {
			t.Error("not taken")
		}
		// Alone, it keeps what it has, for the workers answer all the same, and tells
		// when it can.
		w.fail("eth1", errNoBuffers)
		wait(time.Minute)
		if s := n.Status()[0]; s.State != "announced" || s.Err != "no buffer space" || s.Sent == 0 {
			t.Errorf("%+v", s)
		}
		if got := w.holders(vip4()); len(got) != 1 {
			t.Errorf("held by %v", got)
		}
		before := w.announced(vip4(), "lb1")
		w.fail("eth1", nil)
		wait(retryInterval + burst*burstInterval)
		if got := w.announced(vip4(), "lb1") - before; got != burst || n.Status()[0].Err != "" {
			t.Errorf("announced %d times, %+v", got, n.Status()[0])
		}
	})
}

// stuck is a wire whose node cannot send on it while that is set.
type stuck struct {
	wire
	is    atomic.Bool
	tries atomic.Int32 // in vain
}

func (s *stuck) send(name string, frames []message) error {
	if s.is.Load() {
		s.tries.Add(1)
		return errNoBuffers
	}
	return s.wire.send(name, frames)
}

// Addresses go to a node that can speak, and come back to nobody who cannot.
func TestNodeThatCannotSpeak(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := vips(20)
		var links []*stuck
		var nodes []*weir
		for _, name := range []string{"lb1", "lb2"} {
			n := w.make(name, true)
			l := &stuck{wire: wire{n}}
			n.Announcer.link = l
			n.Set(advertise(all...))
			n.run()
			links, nodes = append(links, l), append(nodes, n)
		}
		wait(10 * time.Second)
		at := func() (where map[string]int) {
			where = make(map[string]int)
			for _, a := range all {
				where[w.owner(a)]++
			}
			return where
		}
		if got := at(); got["lb1"] == 0 || got["lb2"] == 0 {
			t.Fatal(got)
		}
		before := make(map[netip.Addr]int)
		for _, a := range all {
			before[a] = w.count(a)
		}
		links[0].is.Store(true)
		wait(10 * time.Second)
		// Nobody has noticed as long as there was nothing to say.
		wait(Interval)
		if got := at(); got["lb2"] != len(all) {
			t.Errorf("they are at %v", got)
		}
		for _, s := range nodes[0].Status() {
			if s.State != "standby" || s.Owner != "lb2" || s.Err != "no buffer space" {
				t.Fatalf("%+v", s)
			}
		}
		for _, a := range all {
			if got := w.count(a) - before[a]; got > 1 {
				t.Errorf("%v was taken %d times", a, got)
			}
		}
		tries := links[0].tries.Load()
		wait(10 * retryInterval)
		if got := links[0].tries.Load() - tries; got < 9 || got > 11 {
			t.Errorf("tried %d times in 10 s", got)
		}
		// It can again, and takes nothing that works.
		links[0].is.Store(false)
		wait(10 * time.Second)
		if got := at(); got["lb2"] != len(all) {
			t.Errorf("they are at %v", got)
		}
		if nodes[0].Status()[0].Err != "" || nodes[0].logged("again") != 1 {
			t.Errorf("%+v", nodes[0].Status()[0])
		}
		links[1].is.Store(true)
		wait(10*time.Second + Interval)
		if got := at(); got["lb1"] != len(all) {
			t.Errorf("they are at %v", got)
		}
	})
}

// A node with two links of which one cannot be sent on asks on the other, once it
// is clear that this is all it can do.
func TestOneOfTwoLinksIsMute(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		n := w.make("lb1", false)
		n.SetInterfaces(two("lb1", true, true))
		n.Set(advertise(vip4()))
		n.Announcer.link = half{wire{n}}
		n.run()
		wait((faultRounds - 1) * retryInterval)
		if got := w.holders(vip4()); len(got) != 0 {
			t.Errorf("taken by %v before it was asked on both", got)
		}
		wait(retryInterval + probeCount*probeSlow)
		if got := n.states(vip4()); !slices.Contains(w.holders(vip4()), "lb1") || got != "announced, down" {
			t.Errorf("status %q", got)
		}
	})
}

// half is a wire that only eth1 goes over, and eth2 fails.
type half struct{ wire }

func (h half) send(name string, frames []message) error {
	if name == "eth2" {
		return errNoBuffers
	}
	return h.wire.send(name, frames)
}

// Another MAC address, or a link that was down, is another link.
func TestFaultOfAnotherLink(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func([]Interface)
		want bool // it is forgotten
	}{
		{"nothing has changed", func([]Interface) {}, false},
		{"another MAC", func(i []Interface) { i[0].MAC = packetMAC(7) }, true},
		{"down", func(i []Interface) { i[0].Up = false }, true},
		{"no workers", func(i []Interface) { i[0].Workers = false }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHand(vip4())
			h.pass(time.Second)
			for range faultRounds {
				h.sent("eth1", nil, errNoBuffers, h.at)
			}
			h.in.interfaces = eth1("lb1", true)
			tc.do(h.in.interfaces)
			h.in.version++
			h.step(h.at, h.in, nil)
			if got := h.faults["eth1"] == nil; got != tc.want {
				t.Errorf("forgotten: %v", got)
			}
		})
	}
}
