package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var addr = netip.MustParseAddr

func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// ranges reads prefixes, FROM-TO and addresses.
func ranges(texts ...string) []Range {
	var out []Range
	for _, text := range texts {
		if from, to, ok := strings.Cut(text, "-"); ok {
			out = append(out, Range{addr(from), addr(to)})
		} else if p, err := netip.ParsePrefix(text); err == nil {
			last := p.Masked().Addr().AsSlice()
			for i := p.Bits(); i < len(last)*8; i++ {
				last[i/8] |= 0x80 >> (i % 8)
			}
			to, _ := netip.AddrFromSlice(last)
			out = append(out, Range{p.Masked().Addr(), to})
		} else {
			out = append(out, Range{addr(text), addr(text)})
		}
	}
	return out
}

func public(texts ...string) Pool {
	return Pool{Name: "public", AutoAssign: true, Ranges: ranges(texts...)}
}

func tcp(ports ...uint16) []Port {
	var out []Port
	for _, p := range ports {
		out = append(out, Port{6, p, p})
	}
	return out
}

func four(name string) Request {
	return Request{Service: name, Families: []Family{IPv4}, Ports: tcp(80)}
}

// has makes an allocation from public, some minutes before noon.
func has(service, address string, age int) Allocation {
	return Allocation{service, "public", addr(address), noon().Add(-time.Duration(age) * time.Minute)}
}

// texts is who has what, without when.
func texts(r Result) []string {
	out := []string{}
	for _, service := range slices.Sorted(maps.Keys(r.Addresses)) {
		text := service
		for _, a := range r.Addresses[service] {
			text += " " + a.String()
		}
		out = append(out, text)
	}
	return out
}

// What these say is in the field, and must stay so.
func TestPreferredAddresses(t *testing.T) {
	pools := []Pool{public("203.0.113.0/28", "203.0.113.64-203.0.113.80", "2001:db8:1::/64")}
	both := func(name, share string) Request {
		return Request{Service: name, Share: share, Families: []Family{IPv6, IPv4}, Ports: tcp(80)}
	}
	got, err := Allocate(pools, []Request{both("web", ""), both("api", ""), both("x", "web"), both("mail", "")}, nil, noon())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"api 203.0.113.76 2001:db8:1:0:a4c8:ef25:7df7:e658",
		"mail 203.0.113.5 2001:db8:1:0:4752:edb1:911c:e8be",
		"web 203.0.113.8 2001:db8:1:0:fa7:5004:fd37:63f8",
		"x 203.0.113.77 2001:db8:1:0:f92d:a9d:2794:defd", // wants api's IPv4 address
	}
	if !slices.Equal(texts(got), want) {
		t.Errorf("got %q", texts(got))
	}
}

func TestAllocate(t *testing.T) {
	gold := map[string]string{"tier": "gold"}
	for _, tc := range []struct {
		name     string
		pools    []Pool
		requests []Request
		existing []Allocation
		want     []string // who has what
		err      []string
		moved    []string
	}{
		{
			name:     "a named pool of one address",
			pools:    []Pool{{Name: "a", Ranges: ranges("203.0.113.9")}},
			requests: []Request{{Service: "web", Pool: "a", Families: []Family{IPv4}}},
			want:     []string{"web 203.0.113.9"},
		},
		{
			name:     "listed addresses are taken first, and not given again",
			pools:    []Pool{public("203.0.113.0/30")},
			requests: []Request{four("a"), {Service: "z", Addresses: []netip.Addr{addr("198.51.100.1"), addr("203.0.113.0"), addr("203.0.113.1"), addr("203.0.113.2")}}},
			want:     []string{"a 203.0.113.3", "z 198.51.100.1 203.0.113.0 203.0.113.1 203.0.113.2"},
		},
		{
			name:     "listed by two, with ports of their own",
			requests: []Request{{Service: "a", Addresses: []netip.Addr{addr("198.51.100.1")}, Ports: tcp(80)}, {Service: "b", Addresses: []netip.Addr{addr("198.51.100.1")}, Ports: tcp(81)}},
			want:     []string{"a 198.51.100.1", "b 198.51.100.1"},
		},
		{
			name: "listed by two, with a port in common",
			requests: []Request{
				{Service: "b", Addresses: []netip.Addr{addr("198.51.100.1")}, Ports: []Port{{6, 70, 90}}}, {Service: "a", Addresses: []netip.Addr{addr("198.51.100.1")}, Ports: tcp(79, 80)},
			},
			want: []string{"a 198.51.100.1", "b 198.51.100.1"},
			err:  []string{"services a and b both list 198.51.100.1 and have tcp/79; give one of them another address or port"},
		},
		{
			name:     "addresses ending in .0 and .255 are avoided",
			pools:    []Pool{{Name: "public", AutoAssign: true, AvoidBuggy: true, Ranges: ranges("203.0.112.254-203.0.113.1")}},
			requests: []Request{four("a"), four("b"), four("c")},
			want:     []string{"a 203.0.112.254", "b 203.0.113.1"},
			err:      []string{"no IPv4 address is left for service c: pool public has 2 addresses, all in use: a 1, b 1; add addresses, name another pool, or take a service out"},
		},
		{
			name:     "but one in use is kept, and IPv6 is not meant",
			pools:    []Pool{{Name: "public", AutoAssign: true, AvoidBuggy: true, Ranges: ranges("203.0.113.0/31", "2001:db8::ff00")}},
			requests: []Request{four("a"), {Service: "b", Families: []Family{IPv6}}},
			existing: []Allocation{has("a", "203.0.113.0", 1)},
			want:     []string{"a 203.0.113.0", "b 2001:db8::ff00"},
		},
		{
			name: "pools are asked by priority, 0 last",
			pools: []Pool{
				{Name: "a", AutoAssign: true, Ranges: ranges("203.0.113.1")}, {Name: "b", AutoAssign: true, Priority: 20, Ranges: ranges("203.0.113.2")},
				{Name: "c", AutoAssign: true, Priority: 10, Ranges: ranges("203.0.113.3")}, {Name: "d", AutoAssign: true, Ranges: ranges("203.0.113.4")},
				{Name: "off", Priority: 1, Ranges: ranges("203.0.113.5")},
			},
			requests: []Request{four("1"), four("2"), four("3"), four("4"), four("5")},
			want:     []string{"1 203.0.113.3", "2 203.0.113.2", "3 203.0.113.1", "4 203.0.113.4"},
			err: []string{"no IPv4 address is left for service 5: pool c has 1 address, all in use: 1 1, pool b has 1 address, all in use: 2 1, " +
				"pool a has 1 address, all in use: 3 1, pool d has 1 address, all in use: 4 1; add addresses, name another pool, or take a service out"},
		},
		{
			name: "a pool for some goes before one for all, and nobody else gets in",
			pools: []Pool{
				{Name: "a", AutoAssign: true, Ranges: ranges("203.0.113.1-203.0.113.2")}, {Name: "gold", AutoAssign: true, Selector: gold, Ranges: ranges("203.0.113.128/25")},
			},
			requests: []Request{
				{Service: "rich", Families: []Family{IPv4}, Labels: map[string]string{"tier": "gold", "x": "y"}}, {Service: "poor", Families: []Family{IPv4}, Labels: map[string]string{"tier": "tin"}},
				{Service: "guest", Families: []Family{IPv4}, Pool: "gold"},
			},
			want: []string{"guest 203.0.113.192", "poor 203.0.113.1", "rich 203.0.113.162"},
		},
		{
			name:     "all families from one pool if any has them",
			pools:    []Pool{{Name: "a", AutoAssign: true, Priority: 1, Ranges: ranges("203.0.113.1")}, {Name: "b", AutoAssign: true, Ranges: ranges("203.0.113.2", "2001:db8::2")}},
			requests: []Request{{Service: "web", Families: []Family{IPv4, IPv6}}},
			want:     []string{"web 203.0.113.2 2001:db8::2"},
		},
		{
			name:     "else from those that have one",
			pools:    []Pool{{Name: "a", AutoAssign: true, Ranges: ranges("203.0.113.1")}, {Name: "b", AutoAssign: true, Ranges: ranges("2001:db8::2")}},
			requests: []Request{{Service: "web", Families: []Family{IPv6, IPv4, IPv6}}},
			want:     []string{"web 203.0.113.1 2001:db8::2"},
		},
		{
			name:     "one more family is taken where the other is from",
			pools:    []Pool{{Name: "a", AutoAssign: true, Ranges: ranges("2001:db8::1")}, {Name: "public", AutoAssign: true, Ranges: ranges("203.0.113.2", "2001:db8::2")}},
			requests: []Request{{Service: "web", Families: []Family{IPv4, IPv6}}},
			existing: []Allocation{has("web", "203.0.113.2", 1)},
			want:     []string{"web 203.0.113.2 2001:db8::2"},
		},
		{
			name:     "a named pool without the family",
			pools:    []Pool{public("203.0.113.1")},
			requests: []Request{{Service: "web", Pool: "public", Families: []Family{IPv4, IPv6}}},
			want:     []string{"web 203.0.113.1"},
			err:      []string{"no IPv6 address for service web in pool public, as there are none there; add some, name another pool, or leave ipv6 out of ip_families"},
		},
		{
			name:     "a pool that there is not",
			pools:    []Pool{public("203.0.113.1"), {Name: "a"}},
			requests: []Request{{Service: "web", Pool: "publik", Families: []Family{IPv4}}},
			err:      []string{"service web asks for pool publik, which there is not; there are a, public"},
		},
		{
			name:     "no pools at all",
			requests: []Request{four("web"), {Service: "named", Pool: "x", Families: []Family{IPv4}}},
			err: []string{
				"service named asks for pool x, but there are no pools; add it, or list addresses for the service",
				"service web has no addresses, and there are no pools; list addresses, or add a pool",
			},
		},
		{
			name: "no pool for it",
			pools: []Pool{
				{Name: "a", Ranges: ranges("203.0.113.1")}, {Name: "b", AutoAssign: true, Selector: map[string]string{"tier": "gold", "area": "x"}, Ranges: ranges("203.0.113.2")},
			},
			requests: []Request{four("web")},
			err:      []string{"no pool gives service web an address by itself: a has auto_assign off, b wants the labels area=x, tier=gold; name a pool, or change labels or pools"},
		},
		{
			name:     "sharing",
			pools:    []Pool{public("203.0.113.0/24", "2001:db8::/64")},
			requests: []Request{{Service: "a", Share: "k", Ports: tcp(80), Families: []Family{IPv4}}, {Service: "b", Share: "k", Ports: []Port{{17, 80, 80}}, Families: []Family{IPv4, IPv6}}, {Service: "c", Share: "l", Ports: tcp(81), Families: []Family{IPv4}}, {Service: "d", Share: "k", Ports: tcp(79, 80), Families: []Family{IPv4}}, {Service: "e", Share: "k", Ports: []Port{{17, 79, 79}}, Families: []Family{IPv4, IPv6}}},
			want:     []string{"a 203.0.113.123", "b 203.0.113.123 2001:db8::c7dd:fbd6:c2b8:f7b", "c 203.0.113.162", "d 203.0.113.124", "e 203.0.113.123 2001:db8::c7dd:fbd6:c2b8:f7b"},
		},
		{
			name:  "sharing a listed address takes the key on both sides",
			pools: []Pool{public("203.0.113.0/30")},
			requests: []Request{
				{Service: "z", Share: "k", Ports: tcp(80), Addresses: []netip.Addr{addr("203.0.113.3"), addr("198.51.100.3")}}, {Service: "y", Ports: tcp(90), Addresses: []netip.Addr{addr("203.0.113.2")}},
				{Service: "a", Share: "k", Ports: tcp(81), Families: []Family{IPv4}}, {Service: "b", Ports: tcp(82), Families: []Family{IPv4}},
			},
			want: []string{"a 203.0.113.3", "b 203.0.113.1", "y 203.0.113.2", "z 203.0.113.3 198.51.100.3"},
		},
		{
			name:     "a share that breaks up: who has it for longer stays",
			pools:    []Pool{public("203.0.113.0/30")},
			requests: []Request{{Service: "a", Ports: tcp(80), Families: []Family{IPv4}}, {Service: "b", Ports: tcp(81), Families: []Family{IPv4}}},
			existing: []Allocation{has("a", "203.0.113.2", 1), has("b", "203.0.113.2", 2)},
			want:     []string{"a 203.0.113.0", "b 203.0.113.2"},
			moved:    []string{"a 203.0.113.2 203.0.113.0: service b has it, too, and for longer"},
		},
		{
			name:     "both have it for as long",
			pools:    []Pool{public("203.0.113.0/30")},
			requests: []Request{four("b"), four("a")},
			existing: []Allocation{has("b", "203.0.113.1", 1), has("a", "203.0.113.1", 1)},
			want:     []string{"a 203.0.113.1", "b 203.0.113.2"},
			moved:    []string{"b 203.0.113.1 203.0.113.2: service a has it, too, and for longer"},
		},
		{
			name:     "who loses one keeps another that it has",
			pools:    []Pool{public("203.0.113.0/24")},
			requests: []Request{four("a"), four("b")},
			existing: []Allocation{has("a", "203.0.113.1", 9), has("b", "203.0.113.1", 8), has("b", "203.0.113.77", 1), has("a", "203.0.113.78", 1)},
			want:     []string{"a 203.0.113.1", "b 203.0.113.77"},
		},
		{
			name:     "a pool that has shrunk",
			pools:    []Pool{public("203.0.113.0/30")},
			requests: []Request{four("web"), {Service: "named", Pool: "public", Families: []Family{IPv4}}},
			existing: []Allocation{has("web", "203.0.113.5", 1), has("named", "203.0.113.6", 1)},
			want:     []string{"named 203.0.113.1", "web 203.0.113.0"},
			err: []string{
				"pool public no longer has 203.0.113.6, which service named has; give named another pool, or put the address back",
				"pool public no longer has 203.0.113.5, which service web has; give web another pool, or put the address back",
			},
			moved: []string{
				"named 203.0.113.6 203.0.113.1: pool public no longer has 203.0.113.6, which service named has; give named another pool, or put the address back",
				"web 203.0.113.5 203.0.113.0: pool public no longer has 203.0.113.5, which service web has; give web another pool, or put the address back",
			},
		},
		{
			name:     "a pool that is gone",
			pools:    []Pool{{Name: "other", AutoAssign: true, Ranges: ranges("203.0.113.0/30")}},
			requests: []Request{four("web")},
			existing: []Allocation{has("web", "203.0.113.5", 1)},
			want:     []string{"web 203.0.113.3"},
			err:      []string{"there is no pool public any more, from which service web has 203.0.113.5; put the pool back, or give web another pool"},
			moved:    []string{"web 203.0.113.5 203.0.113.3: there is no pool public any more, from which service web has 203.0.113.5; put the pool back, or give web another pool"},
		},
		{
			name:     "a pool with another name, and a part that has become one",
			pools:    []Pool{{Name: "new", AutoAssign: true, Ranges: ranges("203.0.113.0/30")}, {Name: "part", Ranges: ranges("203.0.113.4/30")}},
			requests: []Request{four("web"), {Service: "named", Pool: "part", Families: []Family{IPv4}}},
			existing: []Allocation{has("web", "203.0.113.1", 1), has("named", "203.0.113.5", 1)},
			want:     []string{"named 203.0.113.5", "web 203.0.113.1"},
		},
		{
			name:     "a part that has become one, but not for everybody",
			pools:    []Pool{public("203.0.113.0/30"), {Name: "part", Ranges: ranges("203.0.113.4/30")}},
			requests: []Request{four("web")},
			existing: []Allocation{has("web", "203.0.113.5", 1)},
			want:     []string{"web 203.0.113.0"},
			err:      []string{"pool public no longer has 203.0.113.5, which service web has; give web another pool, or put the address back"},
			moved:    []string{"web 203.0.113.5 203.0.113.0: pool public no longer has 203.0.113.5, which service web has; give web another pool, or put the address back"},
		},
		{
			name:     "a service that asks for another pool",
			pools:    []Pool{public("203.0.113.0/30"), {Name: "b", Ranges: ranges("203.0.113.9")}},
			requests: []Request{{Service: "web", Pool: "b", Families: []Family{IPv4}}},
			existing: []Allocation{has("web", "203.0.113.1", 1)},
			want:     []string{"web 203.0.113.9"},
			moved:    []string{"web 203.0.113.1 203.0.113.9: the service asks for pool b now"},
		},
		{
			name:     "a pool that gives no addresses by itself any more",
			pools:    []Pool{{Name: "public", Ranges: ranges("203.0.113.0/30")}, {Name: "b", AutoAssign: true, Ranges: ranges("203.0.113.9")}},
			requests: []Request{four("web"), {Service: "named", Pool: "public", Families: []Family{IPv4}}},
			existing: []Allocation{has("web", "203.0.113.1", 1), has("named", "203.0.113.2", 1)},
			want:     []string{"named 203.0.113.2", "web 203.0.113.9"},
			moved:    []string{"web 203.0.113.1 203.0.113.9: pool public has auto_assign off now"},
		},
		{
			name:     "a pool that is for others now",
			pools:    []Pool{{Name: "public", AutoAssign: true, Selector: gold, Ranges: ranges("203.0.113.0/30")}, {Name: "b", AutoAssign: true, Ranges: ranges("203.0.113.9")}},
			requests: []Request{four("web")},
			existing: []Allocation{has("web", "203.0.113.1", 1)},
			want:     []string{"web 203.0.113.9"},
			moved:    []string{"web 203.0.113.1 203.0.113.9: pool public is not for services with these labels any more"},
		},
		{
			name:     "somebody lists what another has",
			pools:    []Pool{public("203.0.113.1-203.0.113.2")},
			requests: []Request{four("a"), {Service: "b", Addresses: []netip.Addr{addr("203.0.113.1")}, Ports: tcp(81)}},
			existing: []Allocation{has("a", "203.0.113.1", 1)},
			want:     []string{"a 203.0.113.2", "b 203.0.113.1"},
			err:      []string{"service b lists 203.0.113.1, which service a has from pool public; list another address, or give both one share key and ports of their own"},
			moved:    []string{"a 203.0.113.1 203.0.113.2: service b lists 203.0.113.1, which service a has from pool public; list another address, or give both one share key and ports of their own"},
		},
		{
			name:     "what nobody asks for is forgotten",
			pools:    []Pool{public("203.0.113.0/30", "2001:db8::/64")},
			requests: []Request{four("web"), {Service: "listed", Addresses: []netip.Addr{addr("198.51.100.1")}}},
			existing: []Allocation{has("web", "2001:db8::1", 1), has("gone", "203.0.113.1", 1), has("listed", "203.0.113.2", 1), {Service: "web"}},
			want:     []string{"listed 198.51.100.1", "web 203.0.113.0"},
		},
		{
			name:  "pools that overlap",
			pools: []Pool{public("203.0.113.0/28", "203.0.113.4-203.0.113.20"), {Name: "a", Ranges: ranges("203.0.113.15-203.0.113.30", "203.0.113.10", "::/0")}, {Name: "z", Ranges: ranges("2001:db8::/32")}},
			err: []string{
				"pools a and public overlap: both have 203.0.113.10; take it out of one of them",
				"pools a and z overlap: both have 2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff; take it out of one of them",
			},
		},
		{
			name: "nonsense",
			pools: []Pool{
				{Name: "a", Ranges: []Range{{}, {addr("203.0.113.2"), addr("203.0.113.1")}, {addr("203.0.113.2"), addr("::1")}, {addr("::ffff:1.2.3.4"), addr("::ffff:1.2.3.5")}}}, {Name: "a"},
			},
			requests: []Request{four("web"), four("web"), {Service: "x", Addresses: []netip.Addr{addr("fe80::1%eth0")}}},
			want:     []string{"x fe80::1%eth0"},
			err: []string{
				"pool a: invalid IP is no range; want the first and the last of some addresses of one family",
				"pool a: 203.0.113.2-203.0.113.1 is no range; want the first and the last of some addresses of one family",
				"pool a: 203.0.113.2-::1 is no range; want the first and the last of some addresses of one family",
				"pool a: ::ffff:1.2.3.4-::ffff:1.2.3.5 is no range; want the first and the last of some addresses of one family",
				`two pools are called "a"; give one of them another name`,
				`two services are called "web"; give one of them another name`,
				"service x lists fe80::1%eth0, which no packet can have as its destination; list another address",
				"no pool gives service web an address by itself: a has auto_assign off; name a pool, or change labels or pools",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Allocate(tc.pools, tc.requests, tc.existing, noon())
			if tc.want == nil {
				tc.want = []string{}
			}
			if !slices.Equal(texts(got), tc.want) {
				t.Errorf("got %q, want %q", texts(got), tc.want)
			}
			if want := strings.Join(tc.err, "\n"); err == nil && want != "" || err != nil && err.Error() != want {
				t.Errorf("error\n%v\nwant\n%s", err, want)
			}
			var moved []string
			for _, m := range got.Moved {
				moved = append(moved, fmt.Sprintf("%s %s %s: %s", m.Service, m.From.Address, m.To, m.Reason))
			}
			if !slices.Equal(moved, tc.moved) {
				t.Errorf("moved %q, want %q", moved, tc.moved)
			}
			for _, a := range got.Allocations {
				i := slices.IndexFunc(tc.existing, func(e Allocation) bool { return e.Service == a.Service && e.Address == a.Address })
				if i >= 0 && a.Since != tc.existing[i].Since || i < 0 && a.Since != noon() {
					t.Errorf("%+v", a)
				}
			}
			again, _ := Allocate(tc.pools, tc.requests, got.Allocations, noon().Add(time.Hour))
			if !slices.Equal(again.Allocations, got.Allocations) {
				t.Errorf("the second time it is %v", again.Allocations)
			}
		})
	}
}

func TestValid(t *testing.T) {
	pools := []Pool{public("203.0.113.0/30"), {Name: "part", Ranges: ranges("203.0.113.4/30")}}
	requests := []Request{four("a"), four("b"), {Service: "n", Pool: "part", Families: []Family{IPv4}}, {Service: "l", Addresses: []netip.Addr{addr("203.0.113.3")}}}
	good := []Allocation{has("a", "203.0.113.1", 1), has("b", "203.0.113.1", 2), has("n", "203.0.113.5", 1)}
	bad := []Allocation{has("a", "203.0.113.5", 1), has("b", "2001:db8::1", 2), has("n", "203.0.113.1", 1), has("l", "203.0.113.3", 1), has("none", "203.0.113.2", 1)}
	if got := Valid(pools, requests, slices.Concat(bad, good)); !slices.Equal(got, good) {
		t.Errorf("got %v", got)
	}
}
