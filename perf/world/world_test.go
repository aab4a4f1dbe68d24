package world

import (
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/perf/generator"
)

// Nobody has an address of anybody else, nor of a client.
func TestAddresses(t *testing.T) {
	seen := make(map[netip.Addr]bool)
	macs := make(map[packet.MAC]bool)
	add := func(a netip.Addr, ipv6 bool) {
		t.Helper()
		if seen[a] || a.Is6() != ipv6 || generator.FlowSources().Contains(a) || generator.FlowSourcesIPv6().Contains(a) {
			t.Errorf("%s is taken, or of the wrong kind", a)
		}
		seen[a] = true
	}
	for _, ipv6 := range []bool{false, true} {
		add(VIP(ipv6).Addr(), ipv6)
		add(Here(ipv6), ipv6)
		for n := range Backends {
			a, mac := Backend(n, ipv6)
			add(a, ipv6)
			macs[mac] = true
		}
		for n := range 256 {
			add(SNAT(n, ipv6), ipv6)
		}
	}
	if len(macs) != Backends {
		t.Errorf("%d MAC addresses of %d backends", len(macs), Backends)
	}
}
