package netlab

import (
	"errors"
	"os"
)

// forwardSettings make a router (Documentation/networking/ip-sysctl.rst). It
// reports as often as there is something to report, so that no test depends on
// what one before it has caused.
var forwardSettings = []setting{
	{"net.ipv4.ip_forward", "1"},
	{"net.ipv6.conf.all.forwarding", "1"},
	{"net.ipv4.icmp_ratelimit", "0"},
	{"net.ipv6.icmp.ratelimit", "0"},
}

// spreadSettings exist only in a kernel with CONFIG_IP_ROUTE_MULTIPATH.
var spreadSettings = []setting{
	{"net.ipv4.fib_multipath_hash_policy", "1"},
	{"net.ipv6.fib_multipath_hash_policy", "1"},
}

// Forward makes the host a router for IPv4 and IPv6. Where a route has several
// next hops, addresses and ports of a flow decide which one it takes.
func (h *Host) Forward() error {
	for _, s := range forwardSettings {
		if err := h.ns.sysctl(s.key, s.value); err != nil {
			return h.wrap("forward", err)
		}
	}
	for _, s := range spreadSettings {
		if err := h.ns.sysctl(s.key, s.value); err != nil && !errors.Is(err, os.ErrNotExist) {
			return h.wrap("forward", err)
		}
	}
	return nil
}
