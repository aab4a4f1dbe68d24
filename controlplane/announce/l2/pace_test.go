package l2

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/cluster"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
)

// These tests are of a thousand addresses at once.

func manyVIPs(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
	}
	return all
}

// claimRate is a rate at which workers tell of claims, with less of a burst than theirs.
func claimRate() limit.Rate { return limit.Rate{PerSecond: 1024, Burst: 128} }

// most returns the largest number of frames of a kind that a node has sent within
// a time.
func (w *world) most(node, kind string, within time.Duration) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	var times []time.Duration
	for _, line := range w.diary {
		word := strings.Fields(line)
		if at, err := time.ParseDuration(word[0]); err == nil && word[1] == node && word[2] == kind {
			times = append(times, at)
		}
	}
	most, first := 0, 0
	for i, at := range times {
		for at-times[first] >= within {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// A station has all addresses, and the workers tell of so many claims and no more:
// none is taken.
func TestStationHasThousandAddresses(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.rate = claimRate()
		all := manyVIPs(1000)
		for _, a := range all {
			w.occupy(a, packetMAC(1))
		}
		n := w.alone(all...)
		wait(time.Minute)
		if len(w.moves) != 0 {
			t.Errorf("%d of %d addresses were taken", len(w.moves), len(all))
		}
		for _, a := range all {
			if got := n.states(a); !strings.HasPrefix(got, "conflict") && got != "probing" {
				t.Fatalf("%v: %q", a, got)
			}
		}
		// One that is asked for before the answer to the last has come counts twice.
		if got := w.most("lb1", "probes", probeWindow); got < probeBatch/2 || got > 2*probeBatch {
			t.Errorf("up to %d probes within %v", got, probeWindow)
		}
	})
}

func TestThousandAddressesFailOver(t *testing.T) {
	for _, tc := range []struct {
		name string
		at   int // when the second node is started: before the first has taken any, or after it has all
		most time.Duration
	}{
		{"one node has half of them", 0, deathTime + 8*probeWindow + probeCount*probeQuick + 2*settle},
		{"one node has all", 1, deathTime + 15*probeWindow + probeCount*probeQuick + 2*settle},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				w.rate = claimRate()
				all := manyVIPs(1000)
				first := w.with(all, "lb1")[0]
				if tc.at > 0 {
					wait(10 * time.Second)
				}
				w.with(all, "lb2")
				wait(10 * time.Second)
				had := 0
				for _, a := range all {
					if w.owner(a) == "lb1" {
						had++
					}
				}
				first.stop()
				wait(tc.most)
				for _, a := range all {
					if w.owner(a) != "lb2" {
						t.Fatalf("%v is at %s", a, w.owner(a))
					}
				}
				t.Logf("lb1 had %d, all are announced by lb2 within %v of its death, %v of that until it is noticed", had, tc.most, deathTime)
				wait(2 * Interval)
				for _, a := range all {
					if w.count(a) > 2 {
						t.Errorf("%v was taken %d times", a, w.count(a))
					}
				}
				if got := w.most("lb2", "announces", announceWindow); got > announceBatch {
					t.Errorf("%d announcements within %v", got, announceWindow)
				}
				if got := w.most("lb2", "probes", probeWindow); got > probeCount*2*probeBatch {
					t.Errorf("%d probes within %v", got, probeWindow)
				}
			})
		})
	}
}

func TestThousandAddressesAreLeftToOthers(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.rate = claimRate()
		all := manyVIPs(1000)
		first := w.with(all, "lb1")[0]
		wait(10 * time.Second)
		w.with(all, "lb2")
		wait(10 * time.Second)
		begin := time.Now()
		if err := first.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		t.Logf("took %v", time.Since(begin))
		for _, a := range all {
			if w.owner(a) != "lb2" {
				t.Fatalf("%v is at %s", a, w.owner(a))
			}
		}
	})
}

// Once they have been announced, addresses part: no second has more than its share
// by far, and none is announced more rarely than every Interval.
func TestRefreshIsSpread(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := manyVIPs(1000)
		w.alone(all...)
		wait(10 * time.Second)
		w.mu.Lock()
		w.diary = nil
		w.mu.Unlock()
		wait(4 * Interval)
		if got := w.most("lb1", "announces", time.Second); got > 100 {
			t.Errorf("%d announcements in one second", got)
		}
		last := make(map[string]time.Duration)
		for _, line := range w.diary {
			word := strings.Fields(line)
			at, _ := time.ParseDuration(word[0])
			if was, is := last[word[3]]; is && (at-was > Interval+announceWindow || at-was < Interval/2) {
				t.Fatalf("%s is announced %v after it was", word[3], at-was)
			}
			last[word[3]] = at
		}
		if len(last) != len(all) {
			t.Errorf("%d addresses were announced", len(last))
		}
	})
}

// A change that has all addresses announced at once, three times, takes its time.
func TestBurstIsSpread(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		all := manyVIPs(1000)
		n := w.alone(all...)
		wait(10 * time.Second)
		before := len(w.diary)
		other := eth1("lb1", true)
		other[0].MAC = packet.MAC{2, 0, 0, 0, 7, 7}
		w.mu.Lock()
		n.mac = other[0].MAC
		w.mu.Unlock()
		n.SetInterfaces(other)
		wait(5 * time.Second)
		w.diary = w.diary[before:]
		if got := w.most("lb1", "announces", announceWindow); got != announceBatch {
			t.Errorf("%d announcements within %v", got, announceWindow)
		}
		for _, a := range all {
			if got := w.announced(a, "lb1"); got != 2*burst {
				t.Errorf("%v was announced %d times", a, got)
			}
		}
	})
}

// Clients of addresses that had an owner wait; those of others do not yet.
func TestOrphansComeFirst(t *testing.T) {
	had, fresh := manyVIPs(200)[100:], manyVIPs(100)
	h := newHand(had...)
	h.says(wireState{Held: had, Ready: had})
	h.pass(time.Second)
	h.in.version++
	h.in.ads = advertise(append(slices.Clone(fresh), had...)...)
	h.other.Alive = false
	var asked []netip.Addr
	for range 400 {
		h.step(h.at, h.in, []cluster.Member{{Name: "lb1", Self: true, Alive: true}, h.other})
		for _, f := range h.take()["eth1"] {
			if f.probe && !slices.Contains(asked, f.addr) {
				asked = append(asked, f.addr)
			}
		}
		h.at = h.at.Add(10 * time.Millisecond)
	}
	if want := append(slices.Clone(had), fresh...); !slices.Equal(asked, want) {
		t.Errorf("asked for %v", asked)
	}
}

func TestPacer(t *testing.T) {
	begin := time.Now()
	for _, tc := range []struct {
		name string
		each int
		want [4]int // in each half of a window
	}{
		{"one by one", 1, [4]int{10, 0, 10, 0}},
		{"three at once", 3, [4]int{3, 0, 3, 0}},
		{"more than there may be", 11, [4]int{1, 0, 1, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pacer{window: time.Second, most: 10}
			var got [4]int
			for half := range got {
				now := begin.Add(time.Duration(half) * time.Second / 2)
				for p.allow(tc.each, now) {
					got[half]++
				}
				if !p.next().After(now) {
					t.Errorf("the next window began in the past")
				}
			}
			if got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}
