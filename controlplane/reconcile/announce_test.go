package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
)

// pooled is a service in each of the modes, with VIPs of three kinds of pool and of
// none.
const pooled = `
pools:
  - {name: both, addresses: [203.0.113.0/26], announce: [l2, bgp]}
  - {name: routed, addresses: [203.0.113.64/26, "2001:db8:1::/64"], announce: [bgp]}
  - {name: hidden, addresses: [203.0.113.128/26], announce: []}
bgp: {asn: 65010, peers: [{address: 10.0.0.1, asn: 65000}]}
services:
  - name: web
    addresses: [203.0.113.10, 203.0.113.70, 203.0.113.130, 203.0.113.200]
    ports: [tcp/80]
    table_size: 10007
    health: {tcp: {}}
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`

func TestAnnouncesAsPoolsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, p := running(t, pooled)
		p.change(p.health, func(w *world) { w.sick("web", "10.0.0.11", health.Up) })
		time.Sleep(time.Second)
		for _, tc := range []struct {
			got  []announce.Advertisement
			want string
		}{
			{p.l2.Ads(), "[{203.0.113.10 both} {203.0.113.200 }]"},
			{p.bgp.Ads(), "[{203.0.113.10 both} {203.0.113.70 routed}]"},
		} {
			if fmt.Sprint(tc.got) != tc.want {
				t.Errorf("announced %v, want %s", tc.got, tc.want)
			}
		}
		if len(p.links) != 2 || p.links[0].MAC != p.world.interfaces[0].MAC ||
			!slices.Equal(p.links[0].Prefixes, []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}) || len(p.links[1].Prefixes) > 0 {
			t.Errorf("links are %+v", p.links)
		}
		if want := map[packet.MAC]netip.Addr{
			{2, 0, 0, 0, 2, 11}: netip.MustParseAddr("10.0.0.11"), {2, 0, 0, 0, 2, 12}: netip.MustParseAddr("10.0.0.12"),
		}; !maps.Equal(p.stations(), want) {
			t.Errorf("backends on the links are %v", p.stations())
		}
		if fmt.Sprint(p.addresses) != "[10.0.0.2]" {
			t.Errorf("the others know this node by %v", p.addresses)
		}
		for text, want := range map[string]bool{"10.0.0.2": true, "10.0.0.3": true, "10.0.0.4": false} {
			addr := packet.Addr16(netip.MustParseAddr(text))
			if got := p.last().IsStrayProbe(&addr, 254); got != want {
				t.Errorf("a forwarded packet from %s counts as a check: %v", text, got)
			}
		}
	})
}

// ready compiles the world and says of each VIP whether it can be served.
func (w *world) ready(t *testing.T, c *compiler) map[string]string {
	t.Helper()
	_, view := w.compile(t, c)
	all := make(map[string]string)
	for _, a := range view.Addresses {
		all[a.Address.String()] = "ready"
		if !a.Ready {
			all[a.Address.String()] = a.Reason
		}
	}
	return all
}

func TestReadiness(t *testing.T) {
	const sharing = `
services:
  - {name: web, addresses: [203.0.113.10], ports: [tcp/80], health: {tcp: {}}, backends: [{address: 10.0.0.11}, {address: 10.0.0.12}], min_backends: 2}
  - {name: mail, addresses: [203.0.113.10], ports: [tcp/25], health: {tcp: {}}, backends: [{address: 10.0.0.13}]}
`
	single := strings.Replace(web, "table_size", "health: {tcp: {}}\n    table_size", 1)
	up := func(w *world, addrs ...string) {
		for _, a := range addrs {
			w.sick("web", a, health.Up)
		}
	}
	both := []string{"10.0.0.11", "10.0.0.12"}
	few := func(healthy, least int) string {
		return fmt.Sprintf("%d of its backends are healthy, and min_backends is %d", healthy, least)
	}
	for _, tc := range []struct {
		name, config string
		change       func(*world)
		want         string
	}{
		{"without checks", web, func(*world) {}, "ready"},
		{"nobody has been checked yet", single, func(*world) {}, few(0, 1)},
		{"one is up", single, func(w *world) { up(w, "10.0.0.12") }, "ready"},
		{"all are down", single, func(w *world) { w.sick("web", "10.0.0.11", health.Down); w.sick("web", "10.0.0.12", health.Down) }, few(0, 1)},
		{"one of two is not enough", strings.Replace(single, "table_size", "min_backends: 2\n    table_size", 1), func(w *world) { up(w, "10.0.0.12") }, few(1, 2)},
		{"two of two are", strings.Replace(single, "table_size", "min_backends: 2\n    table_size", 1), func(w *world) { up(w, both...) }, "ready"},
		{"always", strings.Replace(single, "table_size", "min_backends: 0\n    table_size", 1),
			func(w *world) { w.sick("web", "10.0.0.11", health.Down); w.sick("web", "10.0.0.12", health.Down) }, "ready"},
		{"up, but there is no way to it", single, func(w *world) {
			up(w, both...)
			for _, a := range both {
				w.hop(a, func(h *nexthop.Hop) { h.State = nexthop.Unreachable })
			}
		}, few(0, 1)},
		{"healthy ones that drain serve the flows they have", strings.ReplaceAll(single, "}, {", ", state: draining}, {"), func(w *world) { up(w, "10.0.0.11") }, "ready"},
		{"one service of a VIP is enough", sharing, func(w *world) { w.sick("mail", "10.0.0.13", health.Up) }, "ready"},
		{"of none, the one that lacks least is named", sharing, func(*world) {}, few(0, 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(parse(t, tc.config))
			tc.change(w)
			if got := w.ready(t, newCompiler())["203.0.113.10"]; got != tc.want {
				t.Errorf("it is %q, want %q", got, tc.want)
			}
		})
	}
}

// No routes lead to where packets would not be forwarded; who answers on which link
// is not decided here.
func TestUnroutable(t *testing.T) {
	const hop = "bgp: {asn: 65010, next_hop: 10.0.0.2, peers: [{address: 10.0.0.1, asn: 65000}]}\n"
	for _, tc := range []struct {
		name, config string
		change       func(*world)
		want         string
	}{
		{"all is well", web + hop, func(*world) {}, ""},
		{"a worker is stuck", web, func(w *world) { w.interfaces[1].Stuck = true }, "a worker of eth2 is stuck"},
		{"an interface cannot be worked", web, func(w *world) { w.interfaces[1].Err = errors.New("no memory") }, "weir cannot work eth2: no memory"},
		{"one is gone, and so is its link", web + hop, func(w *world) {
			w.interfaces[1].Err, w.interfaces[1].Workers, w.interfaces[1].Up = queue.ErrGone, 0, false
		}, ""},
		{"one is down", web, func(w *world) { w.interfaces[0].Up = false }, ""},
		{"the one with the next hop is down", web + hop, func(w *world) { w.interfaces[0].Up = false }, "eth1, which has the next hop 10.0.0.2, is down"},
		{"all are down", web, func(w *world) { w.interfaces[0].Up, w.interfaces[1].Up = false, false }, "weir works no interface that is up"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(parse(t, tc.config))
			tc.change(w)
			_, view := w.compile(t, newCompiler())
			a := &view.Addresses[0]
			if got := a.Withheld(config.AnnounceBGP); got != tc.want {
				t.Errorf("routes are withheld because %q, want %q", got, tc.want)
			}
			if got := a.Withheld(config.AnnounceL2); got != "" {
				t.Errorf("on links it is withheld because %q", got)
			}
		})
	}
}

// What is gone has taken its addresses along.
func TestNextHopIsGone(t *testing.T) {
	const hop = "bgp: {asn: 65010, next_hop: 10.1.0.2, peers: [{address: 10.1.0.1, asn: 65000}]}\n"
	w, c := newWorld(parse(t, web+hop)), newCompiler()
	w.own = append(w.own, nexthop.Address{Prefix: netip.MustParsePrefix("10.1.0.2/24"), Interface: "eth2"})
	if _, view := w.compile(t, c); view.Addresses[0].Withheld(config.AnnounceBGP) != "" {
		t.Fatal("routes are withheld though all is well")
	}
	w.interfaces[1].Err, w.interfaces[1].Workers, w.interfaces[1].Up = queue.ErrGone, 0, false
	w.own = slices.DeleteFunc(w.own, func(a nexthop.Address) bool { return a.Interface == "eth2" })
	_, view := w.compile(t, c)
	if got, want := view.Addresses[0].Withheld(config.AnnounceBGP), "eth2, which has the next hop 10.1.0.2, is down"; got != want {
		t.Errorf("routes are withheld because %q, want %q", got, want)
	}
}

// A VIP that is served stays so while its new backends have not been checked.
func TestReloadDoesNotWithdraw(t *testing.T) {
	single := strings.Replace(web, "table_size", "health: {tcp: {}}\n    table_size", 1)
	w, c := newWorld(parse(t, single)), newCompiler()
	w.sick("web", "10.0.0.11", health.Up)
	if got := w.ready(t, c); got["203.0.113.10"] != "ready" {
		t.Fatal(got)
	}
	after := newWorld(parse(t, strings.NewReplacer("10.0.0.11", "10.0.0.21", "10.0.0.12", "10.0.0.22").Replace(single)))
	after.space, after.snatSlots = w.space, w.snatSlots
	if got := after.ready(t, c); got["203.0.113.10"] != "ready" {
		t.Error("with new backends:", got)
	}
	after.sick("web", "10.0.0.21", health.Down)
	after.sick("web", "10.0.0.22", health.Down)
	if got := after.ready(t, c); got["203.0.113.10"] == "ready" {
		t.Error("with new backends that are down:", got)
	}
	delete(after.health, "web 10.0.0.21")
	if got := after.ready(t, c); got["203.0.113.10"] == "ready" {
		t.Error("withdrawn, it came back without any backend that is up:", got)
	}
}

// A backend that lacks one of several VIPs serves the others, and a VIP that no
// backend has takes none of the others along.
func TestEachVIPIsJudgedByItself(t *testing.T) {
	text := strings.Replace(web, "addresses: [203.0.113.10]", "addresses: [203.0.113.10, 203.0.113.11, 203.0.113.12]\n    limits: {new_flows: 100}\n    health: {tcp: {}}", 1)
	w := newWorld(parse(t, text))
	result := func(backend, vip string, state health.State) {
		w.health["web "+backend+" "+vip] = health.Result{State: state, LastError: "no answer within 1s"}
	}
	for _, b := range []string{"10.0.0.11", "10.0.0.12"} {
		result(b, "203.0.113.10", health.Up)
		result(b, "203.0.113.11", health.Up)
		result(b, "203.0.113.12", health.Down)
	}
	result("10.0.0.12", "203.0.113.11", health.Down)
	c := newCompiler()
	snap, view := w.compile(t, c)
	ids := make(map[uint32]bool)
	for vip, want := range map[string][]string{
		"203.0.113.10": {"10.0.0.11", "10.0.0.12"}, "203.0.113.11": {"10.0.0.11"}, "203.0.113.12": nil,
	} {
		addr := packet.Addr16(netip.MustParseAddr(vip))
		svc := &snap.Services[snap.VIP(&addr).Service(6, 80)]
		var got []string
		for _, slot := range svc.Members {
			got = append(got, packet.NetipAddr(snap.Backend(slot).Addr).String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is served by %v, want %v", vip, got, want)
		}
		ids[svc.ID] = true
	}
	if len(ids) != 1 {
		t.Errorf("the parts of one service have IDs %v, and so limits of their own", ids)
	}
	if got := w.ready(t, c); got["203.0.113.10"] != "ready" || got["203.0.113.11"] != "ready" || got["203.0.113.12"] == "ready" {
		t.Errorf("ready: %v", got)
	}
	b := &view.Services[0].Backends[1]
	if b.Status != StatusUp || !strings.Contains(b.Reason, "203.0.113.1") || b.Health.State != health.Down || len(b.Slots) != 3 {
		t.Errorf("a backend without some of the VIPs is %s, health %v, slots %v: %q", b.Status, b.Health.State, b.Slots, b.Reason)
	}
	before := b.Slots

	// One VIP more changes nothing for the others' flows.
	w.config = parse(t, strings.Replace(text, "203.0.113.12]", "203.0.113.12, 203.0.113.13]", 1))
	_, view = w.compile(t, c)
	if got := view.Services[0].Backends[1].Slots; !slices.Equal(got[:3], before) {
		t.Errorf("slots are %v, were %v", got, before)
	}
}

// A check that cannot be made on this box does not keep a VIP from being announced.
func TestUnableIsNotUnhealthy(t *testing.T) {
	w := newWorld(parse(t, strings.Replace(web, "table_size", "health: {tcp: {}}\n    table_size", 1)))
	w.health["web 10.0.0.11 203.0.113.10"] = health.Result{Unable: true, LastError: "no TUN device"}
	if got := w.ready(t, newCompiler())["203.0.113.10"]; got != "ready" {
		t.Error(got)
	}
}

// Each family of a service's VIPs is served by backends of its own.
func TestReadinessByFamily(t *testing.T) {
	w := newWorld(parse(t, `
services:
  - name: web
    addresses: [203.0.113.10, "2001:db8:1::10"]
    ports: [tcp/80]
    health: {tcp: {}}
    backends: [{address: 10.0.0.11}, {address: "2001:db8::12"}]
`))
	w.sick("web", "10.0.0.11", health.Up)
	w.sick("web", "2001:db8::12", health.Down)
	got := w.ready(t, newCompiler())
	if got["203.0.113.10"] != "ready" || got["2001:db8:1::10"] == "ready" {
		t.Error(got)
	}
}

func TestSilentUnlessAStanceSaysOtherwise(t *testing.T) {
	w := newWorld(parse(t, natted))
	silent := func() (all []string) {
		snap, _ := w.compile(t, newCompiler())
		for _, a := range []string{"203.0.113.10", "2001:db8:1::10"} {
			addr := packet.Addr16(netip.MustParseAddr(a))
			if snap.VIP(&addr).Policy.Silent {
				all = append(all, a)
			}
		}
		for _, s := range slices.Concat(snap.SNAT4, snap.SNAT6) {
			if s.Silent {
				all = append(all, packet.NetipAddr(s.Addr).String())
			}
		}
		return all
	}
	if got := silent(); got != nil {
		t.Errorf("where nobody decides, %v are silent", got)
	}
	w.stances = map[netip.Addr]announce.Stance{}
	if got := silent(); len(got) != 5 {
		t.Errorf("before anything is decided, only %v are silent", got)
	}
	w.stances[netip.MustParseAddr("203.0.113.10")] = announce.Stance{Answers: true}
	w.stances[netip.MustParseAddr("10.0.0.241")] = announce.Stance{Answers: true}
	if got := silent(); !slices.Equal(got, []string{"2001:db8:1::10", "10.0.0.240", "2001:db8::f0"}) {
		t.Errorf("silent are %v", got)
	}
}

func TestSpreadsOverMembers(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	addr := packet.Addr16(vip)
	self := announce.Member{Node: "lb1", Self: true}
	other := announce.Member{Node: "lb2", Interface: "eth2", MAC: packet.MAC{2, 0, 0, 0, 9, 2}}
	for _, tc := range []struct {
		name   string
		stance announce.Stance
		want   int // members
	}{
		{"two nodes", announce.Stance{Answers: true, Members: []announce.Member{self, other}}, 2},
		{"not ours", announce.Stance{Members: []announce.Member{self, other}}, 0},
		{"alone", announce.Stance{Answers: true, Members: []announce.Member{self}}, 0},
		{"by no interface of ours", announce.Stance{Answers: true, Members: []announce.Member{self, {Node: "lb3", Interface: "eth9", MAC: packet.MAC{2}}}}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(parse(t, web))
			w.stances = map[netip.Addr]announce.Stance{vip: tc.stance}
			snap, _ := w.compile(t, newCompiler())
			spread := snap.VIP(&addr).Spread
			if spread == nil {
				if tc.want > 0 {
					t.Error("it is not spread")
				}
				return
			}
			count := make(map[uint16]int)
			for _, m := range spread.Table {
				count[m]++
			}
			if len(spread.Members) != tc.want || len(count) != tc.want || max(count[0], count[1])-min(count[0], count[1]) > 1 {
				t.Fatalf("%d members, slots %v", len(spread.Members), count)
			}
			if to := spread.Members[1].Rewrite; to.Station() != other.MAC || to.Egress != 1 || !spread.Members[0].Self {
				t.Errorf("members are %+v", spread.Members)
			}
		})
	}
}

func TestWaysToVIPs(t *testing.T) {
	const both = `
services:
  - {name: dsr, addresses: [203.0.113.10, 203.0.113.11, "2001:db8:1::10"], ports: [tcp/80], health: {http: {}}, backends: [{address: 10.0.0.11}, {address: "2001:db8::12"}]}
  - {name: tun, addresses: [203.0.113.20, "2001:db8:1::20"], ports: [udp/53], mode: ipip, health: {dns: {name: example.com}}, backends: [{address: 10.0.0.13}]}
  - {name: own, addresses: [203.0.113.30], ports: [tcp/25], health: {icmp: {}, check_address: backend}, backends: [{address: 10.0.0.14}]}
  - {name: nat, addresses: [203.0.113.40], ports: [tcp/443], mode: nat, health: {tcp: {}}, backends: [{address: 10.0.0.15, port: 8443}]}
nat: {addresses: [10.0.0.240]}
`
	cfg := parse(t, both)
	w := newWorld(cfg)
	w.hop("10.0.0.14", func(h *nexthop.Hop) {
		h.State, h.Reason, h.Silent = nexthop.Unreachable, "it does not answer ARP", true
	})
	ways := w.output(t, newCompiler()).ways
	targets := make(map[string]string)
	for _, c := range checks(cfg) {
		targets[c.ID] = fmt.Sprint(c.Targets, c.Way != "", c.Probe)
	}
	if want := map[string]string{
		"dsr 10.0.0.11 203.0.113.10":      "[203.0.113.10:80] true http",
		"dsr 10.0.0.11 203.0.113.11":      "[203.0.113.11:80] true http",
		"dsr 2001:db8::12 2001:db8:1::10": "[[2001:db8:1::10]:80] true http",
		"tun 10.0.0.13 203.0.113.20":      "[203.0.113.20:53] true dns",
		"tun 10.0.0.13 2001:db8:1::20":    "[[2001:db8:1::20]:53] true dns",
		"own 10.0.0.14":                   "[10.0.0.14:0] false icmp",
		"nat 10.0.0.15":                   "[10.0.0.15:8443] false tcp",
	}; !maps.Equal(targets, want) {
		t.Errorf("checks go to\n%v, want\n%v", targets, want)
	}
	source4, source6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")
	for key, want := range map[string]via.Way{
		"dsr 10.0.0.11":    {Interface: "eth1", Has4: true, Source4: source4},
		"dsr 2001:db8::12": {Interface: "eth1", Has6: true, Source6: source6},
		"tun 10.0.0.13":    {Interface: "eth1", Has4: true, Has6: true, Source4: source4},
		"own 10.0.0.14":    {Interface: "eth1", Reason: "it does not answer ARP", Unreachable: true},
	} {
		got := ways[key]
		if got.Has4 && got.IPv4.Station().IsZero() || got.Has6 && got.IPv6.Station().IsZero() {
			t.Errorf("the way to %s leads to no station", key)
		}
		got.IPv4, got.IPv6 = want.IPv4, want.IPv6
		if got != want {
			t.Errorf("the way to %s is %+v, want %+v", key, got, want)
		}
	}
	if _, there := ways["nat 10.0.0.15"]; there || len(ways) != 4 {
		t.Errorf("ways are to %v", slices.Sorted(maps.Keys(ways)))
	}
}

var _ Links = (*l2.Announcer)(nil)
var _ Ways = (*via.Network)(nil)
