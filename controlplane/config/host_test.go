package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func own(prefixes ...string) (all []netip.Prefix) {
	for _, p := range prefixes {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestParseOnHost(t *testing.T) {
	const text = `interfaces:
  - {name: eth1, cpus: [0, 1]}
  - {name: eth7, cpus: [2]}
services:
  - name: web
    addresses: [192.0.2.1, "2001:db8::1"]
    ports: [tcp/80]
    backends:
      - {address: 10.0.0.1}
      - {address: 10.0.0.2}
      - {address: "2001:db8:2::1"}
`
	check := func(host Host) error {
		_, _, err := Parse("test.yaml", []byte(text), &host)
		return err
	}
	fits := Host{
		Interfaces: []string{"lo", "eth1", "eth7"},
		Addresses:  own("127.0.0.1/8", "10.0.0.9/24", "fe80::1/64"),
		CPUs:       []int{0, 1, 2, 3},
	}
	if errs := check(fits); errs != nil {
		t.Errorf("on a host that fits:\n%v", errs)
	}
	fits.CPUs = nil
	if errs := check(fits); errs != nil {
		t.Errorf("on a host of unknown CPUs:\n%v", errs)
	}

	got := check(Host{
		Interfaces: []string{"lo", "eth1"},
		Addresses:  own("10.0.0.2/24", "::ffff:192.0.2.1/120", "2001:db8::1/64"),
		CPUs:       []int{0, 2},
	}).Error()
	const want = `test.yaml:2: interfaces[0].cpus[1]: weir may not run on cpu 1; want one of 0, 2
test.yaml:3: interfaces[1].name: unknown interface eth7; this box has lo, eth1
test.yaml:6: services[0].addresses[0]: VIP 192.0.2.1 is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it
test.yaml:6: services[0].addresses[1]: VIP 2001:db8::1 is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it
test.yaml:10: services[0].backends[1].address: 10.0.0.2 is the box's own address; want that of another machine`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}

	// A mistake in the text does not hide what does not fit the host.
	mistaken := strings.Replace(text, "tcp/80", "tcp/http", 1)
	_, _, err := Parse("test.yaml", []byte(mistaken), &Host{Interfaces: []string{"lo", "eth1"}, CPUs: []int{0, 1, 2}})
	if errs, _ := err.(Errors); len(errs) != 2 || errs[0].Line != 3 || errs[1].Line != 7 {
		t.Errorf("one mistake in the text and one on the host gave:\n%v", err)
	}
}

// TestHost has one fact of the box at a time that a file does not fit.
func TestHost(t *testing.T) {
	const gib = 1 << 30
	file := func(more string) string {
		return `interfaces: [{name: eth1}]
services:
  - name: web
    addresses: [192.0.2.0, 192.0.2.255, 192.0.2.63]
    ports: [tcp/80]
    mode: ipip
    backends: [{address: 10.0.0.1}]
` + more
	}
	prefixes := file("ipip: {source_prefix: 172.16.0.0/16, source_prefix6: \"2001:db8:9::/64\"}\n")
	snat := func(nat string) string {
		return strings.Replace(file("nat:\n  "+nat+"\n"), "mode: ipip", "mode: nat", 1)
	}
	for _, tc := range []struct {
		name, text string
		host       Host
		want       []string
	}{
		{"loopback", file(""), Host{Interfaces: []string{"lo", "eth1", "eth0", "tun0"}, NotEthernet: []string{"eth1", "lo", "tun0"}}, []string{
			"test.yaml:1: interfaces[0].name: eth1 is a loopback or tunnel, or else not Ethernet; want an interface with a MAC address, this box has eth0",
		}},
		{"no Ethernet at all", file(""), Host{Interfaces: []string{"eth1"}, NotEthernet: []string{"eth1"}}, []string{
			"test.yaml:1: interfaces[0].name: eth1 is a loopback or tunnel, or else not Ethernet; want an interface with a MAC address, this box has none",
		}},
		{"ends of a /24", file(""), Host{Addresses: own("192.0.2.7/24")}, []string{
			"test.yaml:4: services[0].addresses[0]: VIP 192.0.2.0 is the network address of 192.0.2.0/24, which this box is in; want another address",
			"test.yaml:4: services[0].addresses[1]: VIP 192.0.2.255 is the broadcast address of 192.0.2.0/24, which this box is in; want another address",
		}},
		{"end of a /26", file(""), Host{Addresses: own("192.0.2.62/26", "198.51.100.9/24")}, []string{
			"test.yaml:4: services[0].addresses[0]: VIP 192.0.2.0 is the network address of 192.0.2.0/26, which this box is in; want another address",
			"test.yaml:4: services[0].addresses[2]: VIP 192.0.2.63 is the broadcast address of 192.0.2.0/26, which this box is in; want another address",
		}},
		{"a /30 has ends", file(""), Host{Addresses: own("192.0.2.62/30")}, []string{
			"test.yaml:4: services[0].addresses[2]: VIP 192.0.2.63 is the broadcast address of 192.0.2.60/30, which this box is in; want another address",
		}},
		{"a /31 and a /32 have none", file(""), Host{Addresses: own("192.0.2.1/31", "192.0.2.62/31", "192.0.2.254/32")}, nil},
		{"own address in the source prefixes", prefixes, Host{Addresses: own("10.9.9.9/8", "172.16.3.1/12", "172.16.3.2/12", "2001:db8:9::1/64")}, []string{
			"test.yaml:8: warning: ipip.source_prefix: 172.16.0.0/16 contains the box's own address 172.16.3.1, so that tunnelled packets can seem to be the box's own; better is a prefix that nothing else has addresses in",
			"test.yaml:8: warning: ipip.source_prefix6: 2001:db8:9::/64 contains the box's own address 2001:db8:9::1, so that tunnelled packets can seem to be the box's own; better is a prefix that nothing else has addresses in",
		}},
		{"own address elsewhere", prefixes, Host{Addresses: own("172.17.3.1/12", "2001:db8:8::1/64")}, nil},
		{"flows of a small box", file(""), Host{Memory: 64 << 20}, []string{
			"test.yaml:1: flows.entries: 1048576 entries for each of at least 1 workers take 72 MiB, but this box has 64 MiB of memory; want at most 524288",
		}},
		{"flows that just fit", file(""), Host{Memory: 72 << 20}, nil},
		{"flows are rounded up", file("flows: {entries: 1048577}\n"), Host{Memory: 100 << 20}, []string{
			"test.yaml:8: flows.entries: 1048577 entries for each of at least 1 workers take 144 MiB, but this box has 100 MiB of memory; want at most 1048576",
		}},
		{"flows of many workers", strings.Replace(file("flows: {entries: 33554432}\n"), "eth1}", "eth1, queues: 3}, {name: eth2}", 1), Host{Memory: 8 * gib, Interfaces: []string{"eth1", "eth2"}}, []string{
			"test.yaml:8: flows.entries: 33554432 entries for each of at least 4 workers take 9216 MiB, but this box has 8192 MiB of memory; want at most 16777216",
		}},
		{"flows with the index of mode nat", snat("addresses: [10.0.0.240]"), Host{Memory: 87 << 20}, []string{
			"test.yaml:1: flows.entries: 1048576 entries for each of at least 1 workers take 88 MiB, but this box has 87 MiB of memory; want at most 524288",
		}},
		{"SNAT addresses of its own", snat("addresses: [10.0.0.240/30, 10.0.0.9]"), Host{Addresses: own("10.0.0.241/32", "10.0.0.9/32")}, []string{
			"test.yaml:9: nat.addresses[0]: 10.0.0.241 is the box's own address; want addresses that are weir's alone, or list it under nat.shared.addresses with the ports that weir may have of it",
			"test.yaml:9: nat.addresses[1]: 10.0.0.9 is the box's own address; want addresses that are weir's alone, or list it under nat.shared.addresses with the ports that weir may have of it",
		}},
		{"SNAT addresses at the ends of its network", snat("addresses: [10.0.0.248-10.0.1.1, 10.0.2.0]"), Host{Addresses: own("10.0.0.2/24", "10.0.2.2/24")}, []string{
			"test.yaml:9: nat.addresses[0]: 10.0.0.255 is the broadcast address of 10.0.0.0/24, which this box is in; want other addresses",
			"test.yaml:9: nat.addresses[1]: 10.0.2.0 is the network address of 10.0.2.0/24, which this box is in; want other addresses",
		}},
		{"SNAT addresses in its network", snat("addresses: [10.0.0.240/30]"), Host{Addresses: own("10.0.0.2/24")}, nil},
		{"shared addresses of its own", snat("shared: {addresses: [10.0.0.2], ports: 50000-59999}"), Host{Addresses: own("10.0.0.2/24")}, nil},
		{"shared addresses of nobody", snat("shared: {addresses: [10.0.0.2, \"fd00::2\"], ports: 50000-59999}"), Host{Addresses: own("10.0.0.3/24")}, []string{
			"test.yaml:9: nat.shared.addresses[0]: 10.0.0.2 is not an address of this box; want one that is, or list it under nat.addresses",
			"test.yaml:9: nat.shared.addresses[1]: fd00::2 is not an address of this box; want one that is, or list it under nat.addresses",
		}},
		{"pools with addresses of the box and its networks", file("pools:\n  - {name: a, addresses: [10.0.0.2-10.0.0.255, 10.0.1.0/24, \"2001:db8::/64\"]}\n  - {name: b, addresses: [10.0.2.0/25, 10.0.3.128/25], avoid_buggy_ips: true}\n"), Host{Addresses: own("10.0.0.2/24", "10.0.1.255/24", "10.0.2.130/24", "10.0.4.1/22", "10.0.3.254/25", "2001:db8::7/64")}, []string{
			"test.yaml:9: pools[0].addresses[0]: 10.0.0.2-10.0.0.255 of pool a contains 10.0.0.2, the box's own address; want ranges without it",
			"test.yaml:9: pools[0].addresses[1]: 10.0.1.0/24 of pool a contains 10.0.1.255, the box's own address; want ranges without it",
			"test.yaml:9: pools[0].addresses[2]: 2001:db8::/64 of pool a contains 2001:db8::7, the box's own address; want ranges without it",
			"test.yaml:10: pools[1].addresses[1]: 10.0.3.128/25 of pool b contains 10.0.3.254, the box's own address; want ranges without it",
		}},
		{"pools at the ends of its networks", file("pools:\n  - {name: a, addresses: [10.0.0.0, 10.0.0.250-10.0.0.255, 10.0.1.63]}\n"), Host{Addresses: own("10.0.0.99/24", "10.0.1.2/26")}, []string{
			"test.yaml:9: pools[0].addresses[0]: 10.0.0.0 of pool a contains 10.0.0.0, the network address of 10.0.0.0/24, which this box is in; want ranges without it, or avoid_buggy_ips: true",
			"test.yaml:9: pools[0].addresses[1]: 10.0.0.250-10.0.0.255 of pool a contains 10.0.0.255, the broadcast address of 10.0.0.0/24, which this box is in; want ranges without it, or avoid_buggy_ips: true",
			"test.yaml:9: pools[0].addresses[2]: 10.0.1.63 of pool a contains 10.0.1.63, the broadcast address of 10.0.1.0/26, which this box is in; want ranges without it",
		}},
		{"speakers at addresses of others", file("cluster: {bind: 10.0.0.3, peers: [10.0.0.4], key: \"MDEyMzQ1Njc4OWFiY2RlZg==\"}\nbgp: {asn: 1, listen: 10.0.0.5:179, peers: [{address: 10.0.0.1, asn: 1, source: 10.0.0.6}]}\n"), Host{Addresses: own("10.0.0.2/24")}, []string{
			"test.yaml:8: cluster.bind: 10.0.0.3 is not an address of this box; want one that is, or remove it, and the box chooses",
			"test.yaml:9: bgp.listen: 10.0.0.5 is not an address of this box; want one that is, or remove it, and the box chooses",
			"test.yaml:9: bgp.peers[0].source: 10.0.0.6 is not an address of this box; want one that is, or remove it, and the box chooses",
			"test.yaml:9: warning: bgp: no pool and no service has bgp in announce; nothing is announced",
		}},
		{"speakers at its own", file("cluster: {bind: 10.0.0.2, advertise: 10.9.9.9, peers: [10.0.0.4], key: \"MDEyMzQ1Njc4OWFiY2RlZg==\"}\nbgp: {asn: 1, listen: 0.0.0.0:179, peers: [{address: 10.0.0.1, asn: 1, source: 10.0.0.2}]}\n"), Host{Addresses: own("10.0.0.2/24")}, []string{
			"test.yaml:9: warning: bgp: no pool and no service has bgp in announce; nothing is announced",
		}},
		{"flows that are no number", file("flows: {entries: all}\n"), Host{Memory: 1}, []string{
			"test.yaml:8: flows.entries: is \"all\"; want a whole number from 1024 to 268435456",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.host.Interfaces == nil {
				tc.host.Interfaces = []string{"eth1"}
			}
			_, warnings, err := Parse("test.yaml", []byte(tc.text), &tc.host)
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			for _, w := range warnings {
				got = append(got, w.Error())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}
