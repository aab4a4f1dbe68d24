package config

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRangeString(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":                "10.0.0.0/8",
		"10.0.0.7":                  "10.0.0.7",
		"10.0.0.7/32":               "10.0.0.7",
		"10.0.0.0-10.0.0.15":        "10.0.0.0/28",
		"10.0.0.1-10.0.0.15":        "10.0.0.1-10.0.0.15",
		"10.0.0.0-10.0.0.14":        "10.0.0.0-10.0.0.14",
		"10.0.0.15-10.0.0.16":       "10.0.0.15-10.0.0.16",
		"2001:db8::/64":             "2001:db8::/64",
		"2001:db8::-2001:db8::ffff": "2001:db8::/112",
		"::-ffff::":                 "::-ffff::",
	} {
		s, problem := parseSpan(text)
		if r := (Range{s.lo, s.hi}); problem != "" || r.String() != want {
			t.Errorf("%s is %s, want %s; %s", text, r, want, problem)
		}
	}
	if got := (Range{}).String(); got != "invalid IP" {
		t.Errorf("no range is %q", got)
	}
}

// TestPoolOverlapOracle compares with counting each address: there is a report if
// and only if one is in two ranges; and what PoolOf finds is where it is.
func TestPoolOverlapOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var agreed [2]int
	address := func(v6 bool, last int) netip.Addr {
		if v6 {
			return netip.AddrFrom16([16]byte{0xfd, 15: byte(last)})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(last)})
	}
	for range 3000 {
		c := &Config{}
		users := make(map[netip.Addr][]int)
		overlap := false
		for i := range 1 + random.IntN(3) {
			p := Pool{Name: string(rune('a' + i))}
			for range 1 + random.IntN(2) {
				lo, v6 := random.IntN(60), random.IntN(2) == 0
				r := Range{address(v6, lo), address(v6, lo+random.IntN(10))}
				for a := r.From; r.Contains(a); a = a.Next() {
					users[a] = append(users[a], i)
					overlap = overlap || len(users[a]) > 1
				}
				p.Ranges = append(p.Ranges, r)
			}
			c.Pools = append(c.Pools, p)
		}
		v := &validator{report: &report{}, c: c}
		v.poolOverlaps()
		if overlap != (len(v.errors) > 0) {
			t.Fatalf("%+v: overlap %v, got %v", c.Pools, overlap, v.errors)
		}
		for last := range 70 {
			for _, v6 := range []bool{false, true} {
				a := address(v6, last)
				if p := c.PoolOf(a); (p == nil) != (users[a] == nil) || p != nil && !slices.ContainsFunc(users[a], func(i int) bool { return p == &c.Pools[i] }) {
					t.Fatalf("%v is in %v, PoolOf says %+v", a, users[a], p)
				}
			}
		}
		if overlap {
			agreed[1]++
		} else {
			agreed[0]++
		}
	}
	if slices.Min(agreed[:]) < 100 {
		t.Errorf("the cases are one-sided: %v", agreed)
	}
}

// TestOffers compares with looking at each address.
func TestOffers(t *testing.T) {
	base := netip.MustParseAddr("10.0.0.250")
	for skip := range 12 {
		from := base
		for range skip {
			from = from.Next()
		}
		to := from
		for n := range 8 {
			if n > 0 {
				to = to.Next()
			}
			good := false
			for a := from; !to.Less(a); a = a.Next() {
				good = good || !buggy(a)
			}
			p := &Pool{Ranges: []Range{{from, to}}, AvoidBuggyIPs: true}
			if p.offers(IPv4) != good || p.offers(IPv6) {
				t.Errorf("%v: offers IPv4 %v, want %v; IPv6 %v", p.Ranges, p.offers(IPv4), good, p.offers(IPv6))
			}
			if p.AvoidBuggyIPs = false; !p.offers(IPv4) {
				t.Errorf("%v: nothing to offer", p.Ranges)
			}
		}
	}
	if p := (&Pool{Ranges: []Range{{}}}); p.offers(IPv4) || p.offers(IPv6) {
		t.Error("no range offers something")
	}
}

func TestSizeBits(t *testing.T) {
	for text, want := range map[string]int{
		"10.0.0.1": 0, "10.0.0.0-10.0.0.1": 1, "10.0.0.0-10.0.0.2": 2, "10.0.0.0/8": 24, "10.0.0.0-11.0.0.0": 25,
		"2001:db8::/64": 64, "2001:db8::/32": 96, "2001:db8::-2001:db9::": 97, "2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::": 1, "::/0": 128,
	} {
		s, _ := parseSpan(text)
		if got := (Range{s.lo, s.hi}).sizeBits(); got != want {
			t.Errorf("%s has 2^%d addresses, want 2^%d", text, got, want)
		}
	}
}

const pooledText = `
interfaces: [{name: eth1}]
pools: [{name: public, addresses: [203.0.113.0/24, "2001:db8::/120"]}]
services:
  - {name: web, ports: [tcp/80], backends: [{address: 10.0.0.1}, {address: "fd00::1"}]}
  - {name: dns, ports: [udp/53], pool: public, share: x, ping: never, backends: [{address: 10.0.0.2}]}
  - {name: listed, ports: [tcp/80], addresses: [203.0.113.9, 192.0.2.1], backends: [{address: 10.0.0.1}]}
`

func TestWithAddresses(t *testing.T) {
	c := parse(t, pooledText)
	for i, want := range []bool{true, true, false} {
		if got := c.Services[i].Allocated(); got != want {
			t.Errorf("%s: allocated %v", c.Services[i].Name, got)
		}
	}
	if got := [][]Family{c.Services[0].Families, c.Services[1].Families}; !reflect.DeepEqual(got, [][]Family{{IPv4, IPv6}, {IPv4}}) {
		t.Errorf("families %v", got)
	}
	four, six := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")
	by := map[string][]netip.Addr{"web": {four, six}, "listed": {six}, "nobody": {four}}
	with := c.WithAddresses(by)
	if got := with.Services[0]; !slices.Equal(got.Addresses, by["web"]) || !got.Allocated() {
		t.Errorf("web has %v", got.Addresses)
	}
	by["web"][0] = six
	if got := with.Services[0].Addresses; got[0] != four {
		t.Errorf("web changed to %v with the map", got)
	}
	if got := with.Services[1].Addresses; len(got) != 0 {
		t.Errorf("dns has %v", got)
	}
	if got := with.Services[2].Addresses; !slices.Equal(got, c.Services[2].Addresses) {
		t.Errorf("listed has %v", got)
	}
	if got := c.Services[0].Addresses; len(got) != 0 {
		t.Errorf("the original has got %v", got)
	}
	if p := with.PoolOf(four); p == nil || p.Name != "public" || p != with.PoolOf(six) || with.PoolOf(netip.MustParseAddr("203.0.114.0")) != nil {
		t.Errorf("%v is of pool %+v", four, p)
	}
	if got := with.WithAddresses(nil).Services[0].Addresses; len(got) != 0 {
		t.Errorf("web still has %v", got)
	}
}

func TestCheckAddresses(t *testing.T) {
	c := parse(t, pooledText)
	for _, tc := range []struct {
		name     string
		web, dns string
		host     *Host
		want     string
	}{
		{"fit", "203.0.113.1 2001:db8::1", "203.0.113.2", nil, ""},
		{"are not all there", "2001:db8::1", "", nil, ""},
		{"are shared", "203.0.113.1", "203.0.113.1", nil,
			"test.yaml:6: services[1].ping: is never in service dns, but always in service web in line 5, and both have VIP 203.0.113.1; want the same in both"},
		{"are those of a listed service", "203.0.113.9", "", nil,
			"test.yaml:7: services[2].ports[0]: tcp/80 of service listed overlaps tcp/80 of service web in line 5, both have VIP 203.0.113.9; change the ports or the VIP of one"},
		{"are there twice", "203.0.113.1 203.0.113.1", "", nil,
			"test.yaml:5: services[0].addresses[1]: 203.0.113.1 is here twice; the first is in line 5, keep one"},
		{"are no VIPs", "224.0.0.1", "10.0.0.1", nil, `test.yaml:5: services[0].addresses[0]: 224.0.0.1 is a multicast address, which a VIP cannot be; want a unicast address
test.yaml:5: services[0].backends[0].address: 10.0.0.1 is also a VIP, services[1].addresses[0] in line 6; want an address of the server's own
test.yaml:7: services[2].backends[0].address: 10.0.0.1 is also a VIP, services[1].addresses[0] in line 6; want an address of the server's own`},
		{"are the box's", "203.0.113.255", "203.0.113.200", &Host{Interfaces: []string{"eth1"}, Addresses: own("192.0.2.9/24", "203.0.113.200/32", "203.0.113.254/31")}, `test.yaml:3: pools[0].addresses[0]: 203.0.113.0/24 of pool public contains 203.0.113.200, the box's own address; want ranges without it
test.yaml:6: services[1].addresses[0]: VIP 203.0.113.200 is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			by := make(map[string][]netip.Addr)
			for name, texts := range map[string]string{"web": tc.web, "dns": tc.dns} {
				for _, text := range strings.Fields(texts) {
					by[name] = append(by[name], netip.MustParseAddr(text))
				}
			}
			err := c.WithAddresses(by).CheckAddresses(tc.host)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want) {
				t.Errorf("got:\n%v\nwant:\n%s", err, tc.want)
			}
			if err != nil && !errors.As(err, new(Errors)) {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}
