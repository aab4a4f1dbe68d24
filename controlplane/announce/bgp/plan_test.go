package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func num(n uint32) *uint32 { return &n }

// say puts a plan into lines that can be compared.
func say(all map[string]map[netip.Prefix]route) []string {
	var lines []string
	for peer, routes := range all {
		for prefix, r := range routes {
			line := peer + " " + prefix.String()
			if r.nextHop.IsValid() {
				line += " via " + r.nextHop.String()
			}
			for _, c := range r.communities.standard {
				line += fmt.Sprintf(" %d:%d", c>>16, c&0xffff)
			}
			for _, c := range r.communities.large {
				line += fmt.Sprintf(" %d:%d:%d", c.global, c.data1, c.data2)
			}
			if r.med != nil {
				line += fmt.Sprintf(" med %d", *r.med)
			}
			if r.localPref != nil {
				line += fmt.Sprintf(" pref %d", *r.localPref)
			}
			if r.note != "" {
				line += " !"
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// base has an eBGP and an iBGP peer.
func base() Config {
	return Config{
		ASN: ours, RouterID: addr("192.0.2.1"), NextHop6: addr("2001:db8::2"),
		Peers: []Peer{
			{Name: "e", Address: addr("10.0.0.1"), ASN: theirs, IPv4: true, IPv6: true},
			{Name: "i", Address: addr("10.0.0.3"), ASN: ours},
		},
		Pools: map[string]Pool{},
	}
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(*Config)
		ads     []string
		leaving bool
		want    []string
	}{
		{"nothing", nil, nil, false, nil},
		{"host routes, by family", nil, []string{"203.0.113.10", "2001:db8:1::10"}, false, []string{
			"e 2001:db8:1::10/128 via 2001:db8::2", "e 203.0.113.10/32", "i 203.0.113.10/32"}},
		{"the same twice", nil, []string{"203.0.113.10@a", "203.0.113.10@a"}, false, []string{"e 203.0.113.10/32", "i 203.0.113.10/32"}},
		{"aggregates", func(c *Config) { c.Pools["a"] = Pool{Aggregation: 24, Aggregation6: 64} },
			[]string{"203.0.113.10@a", "203.0.113.11@a", "198.51.100.1@a", "2001:db8:1::10@a", "203.0.113.12"}, false, []string{
				"e 198.51.100.0/24", "e 2001:db8:1::/64 via 2001:db8::2", "e 203.0.113.0/24", "e 203.0.113.12/32",
				"i 198.51.100.0/24", "i 203.0.113.0/24", "i 203.0.113.12/32"}},
		{"attributes of the pool, local preference only inside", func(c *Config) {
			c.Pools["a"] = Pool{Communities: []string{"65000:2", "no-export", "65000:1", "1:2:3"}, LocalPref: num(200), MED: num(7)}
		}, []string{"203.0.113.10@a"}, false, []string{
			"e 203.0.113.10/32 65000:1 65000:2 65535:65281 1:2:3 med 7",
			"i 203.0.113.10/32 65000:1 65000:2 65535:65281 1:2:3 med 7 pref 200"}},
		{"the peer's come first, communities are added", func(c *Config) {
			c.Pools["a"] = Pool{Communities: []string{"65000:2"}, LocalPref: num(200), MED: num(7)}
			c.NextHop = addr("192.0.2.1")
			for i := range c.Peers {
				c.Peers[i].Communities = []string{"65000:1", "65000:2", "4200000000:1:1"}
				c.Peers[i].LocalPref, c.Peers[i].MED = num(0), num(0)
			}
			c.Peers[0].NextHop = addr("192.0.2.9")
		}, []string{"203.0.113.10@a"}, false, []string{
			"e 203.0.113.10/32 via 192.0.2.9 65000:1 65000:2 4200000000:1:1 med 0",
			"i 203.0.113.10/32 via 192.0.2.1 65000:1 65000:2 4200000000:1:1 med 0 pref 0"}},
		{"pools choose peers", func(c *Config) { c.Pools["a"] = Pool{Peers: []string{"i"}} },
			[]string{"203.0.113.10@a", "203.0.113.11@b", "203.0.113.12"}, false, []string{
				"e 203.0.113.11/32", "e 203.0.113.12/32", "i 203.0.113.10/32", "i 203.0.113.11/32", "i 203.0.113.12/32"}},
		{"peers choose pools", func(c *Config) { c.Peers[0].Pools = []string{"a"} },
			[]string{"203.0.113.10@a", "203.0.113.11@b", "203.0.113.12"}, false, []string{
				"e 203.0.113.10/32", "i 203.0.113.10/32", "i 203.0.113.11/32", "i 203.0.113.12/32"}},
		{"both have to", func(c *Config) {
			c.Pools["a"] = Pool{Peers: []string{"i"}}
			c.Peers[0].Pools, c.Peers[1].Pools = []string{"a"}, []string{"b"}
		}, []string{"203.0.113.10@a"}, false, nil},
		{"pools that do not agree about an aggregate: the first, and it is said", func(c *Config) {
			c.Pools["a"] = Pool{Aggregation: 24, MED: num(1)}
			c.Pools["b"] = Pool{Aggregation: 24, MED: num(2)}
		}, []string{"203.0.113.10@b", "203.0.113.11@a"}, false, []string{"e 203.0.113.0/24 med 1 !", "i 203.0.113.0/24 med 1 !"}},
		{"pools that agree", func(c *Config) {
			c.Pools["a"] = Pool{Aggregation: 24, MED: num(1)}
			c.Pools["b"] = Pool{Aggregation: 24, MED: num(1)}
		}, []string{"203.0.113.10@b", "203.0.113.11@a"}, false, []string{"e 203.0.113.0/24 med 1", "i 203.0.113.0/24 med 1"}},
		{"leaving", func(c *Config) { c.Pools["a"] = Pool{Communities: []string{"1:1"}, LocalPref: num(200), MED: num(7)} },
			[]string{"203.0.113.10@a"}, true, []string{
				"e 203.0.113.10/32 1:1 65535:0 med 7", "i 203.0.113.10/32 1:1 65535:0 med 7 pref 0"}},
		{"an address in IPv6 clothes", nil, []string{"::ffff:203.0.113.10"}, false, []string{"e 203.0.113.10/32", "i 203.0.113.10/32"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := base()
			if tc.change != nil {
				tc.change(&c)
			}
			p, err := prepare(c)
			if err != nil {
				t.Fatal(err)
			}
			set := ads(tc.ads...)
			if got := say(plan(p, set, tc.leaving)); !slices.Equal(got, tc.want) {
				t.Errorf("plan\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
			slices.Reverse(set)
			if got := say(plan(p, set, tc.leaving)); !slices.Equal(got, tc.want) {
				t.Errorf("in another order: %q", got)
			}
		})
	}
}

func TestCommunities(t *testing.T) {
	got, err := parseCommunities([]string{"no-advertise", "0:0", "65535:65535", "0:0:0", "4294967295:4294967295:4294967295",
		"blackhole", "local-as", "no-export-subconfed", "no-peer", "accept-own", "graceful-shutdown", "no-export", "0:0"})
	if err != nil {
		t.Fatal(err)
	}
	want := []uint32{0, 0xffff0000, 0xffff0001, 0xffff029a, 0xffffff01, 0xffffff02, 0xffffff03, 0xffffff04, 0xffffffff}
	if !slices.Equal(got.standard, want) {
		t.Errorf("standard %#x, want %#x", got.standard, want)
	}
	if want := []large{{}, {1<<32 - 1, 1<<32 - 1, 1<<32 - 1}}; !slices.Equal(got.large, want) {
		t.Errorf("large %v, want %v", got.large, want)
	}
	for _, text := range []string{"", "1", "1:", ":1", "65536:1", "1:65536", "1:2:4294967296", "1:2:3:4", "-1:1", "a:b", "no-such", "1: 2"} {
		if c, err := parseCommunities([]string{text}); err == nil {
			t.Errorf("%q is %+v", text, c)
		}
	}
}

func TestMistakes(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"asn is missing":                     func(c *Config) { c.ASN = 0 },
		"router id invalid IP is no":         func(c *Config) { c.RouterID = netip.Addr{} },
		"router id 2001:db8::1 is no":        func(c *Config) { c.RouterID = addr("2001:db8::1") },
		"has no port":                        func(c *Config) { c.Listen = netip.AddrPortFrom(addr("10.0.0.2"), 0) },
		"shutdown delay -1s":                 func(c *Config) { c.ShutdownDelay = -time.Second },
		"next hop 2001:db8::1 is no IPv4":    func(c *Config) { c.NextHop = addr("2001:db8::1") },
		"next hop 10.0.0.1 is no IPv6":       func(c *Config) { c.NextHop6 = addr("10.0.0.1") },
		"peer e: there are two of that name": func(c *Config) { c.Peers[1].Name = "e" },
		"peer i: there are two with address": func(c *Config) { c.Peers[1].Address = c.Peers[0].Address },
		"peer e: address 0.0.0.0 is none":    func(c *Config) { c.Peers[0].Address = addr("0.0.0.0") },
		"peer e: asn is missing":             func(c *Config) { c.Peers[0].ASN = 0 },
		"peer e: source ::1 and address":     func(c *Config) { c.Peers[0].Source = addr("::1") },
		"peer e: multihop 256":               func(c *Config) { c.Peers[0].Multihop = 256 },
		"peer e: password has more than 80":  func(c *Config) { c.Peers[0].Password = strings.Repeat("x", 81) },
		"peer e: hold time 2s":               func(c *Config) { c.Peers[0].HoldTime = 2 * time.Second },
		"peer e: keepalive time 1m30s":       func(c *Config) { c.Peers[0].KeepaliveTime = 90 * time.Second },
		"peer e: connect retry time 1ms":     func(c *Config) { c.Peers[0].ConnectRetry = time.Millisecond },
		"peer e: restart time 1h8m16s":       func(c *Config) { c.Peers[0].RestartTime = 4096 * time.Second },
		"peer e: next hop ::1 is no IPv4":    func(c *Config) { c.Peers[0].NextHop = addr("::1") },
		"peer e: IPv6 prefixes over an IPv4": func(c *Config) { c.NextHop6 = netip.Addr{} },
		"peer i: IPv6 prefixes over a session": func(c *Config) {
			c.NextHop6, c.Peers[0].IPv6, c.Peers[1].Address = netip.Addr{}, false, addr("fe80::1%eth0")
		},
		"peer i: IPv4 prefixes over an IPv6":  func(c *Config) { c.Peers[1].Address, c.Peers[1].IPv4 = addr("2001:db8::1"), true },
		`peer e: community "x"`:               func(c *Config) { c.Peers[0].Communities = []string{"x"} },
		`pool a: community "x"`:               func(c *Config) { c.Pools["a"] = Pool{Communities: []string{"x"}} },
		"pool a: there is no peer r9":         func(c *Config) { c.Pools["a"] = Pool{Peers: []string{"r9"}} },
		"pool a: aggregation to /33 and /128": func(c *Config) { c.Pools["a"] = Pool{Aggregation: 33} },
		"pool a: aggregation to /32 and /129": func(c *Config) { c.Pools["a"] = Pool{Aggregation6: 129} },
	} {
		c := base()
		change(&c)
		if _, err := New(c, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
	}
	c := base()
	c.ASN, c.Peers[0].ASN = 0, 0
	if _, err := New(c, nil); err == nil || strings.Count(err.Error(), "asn is missing") != 2 {
		t.Errorf("two mistakes: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	c := base()
	c.Peers = []Peer{{Address: addr("2001:db8::1"), ASN: theirs, HoldTime: 9 * time.Second}, {Address: addr("10.0.0.1"), ASN: 7, LocalASN: 7}}
	p, err := prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]preparedPeer)
	for _, peer := range p.peers {
		names[peer.Name] = peer
	}
	six, four := names["2001:db8::1"], names["10.0.0.1"]
	if len(names) != 2 || six.IPv4 || !six.IPv6 || six.Port != 179 || six.KeepaliveTime != 3*time.Second ||
		six.ConnectRetry != 5*time.Second || six.RestartTime != 120*time.Second || six.LocalASN != ours || six.ibgp {
		t.Errorf("names %v, IPv6 peer %+v", slices.Collect(maps.Keys(names)), six)
	}
	if !four.IPv4 || four.IPv6 || four.HoldTime != 90*time.Second || !four.ibgp {
		t.Errorf("IPv4 peer %+v", four)
	}
}
