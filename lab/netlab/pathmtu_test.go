package netlab

import (
	"errors"
	"net/netip"
	"testing"
)

// TestPathMTU checks that what a router says of its next link is seen.
func TestPathMTU(t *testing.T) {
	lab := newLab(t)
	near, router, far := must(lab.Host("near"))(t), must(lab.Host("router"))(t), must(lab.Host("far"))(t)
	check(t, near.ConnectTo(router,
		Iface{Name: "eth0", Addrs: prefixes("10.9.0.1/24", "fd09::1/64")},
		Iface{Name: "eth0", Addrs: prefixes("10.9.0.2/24", "fd09::2/64")}))
	check(t, router.ConnectTo(far,
		Iface{Name: "eth1", MTU: 1300, Addrs: prefixes("10.9.1.2/24", "fd09:1::2/64")},
		Iface{Name: "eth0", MTU: 1300, Addrs: prefixes("10.9.1.1/24", "fd09:1::1/64")}))
	for _, r := range []struct {
		host      *Host
		to4, via4 string
		to6, via6 string
	}{
		{near, "10.9.1.0/24", "10.9.0.2", "fd09:1::/64", "fd09::2"},
		{far, "10.9.0.0/24", "10.9.1.2", "fd09::/64", "fd09:1::2"},
	} {
		check(t, r.host.AddRoute(netip.MustParsePrefix(r.to4), netip.MustParseAddr(r.via4)))
		check(t, r.host.AddRoute(netip.MustParsePrefix(r.to6), netip.MustParseAddr(r.via6)))
	}
	check(t, errors.Join(
		router.Sysctl("net.ipv4.ip_forward", "1"),
		router.Sysctl("net.ipv6.conf.all.forwarding", "1")))
	for _, addr := range []string{"10.9.1.1", "fd09:1::1"} {
		to := netip.MustParseAddr(addr)
		reach(t, near, addr)
		for _, want := range []int{1500, 1300} {
			if got, err := near.PathMTU(to); err != nil || got != want {
				t.Errorf("path MTU to %s is %d (%v), want %d", to, got, err, want)
			}
			conn, err := near.DialContext(t.Context(), "udp", netip.AddrPortFrom(to, 9).String())
			check(t, err)
			_, err = conn.Write(make([]byte, 1400)) // the second is fragmented
			check(t, err)
			// When this one is answered, the router has said what it had to.
			reach(t, near, addr)
			conn.Close()
		}
	}
}
