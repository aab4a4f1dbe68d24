package l2

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/controlplane/announce/election"
	"weir/dataplane/packet"
)

// These tests are of claims of an address that a node has.

// A station that insists gets the address if it answers for it as well.
func TestAddressIsDefendedOnce(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers byte          // the station that does; 0 for none
		after   time.Duration // between two claims
		keeps   bool
	}{
		{"they come a long time apart", 2, defendInterval, true},
		{"they insist", 2, defendInterval - time.Millisecond, false},
		{"the first one is there, the second is forged", 1, time.Second, false},
		{"both are forged", 0, time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				n := w.alone(vip4())
				wait(5 * time.Second)
				if tc.answers > 0 {
					w.occupy(vip4(), packetMAC(tc.answers))
				}
				from := w.frames()
				w.say(vip4(), packetMAC(1), false)
				wait(time.Millisecond)
				w.expect(from, "5s lb1 announces 203.0.113.10 on eth1")
				wait(tc.after - time.Millisecond)
				w.say(vip4(), packetMAC(2), false)
				if wait(applyTime + wireTime); len(w.holders(vip4())) != 1 {
					t.Error("given up unseen")
				}
				wait(disputeProbes * disputeInterval * 5 / 4)
				if got := len(w.holders(vip4())) == 1; got != tc.keeps {
					t.Errorf("held by %v", w.holders(vip4()))
				}
				mac := packetMAC(tc.answers).String()
				if got := n.states(vip4()); (got == "announced") != tc.keeps || (got == "conflict "+mac) == tc.keeps {
					t.Errorf("status %q", got)
				}
				w.occupy(vip4(), packet.MAC{})
				wait(time.Minute)
				w.owner(vip4()) // they have gone
			})
		})
	}
}

// However often somebody claims an address and does not answer for it, it is kept,
// said again after each claim, and reported, once.
func TestClaimsAreForged(t *testing.T) {
	for _, every := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 9 * time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				n := w.alone(vip4())
				wait(5 * time.Second)
				for range int(5 * time.Minute / every) {
					w.say(vip4(), packetMAC(1), false)
					wait(every)
				}
				wait(2 * repeatInterval)
				if got := n.states(vip4()); got != "announced" || w.owner(vip4()) != "lb1" || w.count(vip4()) != 1 {
					t.Errorf("status %q, taken %d times", got, w.count(vip4()))
				}
				if got := n.Status()[0].Err; !strings.Contains(got, "forged or stale claims by "+packetMAC(1).String()) {
					t.Errorf("error %q", got)
				}
				if n.logged("forged or stale") != 1 || n.logged("defended") != 1 {
					t.Errorf("log:\n%s", n.log)
				}
				if got := w.announced(vip4(), "lb1"); got > 3+15+int(5*time.Minute/repeatInterval) {
					t.Errorf("announced %d times", got)
				}
				wait(forgedMemory + Interval)
				if got := n.Status()[0].Err; got != "" {
					t.Errorf("it is over, error is still %q", got)
				}
			})
		})
	}
}

// A station is believed that answers two of three questions.
func TestAnswersThatCount(t *testing.T) {
	const a, b = 1, 2
	begin := time.Now()
	type claim struct {
		at  time.Duration
		mac byte
	}
	for _, tc := range []struct {
		name   string
		claims []claim // questions are at 0, 300 and 600 ms
		want   bool
	}{
		{"none", nil, false},
		{"one", []claim{{5, a}}, false},
		{"one, often", []claim{{5, a}, {6, a}, {7, a}}, false},
		{"the first two", []claim{{5, a}, {305, a}}, true},
		{"the last two", []claim{{499, a}, {800, a}}, true},
		{"too late", []claim{{201, a}, {501, a}, {801, a}}, false},
		{"by different stations", []claim{{5, a}, {305, b}}, false},
		{"by one of two stations", []claim{{5, a}, {6, b}, {306, b}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &dispute{answers: make(map[packet.MAC]answers)}
			got := false
			for ms := range time.Duration(1000) {
				now := begin.Add(ms * time.Millisecond)
				if ms%300 == 0 && d.probes < disputeProbes {
					d.probes, d.at = d.probes+1, now
				}
				for _, c := range tc.claims {
					if c.at == ms {
						got = d.heard(packetMAC(c.mac), now) || got
					}
				}
			}
			if got != tc.want {
				t.Errorf("believed: %v", got)
			}
		})
	}
}

// better returns an address for which lb2 beats lb1.
func better(t *testing.T) netip.Addr {
	t.Helper()
	for _, a := range vips(50) {
		if election.Beats(a, "lb2", "lb1") {
			return a
		}
	}
	t.Fatal("none of 50")
	return netip.Addr{}
}

// Frames with the MAC address of a node that is dead take nothing away, even if it
// would have the better rank.
func TestDeadNodeSpeaks(t *testing.T) {
	a := better(t)
	in(t, func(t *testing.T, w *world) {
		nodes := w.with([]netip.Addr{a}, "lb1", "lb2")
		wait(5 * time.Second)
		nodes[1].stop()
		wait(5 * time.Second)
		n, took := nodes[0], w.count(a)
		for range 100 {
			w.say(a, macOf("lb2"), false)
			wait(wireTime)
			if got := w.holders(a); len(got) != 1 || got[0] != "lb1" {
				t.Fatalf("held by %v", got)
			}
			wait(700 * time.Millisecond)
		}
		wait(2 * repeatInterval)
		if w.owner(a) != "lb1" || w.count(a) != took || n.logged("forged or stale") != 1 {
			t.Errorf("taken %d times, log:\n%s", w.count(a)-took, n.log)
		}
	})
}

// A MAC address is a dead node's for an hour, and somebody else's then.
func TestMACOfADeadNodeIsForgotten(t *testing.T) {
	h := newHand(vip4())
	h.pass(time.Second)
	if got := h.nodeOf(macOf("lb2")); got != "lb2" {
		t.Fatalf("it is %q's", got)
	}
	h.other.Alive, h.other.Current = false, false
	h.at = h.at.Add(stationMemory - time.Minute)
	h.pass(0)
	if got := h.nodeOf(macOf("lb2")); got != "lb2" {
		t.Errorf("it is %q's within the hour", got)
	}
	h.at = h.at.Add(2 * time.Minute)
	h.pass(0)
	if got := h.nodeOf(macOf("lb2")); got != "" {
		t.Errorf("it is %q's after an hour", got)
	}
	h.other.Alive, h.other.Current = true, true
	h.pass(0)
	if got := h.nodeOf(macOf("lb2")); got != "lb2" {
		t.Errorf("it is %q's when the node is back", got)
	}
}
