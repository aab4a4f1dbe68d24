package wire

import (
	"strings"
	"testing"

	"weir/perf/loops"
	"weir/perf/testbed"
	"weir/perf/world"
)

// An account that comes out even is right, and one frame too many or too few in
// any place is not.
func TestAccount(t *testing.T) {
	counted := func(received, dropped, sent, givenUp, handedOver uint64) loops.Counters {
		return loops.Counters{Received: received, ReceiveDropped: dropped, Sent: sent, GivenUp: givenUp, HandedOver: handedOver}
	}
	weir := Account{Offered: 1000, Refused: 100, Delivered: 690, Counters: Counters{Counters: counted(700, 200, 699, 0, 0), Dropped: 1}}
	loop := Account{Offered: 1000, Refused: 100, Delivered: 690, Counters: Counters{Counters: counted(700, 200, 695, 5, 0)}}
	peer := Account{Offered: 1000, Refused: 100, Delivered: 690}
	hole := Account{Offered: 1000, Delivered: 690, OfferedBytes: 60_000, Bytes: 690 * 60}
	tunnel := Account{Offered: 10, Delivered: 10, OfferedBytes: 600, Bytes: 800, Counters: Counters{Counters: counted(10, 0, 10, 0, 0)}}
	for _, test := range []struct {
		name     string
		subject  string
		scenario Scenario
		account  Account
		change   func(*Account)
		wrong    string // empty for nothing
	}{
		{"weir", "weir-dsr", Flood, weir, func(*Account) {}, ""},
		{"loop", "floor-afxdp", Flood, loop, func(*Account) {}, ""},
		{"peer", "nft-dnat", Flood, peer, func(*Account) {}, ""},
		{"peer in the hole", "nft-dnat", Core, hole, func(*Account) {}, ""},
		{"tunnel in the hole", "weir-ipip", Core, tunnel, func(*Account) {}, ""},
		{"send alone", "floor-afxdp", Send, Account{Delivered: 9, Counters: Counters{Counters: counted(0, 0, 9, 0, 0)}}, func(*Account) {}, ""},
		{"in the wire's ring", "weir-dsr", Flood, weir, func(a *Account) { a.Offered += inTheVeth }, ""},
		{"given up twice", "floor-afxdp", Flood, loop, func(a *Account) { a.GivenUp += 100 }, ""},
		{"handed over", "weir-keep-2", Flood, weir, func(a *Account) { a.HandedOver = 3 }, ""},

		{"bad", "nft-dnat", Flood, peer, func(a *Account) { a.Bad = 1 }, "not as they should be"},
		{"others", "nft-dnat", Flood, peer, func(a *Account) { a.Others = 1 }, "none of the generator's"},
		{"no tunnel", "weir-ipip", Flood, weir, func(a *Account) { a.Alien = 690 }, "are not IPv4 in IPv4"},
		{"no tunnel over IPv6", "weir-ipip-6", Flood, weir, func(a *Account) { a.Alien = 690 }, "are not IPv6 in IPv6"},
		{"no tunnel in the hole", "weir-ipip", Core, tunnel, func(a *Account) { a.Bytes = 600 }, "had 600 bytes, want 800"},
		{"a tunnel in the hole", "nft-dnat", Core, hole, func(a *Account) { a.Bytes += 690 * 20 }, "bytes, want"},
		{"out of nothing", "nft-dnat", Flood, peer, func(a *Account) { a.Delivered = 901 }, "and 901 arrived"},
		{"more refused than offered", "nft-dnat", Flood, peer, func(a *Account) { a.Refused = 1001 }, "1001 of them refused"},
		{"lost before it", "weir-dsr", Flood, weir, func(a *Account) { a.Offered += inTheVeth + 1 }, "received or dropped of"},
		{"received twice", "weir-dsr", Flood, weir, func(a *Account) { a.ReceiveDropped++ }, "received or dropped of"},
		{"arrived, not sent", "weir-dsr", Flood, weir, func(a *Account) { a.Delivered = 700 }, "700 frames arrived of 699 sent"},
		{"lost in weir", "weir-dsr", Flood, weir, func(a *Account) { a.Dropped = 0 }, "0 dropped of 700 received"},
		{"lost in a loop", "floor-afxdp", Flood, loop, func(a *Account) { a.GivenUp = 4 }, "4 given up of 700 received"},
		{"handed over to nobody", "weir-dsr", Flood, weir, func(a *Account) { a.HandedOver = 1 }, "handed over"},
		{"not handed over", "weir-keep-2", Flood, weir, func(*Account) {}, "0 frames were handed over between 2 workers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, err := subjects([]string{test.subject})
			if err != nil {
				t.Fatal(err)
			}
			a := test.account
			test.change(&a)
			c := Cell{Scenario: test.scenario, Cores: all[0].cores(test.scenario, []int{0, 1}), subject: &all[0]}
			switch err := a.check(&c); {
			case test.wrong == "" && err != nil:
				t.Errorf("%v", err)
			case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
				t.Errorf("%v, want %q", err, test.wrong)
			}
		})
	}
}

// Frames are to go back from who only sends back, and to a backend from all
// others: under the VIP, or under the backend's own address where that is the
// subject's work.
func TestDestination(t *testing.T) {
	for _, s := range Subjects() {
		d, vip := s.destination(), world.VIP(s.IPv6).Addr()
		back := strings.HasPrefix(s.Name, "floor-") || strings.HasPrefix(s.Name, "asavie") || strings.HasPrefix(s.Name, "xdp-tx") || s.Name == "testpmd"
		rewrites := strings.Contains(s.Name, "nat") || strings.Contains(s.Name, "keep")
		if d.To.Contains(vip) == rewrites {
			t.Errorf("%s: the VIP is in %s", s.Name, d.To)
		}
		for n := range world.Backends / 2 {
			addr, mac := world.Backend(n, s.IPv6)
			if rewrites && !d.To.Contains(addr) {
				t.Errorf("%s: backend %s is not in %s", s.Name, addr, d.To)
			}
			if !back && (d.MACBits != 46 || d.MAC[4] != mac[4] || d.MAC[5]&^3 != mac[5]&^3) {
				t.Errorf("%s: backend %s is not in %x/%d", s.Name, mac, d.MAC, d.MACBits)
			}
		}
		if back && (d.MAC != testbed.NearMAC() || d.MACBits != 48) {
			t.Errorf("%s sends to %x/%d", s.Name, d.MAC, d.MACBits)
		}
	}
}
