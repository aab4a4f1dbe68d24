package nexthop

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BenchmarkPass measures a pass over 5,000 backends on the link, each with its
// own neighbour entry: one that asks for every route, and one after a change
// of a neighbour.
func BenchmarkPass(b *testing.B) {
	const backends = 5000
	k := newFake()
	s := newState(slog.New(slog.DiscardHandler))
	var addrs []netip.Addr
	addr := netip.MustParseAddr("10.1.0.1")
	for range backends {
		addrs = append(addrs, addr)
		addr = addr.Next()
	}
	k.routes = map[netip.Prefix]route{netip.MustParsePrefix("10.1.0.0/16"): {kind: unix.RTN_UNICAST, ifindex: 3}}
	s.setTargets(addrs)
	for _, name := range []string{"ask all", "neighbour"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if name == "ask all" {
					s.askAll()
				}
				k.lookups = k.lookups[:0]
				if _, err := s.pass(k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkKernelRoute measures one lookup in the real kernel.
func BenchmarkKernelRoute(b *testing.B) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	k := &rtnetlink{requests: h}
	for b.Loop() {
		if _, err := k.Route(netip.MustParseAddr("127.0.0.1")); err != nil {
			b.Fatal(err)
		}
	}
}
