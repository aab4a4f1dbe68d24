// Package world has the addresses that everything that is measured agrees on.
//
// The problem it solves: a loop, weir and what it is compared with are to be
// given the same packets, and each of them takes only those that it is told of.
package world

import (
	"net/netip"

	"weir/dataplane/packet"
)

// The one service: two VIPs, on this port, which is that of the discard protocol
// (RFC 863).
var (
	VIP4 = netip.AddrFrom4([4]byte{203, 0, 113, 10})
	VIP6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10})
)

// Port is the service's.
const Port = 9

// VIP returns where traffic of an IP version goes.
func VIP(ipv6 bool) netip.AddrPort {
	if ipv6 {
		return netip.AddrPortFrom(VIP6, Port)
	}
	return netip.AddrPortFrom(VIP4, Port)
}

// Here is the address of what is measured, where it needs one of its own: the
// source of its tunnels.
func Here(ipv6 bool) netip.Addr {
	if ipv6 {
		return network6(2)
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, 2})
}

// Backends is how many backends there are.
const Backends = 8

// Backend returns the address of the n-th backend, from 0 on, and its MAC address.
func Backend(n int, ipv6 bool) (netip.Addr, packet.MAC) {
	mac := packet.MAC{2, 0, 0, 0, 1, byte(n)}
	if ipv6 {
		return network6(uint16(10 + n)), mac
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)}), mac
}

// SNAT returns the n-th address that backends may see clients as, from 0 on.
func SNAT(n int, ipv6 bool) netip.Addr {
	if ipv6 {
		return network6(uint16(0x1000 + n))
	}
	return netip.AddrFrom4([4]byte{10, 0, 1, byte(n)})
}

// network6 is in the network of the backends.
func network6(host uint16) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, byte(host >> 8), byte(host)})
}
