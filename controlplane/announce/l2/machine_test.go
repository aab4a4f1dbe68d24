package l2

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weir/controlplane/announce/election"
	"weir/controlplane/cluster"
	"weir/dataplane/packet"
)

// These tests lead the machine by hand, where the news come late or out of order.

// hand is a machine that is lb1, with lb2 as a member.
type hand struct {
	*machine
	at    time.Time
	in    inputs
	other cluster.Member
}

func newHand(ads ...netip.Addr) *hand {
	h := &hand{
		machine: newMachine("lb1", slog.New(slog.DiscardHandler), true), at: time.Now(),
		in:    inputs{version: 1, ads: advertise(ads...), interfaces: eth1("lb1", true)},
		other: cluster.Member{Name: "lb2", Alive: true, Current: true},
	}
	h.says(wireState{})
	h.pass(0)
	return h
}

// says has lb2 publish something.
func (h *hand) says(s wireState) {
	s.Version = stateVersion
	s.Links = []wireLink{{Name: "eth1", MAC: macOf("lb2").String(), Prefixes: []netip.Prefix{netip.PrefixFrom(addrOf("lb2"), 24)}}}
	h.other.State = map[string][]byte{Topic: s.encode()}
}

// pass lets time pass in steps of 10 ms, and returns what is sent meanwhile.
func (h *hand) pass(d time.Duration, claims ...Claim) string {
	var all []string
	begin := h.at
	for {
		h.in.claims, claims = claims, nil
		h.step(h.at, h.in, []cluster.Member{{Name: "lb1", Self: true, Alive: true}, h.other})
		for name, frames := range h.take() {
			for _, f := range frames {
				what := "announce"
				if f.probe {
					what = "probe"
				}
				all = append(all, what+"@"+h.at.Sub(begin).String())
			}
			h.sent(name, frames, nil, h.at)
		}
		if h.at.Sub(begin) >= d {
			return strings.Join(all, " ")
		}
		h.at = h.at.Add(10 * time.Millisecond)
	}
}

func (h *hand) phase() phase { return h.vips[vip4()].phase }

func from(name string) Claim { return Claim{Address: vip4(), MAC: macOf(name), Interface: "eth1"} }

// A live node answers and has not said yet that it has the address: it is asked
// until it is silent or has said so.
func TestNewsAreLate(t *testing.T) {
	h := newHand(vip4())
	for range 20 {
		h.pass(100*time.Millisecond, from("lb2"))
		if h.phase() != probing {
			t.Fatalf("phase %d", h.phase())
		}
	}
	h.pass(time.Second)
	if h.phase() != held {
		t.Errorf("phase %d after it was silent", h.phase())
	}

	h = newHand(vip4())
	h.pass(100*time.Millisecond, from("lb2"))
	h.says(wireState{Held: []netip.Addr{vip4()}, Ready: []netip.Addr{vip4()}})
	h.pass(time.Second)
	if h.phase() != idle || h.vips[vip4()].owner != "lb2" {
		t.Errorf("phase %d after it has said so", h.phase())
	}
}

// A live node that does not hold the address speaks for it: neighbours have heard
// it, so this node speaks after it, and not more than once a second.
func TestStaleAnnouncement(t *testing.T) {
	h := newHand(vip4())
	h.pass(10 * time.Second)
	if got := h.pass(20*time.Millisecond, from("lb2")); got != "announce@0s" {
		t.Errorf("sent %q", got)
	}
	if got := h.pass(2*time.Second, from("lb2")); got != "announce@980ms" {
		t.Errorf("sent %q", got)
	}
	if h.phase() != held {
		t.Errorf("phase %d", h.phase())
	}
}

func TestClaimsThatMeanNothing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		claim Claim
	}{
		{"one's own", from("lb1")},
		{"on a link where the address does not belong", Claim{Address: vip4(), MAC: packetMAC(1), Interface: "eth2"}},
		{"for another address", Claim{Address: vip6(), MAC: packetMAC(1), Interface: "eth1"}},
		{"a node asks for what it will find held", Claim{Address: vip4(), MAC: macOf("lb2"), Interface: "eth1", Probe: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHand(vip4())
			h.pass(100*time.Millisecond, tc.claim)
			h.pass(500*time.Millisecond + settle)
			if h.phase() != held {
				t.Errorf("phase %d: it has disturbed the probing", h.phase())
			}
			h.pass(10 * time.Second)
			if got := h.pass(time.Second, tc.claim, tc.claim); got != "" || h.phase() != held {
				t.Errorf("sent %q, phase %d", got, h.phase())
			}
		})
	}
}

// Two nodes that cannot speak to each other ask at the same time: who has the
// better rank goes on.
func TestPartitionedNodesAskAtTheSameTime(t *testing.T) {
	h := newHand(vip4())
	h.other.Alive = false
	h.pass(100*time.Millisecond, Claim{Address: vip4(), MAC: macOf("lb2"), Interface: "eth1", Probe: true})
	want := probing
	if election.Beats(vip4(), "lb2", "lb1") {
		want = waiting
	}
	if h.phase() != want {
		t.Errorf("phase %d, want %d", h.phase(), want)
	}
	h = newHand(vip6())
	h.other.Alive = false
	h.pass(100*time.Millisecond, Claim{Address: vip6(), MAC: macOf("lb2"), Interface: "eth1", Probe: true})
	want = probing
	if election.Beats(vip6(), "lb2", "lb1") {
		want = waiting
	}
	if got := h.vips[vip6()].phase; got != want {
		t.Errorf("phase %d, want %d", got, want)
	}
}

func TestUnreadableState(t *testing.T) {
	h := newHand(vip4())
	h.says(wireState{Held: []netip.Addr{vip4()}, Ready: []netip.Addr{vip4()}})
	h.pass(time.Second)
	if h.phase() != idle {
		t.Fatalf("phase %d", h.phase())
	}
	h.other.State = map[string][]byte{Topic: []byte("{")}
	h.pass(time.Second)
	if h.phase() != held { // a node that says nothing sensible has nothing
		t.Errorf("phase %d", h.phase())
	}
}

func TestReach(t *testing.T) {
	iface := func(name string, last byte, up bool, prefixes ...string) Interface {
		i := Interface{Name: name, MAC: packet.MAC{2, 0, 0, 0, 0, last}, Up: up, Workers: true}
		for _, p := range prefixes {
			i.Prefixes = append(i.Prefixes, netip.MustParsePrefix(p))
		}
		return i
	}
	gossip := netip.MustParseAddr("10.0.0.2")
	for _, tc := range []struct {
		name       string
		mine, its  []Interface
		links      []string
		link, want string
	}{
		{"the way the cluster goes",
			[]Interface{iface("a", 1, true, "10.1.0.1/24"), iface("b", 2, true, "10.0.0.1/24")},
			[]Interface{iface("a", 3, true, "10.1.0.2/24"), iface("x", 4, true, "10.0.0.2/24")},
			[]string{"a", "b"}, "b", "02:00:00:00:00:04"},
		{"but only where the address belongs",
			[]Interface{iface("a", 1, true, "10.1.0.1/24"), iface("b", 2, true, "10.0.0.1/24")},
			[]Interface{iface("x", 3, true, "10.1.0.2/24"), iface("y", 4, true, "10.0.0.2/24")},
			[]string{"a"}, "a", "02:00:00:00:00:03"},
		{"and only by a link that is up",
			[]Interface{iface("a", 1, true, "10.1.0.1/24"), iface("b", 2, false, "10.0.0.1/24")},
			[]Interface{iface("x", 3, true, "10.1.0.2/24"), iface("y", 4, true, "10.0.0.2/24")},
			[]string{"a", "b"}, "a", "02:00:00:00:00:03"},
		{"by name, if nothing else says so",
			[]Interface{iface("a", 1, true), iface("b", 2, true, "fe80::1/64")},
			[]Interface{iface("c", 3, true, "fe80::3/64"), iface("b", 4, true)},
			[]string{"a", "b"}, "b", "02:00:00:00:00:04"},
		{"not at all",
			[]Interface{iface("a", 1, true, "10.1.0.1/24", "fe80::1/64")},
			[]Interface{iface("b", 3, true, "10.2.0.1/24", "fe80::3/64")},
			[]string{"a"}, "", "00:00:00:00:00:00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine("lb1", slog.New(slog.DiscardHandler), true)
			m.interfaces, m.alive["lb2"] = tc.mine, gossip
			link, mac, ok := m.reach(&vip{links: tc.links}, "lb2", &peer{links: tc.its})
			if link != tc.link || mac.String() != tc.want || ok != (tc.link != "") {
				t.Errorf("%q %s %v", link, mac, ok)
			}
		})
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(wireState{
		Version: stateVersion, Ready: []netip.Addr{vip4()}, Partly: []netip.Addr{vip6()}, Held: []netip.Addr{vip4()},
		Links: []wireLink{{Name: "eth1", MAC: "02:00:00:00:00:01", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}},
	}.encode())
	f.Add([]byte(`{"v":1,"ready":[""],"links":[{"mac":"0000.0000.0000.0001","prefixes":[""]}]}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := newHand(vip4(), vip6())
		h.other.State = map[string][]byte{Topic: b}
		h.pass(20*time.Millisecond, from("lb2"))
		h.outputs(h.at)
		h.publication()
		p, err := decodeState(b)
		if err == nil && (p.ready == nil || p.held == nil) {
			t.Error("no maps")
		}
	})
}
