package config

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestSpan(t *testing.T) {
	for _, tc := range []struct {
		text, lo, hi string
		size         int
	}{
		{"10.0.0.240/30", "10.0.0.240", "10.0.0.243", 4},
		{"10.0.0.240/32", "10.0.0.240", "10.0.0.240", 1},
		{"10.0.0.240-10.0.0.240", "10.0.0.240", "10.0.0.240", 1},
		{"10.0.0.250-10.0.1.5", "10.0.0.250", "10.0.1.5", 12},
		{"10.0.0.240", "10.0.0.240", "10.0.0.240", 1},
		{"255.255.255.255", "255.255.255.255", "255.255.255.255", 1},
		{"10.0.0.0/20", "10.0.0.0", "10.0.15.255", 4096},
		{"10.0.0.0-10.0.16.0", "10.0.0.0", "10.0.16.0", MaxSNAT + 1},
		{"0.0.0.0/0", "0.0.0.0", "255.255.255.255", MaxSNAT + 1},
		{"fd00::f0/126", "fd00::f0", "fd00::f3", 4},
		{"fd00::/116", "fd00::", "fd00::fff", 4096},
		{"fd00::/115", "fd00::", "fd00::1fff", MaxSNAT + 1},
		{"fd00::1-fd00:0:0:1::", "fd00::1", "fd00:0:0:1::", MaxSNAT + 1},
		{"fd00:0:0:1::-fd00:0:0:2::", "fd00:0:0:1::", "fd00:0:0:2::", MaxSNAT + 1},
		{"fd00::ffff:ffff:ffff:fffe-fd00:0:0:1::1", "fd00::ffff:ffff:ffff:fffe", "fd00:0:0:1::1", 4},
		{"::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", MaxSNAT + 1},
	} {
		s, problem := parseSpan(tc.text)
		if problem != "" || s.lo != netip.MustParseAddr(tc.lo) || s.hi != netip.MustParseAddr(tc.hi) || s.size() != tc.size {
			t.Errorf("%s: %v to %v, %d addresses, %q", tc.text, s.lo, s.hi, s.size(), problem)
		}
		all := slices.Collect(s.all())
		if tc.size > MaxSNAT {
			if all != nil {
				t.Errorf("%s: expanded to %d addresses", tc.text, len(all))
			}
			continue
		}
		if len(all) != tc.size || all[0] != s.lo || all[len(all)-1] != s.hi || !slices.IsSortedFunc(all, netip.Addr.Compare) || len(slices.Compact(all)) != tc.size {
			t.Errorf("%s: expanded to %v", tc.text, all)
		}
	}
}

// FuzzSpan: what is accepted is a range of one family with as many addresses as
// it says.
func FuzzSpan(f *testing.F) {
	for _, seed := range []string{"10.0.0.240/30", "10.0.0.1-10.0.0.9", "fd00::f0/126", "::-::1", "::ffff:0.0.0.0/96", "-", "/", "1.1.1.1-/8", "fe80::1%a-b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, problem := parseSpan(text)
		if (problem == "") != s.lo.IsValid() {
			t.Fatalf("%q: %v and %q", text, s, problem)
		}
		if problem != "" {
			return
		}
		if s.lo.BitLen() != s.hi.BitLen() || s.hi.Less(s.lo) || s.lo.Zone() != "" || s.hi.Zone() != "" {
			t.Fatalf("%q: %v", text, s)
		}
		if n := s.size(); n > MaxSNAT {
			return
		} else if all := slices.Collect(s.all()); len(all) != n || all[n-1] != s.hi {
			t.Fatalf("%q: %d addresses, expanded to %v", text, n, all)
		}
	})
}

// TestSNATOverlapOracle compares with counting each address: there is a report
// if and only if one is there twice, for each entry that has such ones.
func TestSNATOverlapOracle(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	found := 0
	for range 3000 {
		c := &Config{}
		for range 1 + random.IntN(5) {
			lo := byte(random.IntN(40))
			hi := lo + byte(random.IntN(10))
			s := span{text: "x", lo: netip.AddrFrom4([4]byte{10, 0, 0, lo}), hi: netip.AddrFrom4([4]byte{10, 0, 0, hi})}
			if random.IntN(2) == 0 {
				s.lo, s.hi = netip.AddrFrom16([16]byte{0xfd, 15: lo}), netip.AddrFrom16([16]byte{0xfd, 15: hi})
			}
			c.snat = append(c.snat, s)
		}
		users := make(map[netip.Addr]int)
		twice := false
		for _, s := range c.snat {
			for a := s.lo; !s.hi.Less(a); a = a.Next() {
				users[a]++
				twice = twice || users[a] > 1
			}
		}
		v := &validator{report: &report{}, c: c}
		v.snatOverlaps()
		if twice != (len(v.errors) > 0) {
			t.Fatalf("%v: got %v", c.snat, v.errors)
		}
		found += len(v.errors)
	}
	if found == 0 {
		t.Error("no case had an overlap")
	}
}

// TestKeepOracle compares with listing where each port of each VIP goes: there
// is a report if and only if two of them go to the same port of a backend.
func TestKeepOracle(t *testing.T) {
	type origin struct {
		service int
		vip     netip.Addr
		port    uint16
	}
	type target struct {
		backend netip.Addr
		proto   Proto
		port    uint16
	}
	address := func(v6 bool, last int) netip.Addr {
		if v6 {
			return netip.AddrFrom16([16]byte{0xfd, 15: byte(last)})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(last)})
	}
	random := rand.New(rand.NewPCG(5, 6))
	some := func() bool { return random.IntN(2) == 0 }
	var agreed [2]int
	for range 5000 {
		c := &Config{}
		for i := range 1 + random.IntN(3) {
			s := Service{Mode: ModeNAT, ClientAddress: ClientKeep}
			if random.IntN(4) == 0 {
				s.ClientAddress = ClientSNAT
			}
			for _, v6 := range []bool{false, true}[:1+random.IntN(2)] {
				for n := range 1 + random.IntN(8)/7 {
					s.Addresses = append(s.Addresses, address(v6, 100+10*i+n))
				}
				for _, n := range random.Perm(6)[:1+random.IntN(2)] {
					s.Backends = append(s.Backends, Backend{Address: address(v6, n), Port: uint16(random.IntN(4) * random.IntN(2))})
				}
			}
			for range 1 + random.IntN(2) {
				p := Port{Proto: TCP, Lo: uint16(1 + random.IntN(8))}
				p.Hi = p.Lo + uint16(random.IntN(6)/4)
				if some() {
					p.Proto = UDP
				}
				s.Ports = append(s.Ports, p)
			}
			c.Services = append(c.Services, s)
		}
		users := make(map[target]origin)
		collide := false
		for i, s := range c.Services {
			if s.ClientAddress != ClientKeep {
				continue
			}
			for _, vip := range s.Addresses {
				for _, p := range s.Ports {
					for port := p.Lo; port <= p.Hi; port++ {
						for _, b := range s.Backends {
							if b.Address.Is4() != vip.Is4() {
								continue
							}
							to, from := target{b.Address, p.Proto, port}, origin{i, vip, port}
							if b.Port != 0 {
								to.port = b.Port
							}
							if other, ok := users[to]; ok && other != from {
								collide = true
							}
							users[to] = from
						}
					}
				}
			}
		}
		v := &validator{report: &report{}, c: c}
		v.keeps()
		if collide != (len(v.errors) > 0) {
			t.Fatalf("%+v: collide %v, got %v", c.Services, collide, v.errors)
		}
		if collide {
			agreed[1]++
		} else {
			agreed[0]++
		}
	}
	if slices.Min(agreed[:]) < 100 {
		t.Errorf("the cases are one-sided: %v", agreed)
	}
}

// TestSNATBomb has as many addresses as fit into one entry, very often.
func TestSNATBomb(t *testing.T) {
	text := "interfaces: [{name: eth1}]\nnat: {addresses: [&a fd00::/116" + strings.Repeat(", *a", 200_000) + "]}\n"
	_, _, err := Parse("bomb.yaml", []byte(text), &Host{Interfaces: []string{"eth1"}})
	errs, _ := err.(Errors)
	if len(errs) == 0 || errs[0].Path != "nat" {
		t.Errorf("%d errors: %.300v", len(errs), err)
	}
}

// TestKeepPairs has more pairs of backend and port than are looked at.
func TestKeepPairs(t *testing.T) {
	c := &Config{}
	for range 2 {
		s := Service{Mode: ModeNAT, ClientAddress: ClientKeep, Ports: make([]Port, 1024)}
		for i := range 1024 {
			s.Backends = append(s.Backends, Backend{Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})})
		}
		c.Services = append(c.Services, s)
	}
	v := &validator{report: &report{}, c: c}
	v.keeps()
	if len(v.errors) != 1 || v.errors[0].Path != "services[1]" || !strings.Contains(v.errors[0].Problem, "more than 1048576 pairs") {
		t.Errorf("got %v", v.errors)
	}
}

// TestCheckPort: a check goes to its own port, the backend's, or the service's.
func TestCheckPort(t *testing.T) {
	for health, want := range map[string][2]uint16{
		"{tcp: {}}":                           {8443, 443},
		"{http: {}}":                          {8443, 443},
		"{tcp: {port: 7000}}":                 {7000, 7000},
		"{http: {port: 7001}}":                {7001, 7001},
		"{tcp: {}, timeout: 1s}":              {8443, 443},
		"{grpc: {}}":                          {8443, 443},
		"{udp: {send: x}}":                    {8443, 444},
		"{udp: {send: x, port: 9}}":           {9, 9},
		"{dns: {name: example.com}}":          {8443, 444},
		"{dns: {name: example.com, port: 5}}": {5, 5},
		"{icmp: {}}":                          {0, 0},

		"{dns: {name: example.com, transport: tcp}}": {8443, 443},
	} {
		c := parse(t, `
interfaces: [{name: eth1}]
nat: {addresses: [10.0.0.240]}
services:
  - name: web
    addresses: [192.0.2.1]
    ports: [udp/444, tcp/443]
    mode: nat
    health: `+health+`
    backends: [{address: 10.0.0.1, port: 8443}, {address: 10.0.0.2}]
`)
		s := &c.Services[0]
		if got := [2]uint16{s.Backends[0].CheckPort, s.Backends[1].CheckPort}; got != want {
			t.Errorf("%s: checks go to %v, want %v", health, got, want)
		}
		if !s.Checked(&s.Backends[0]) || !s.Checked(&s.Backends[1]) {
			t.Errorf("%s: backends do not count as checked", health)
		}
	}
	if s := (&Service{}); s.Checked(&Backend{}) {
		t.Error("without a check, a backend is checked")
	}
}

// TestMetricsPort: the metrics listener may not be where weir takes packets.
func TestMetricsPort(t *testing.T) {
	for listen, collides := range map[string]bool{
		":50000": true, "0.0.0.0:50100": true, "[::]:50199": true, "10.0.0.2:50000": true,
		":49999": false, ":50200": false, "127.0.0.1:50000": false, "10.0.0.3:50000": false, "localhost:50000": false,
	} {
		_, _, err := Parse("test.yaml", []byte(`
interfaces: [{name: eth1}]
api: {metrics: "`+listen+`"}
nat: {shared: {addresses: [10.0.0.2], ports: 50000-50199}}
services: []
`), nil)
		if (err != nil) != collides || err != nil && !strings.HasPrefix(err.Error(), "test.yaml:3: api.metrics: has port 50") {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

// TestDNSPort: a query goes to the first port of the service of its transport.
func TestDNSPort(t *testing.T) {
	for ports, want := range map[string][2]uint16{ // by UDP and TCP
		"udp/5353":              {5353, 53},
		"tcp/853, tcp/5353":     {53, 853},
		"tcp/54, udp/5300-5301": {5300, 54},
		"udp/*, tcp/*":          {53, 53},
	} {
		for i, transport := range []string{"udp", "tcp"} {
			c := parse(t, `
interfaces: [{name: eth1}]
services:
  - name: dns
    addresses: [192.0.2.1]
    ports: [`+ports+`]
    health: {dns: {name: example.com, transport: `+transport+`}}
    backends: [{address: 10.0.0.1}]
`)
			if got := c.Services[0].Backends[0].CheckPort; got != want[i] || c.Services[0].Health.DNS.Port != got {
				t.Errorf("[%s] by %s: checks go to %d, want %d", ports, transport, got, want[i])
			}
		}
	}
}
