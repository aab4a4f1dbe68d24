// Package netaddr stands in for the module of this path, which cannot be had everywhere,
// where setup.sh builds containerlab.
//
// The problem it solves: a library for templates that containerlab uses offers functions
// about addresses, and takes their types from inet.af/netaddr. The standard library's
// net/netip came out of that module and does the same. What the library uses of it and
// nothing else is here, written for weir.
package netaddr

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// IP is an address of either family.
type IP = netip.Addr

// IPPrefix is an address and how many of its bits are the network's.
type IPPrefix struct{ netip.Prefix }

// IPRange is all addresses from one to another, both included.
type IPRange struct{ from, to IP }

// ParseIP reads "192.0.2.1" or "2001:db8::1%eth0".
func ParseIP(s string) (IP, error) { return netip.ParseAddr(s) }

// ParseIPPrefix reads "192.0.2.1/24" and keeps the bits of the host.
func ParseIPPrefix(s string) (IPPrefix, error) {
	p, err := netip.ParsePrefix(s)
	return IPPrefix{p}, err
}

// ParseIPRange reads "192.0.2.1-192.0.2.9".
func ParseIPRange(s string) (IPRange, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return IPRange{}, fmt.Errorf("parse range %q: no hyphen in it", s)
	}
	from, err := ParseIP(first)
	if err != nil {
		return IPRange{}, fmt.Errorf("parse range %q: %w", s, err)
	}
	to, err := ParseIP(last)
	if err != nil {
		return IPRange{}, fmt.Errorf("parse range %q: %w", s, err)
	}
	if from.BitLen() != to.BitLen() || from.Zone() != "" || to.Zone() != "" || to.Less(from) {
		return IPRange{}, fmt.Errorf("parse range %q: want two addresses of one family, the lower one first", s)
	}
	return IPRange{from, to}, nil
}

// FromStdIP says whether it is an address at all. An IPv4 address in the form of an
// IPv6 address is taken for what it is.
func FromStdIP(std net.IP) (IP, bool) {
	ip, ok := netip.AddrFromSlice(std)
	return ip.Unmap(), ok
}

// FromStdIPNet says whether address and mask belong together and the mask is one of
// leading ones.
func FromStdIPNet(std *net.IPNet) (IPPrefix, bool) {
	ip, ok := FromStdIP(std.IP)
	ones, bits := std.Mask.Size()
	if !ok || bits != ip.BitLen() {
		return IPPrefix{}, false
	}
	return IPPrefix{netip.PrefixFrom(ip, ones)}, true
}

// Masked returns the prefix with the bits of the host cleared.
func (p IPPrefix) Masked() IPPrefix { return IPPrefix{p.Prefix.Masked()} }

// IPNet returns it as net has it.
func (p IPPrefix) IPNet() *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// From returns the first address of the range.
func (r IPRange) From() IP { return r.from }

// To returns the last address of the range.
func (r IPRange) To() IP { return r.to }

func (r IPRange) String() string { return r.from.String() + "-" + r.to.String() }
