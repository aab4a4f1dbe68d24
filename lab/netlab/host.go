package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostSettings make every host the same whatever machine it runs on (a new
// namespace inherits IPv4 settings), and ready at once: no waiting for IPv6
// duplicate address detection, no router to listen for. The meaning of each is
// in the kernel's Documentation/networking/ip-sysctl.rst.
var hostSettings = []setting{
	{"net.ipv4.ip_forward", "0"}, // first: it resets others
	{"net.ipv6.conf.all.forwarding", "0"},
	{"net.ipv4.conf.all.rp_filter", "0"},
	{"net.ipv4.conf.default.rp_filter", "0"},
	{"net.ipv4.conf.all.arp_ignore", "0"},
	{"net.ipv4.conf.all.arp_announce", "0"},
	{"net.ipv4.ping_group_range", "0 2147483647"},
	{"net.ipv6.conf.all.disable_ipv6", "0"},
	{"net.ipv6.conf.default.disable_ipv6", "0"},
	{"net.ipv6.conf.all.accept_dad", "0"},
	{"net.ipv6.conf.default.accept_dad", "0"},
	{"net.ipv6.conf.default.dad_transmits", "0"},
	{"net.ipv6.conf.all.accept_ra", "0"},
	{"net.ipv6.conf.default.accept_ra", "0"},
	{"net.ipv6.conf.all.keep_addr_on_down", "1"},
	{"net.ipv6.conf.default.keep_addr_on_down", "1"},
}

// Host is one machine of a lab: a network namespace with lo up, IPv6 duplicate
// address detection and reverse-path filter off, router advertisements not
// accepted, and forwarding off.
type Host struct {
	name string
	lab  *Lab
	ns   *namespace
}

// Host adds a host. The name, of a-z, 0-9, _ and -, is unique within the lab.
func (l *Lab) Host(name string) (*Host, error) {
	ns, err := l.namespace(name, hostSettings)
	if err != nil {
		return nil, fmt.Errorf("new host %s: %w", name, err)
	}
	return &Host{name: name, lab: l, ns: ns}, nil
}

// Name returns the host's name within the lab.
func (h *Host) Name() string { return h.name }

// Namespace returns the name under which ip-netns(8) knows the host.
func (h *Host) Namespace() string { return h.ns.name }

// Do runs f on an operating-system thread inside the host's namespace and
// returns its error. Sockets that f opens stay in the namespace for good;
// goroutines that f starts do not run in it. The thread ends with f.
//
// f runs in a goroutine of its own, so it may not call t.Fatal and the like.
// In f, /proc/sys/net and /proc/thread-self/net are the host's, while /proc/net
// and /sys are still the machine's; a process that [Host.Start] runs sees the
// host's everywhere.
func (h *Host) Do(f func() error) error { return h.wrap("do", h.ns.do(f)) }

// wrap puts host and operation before an error.
func (h *Host) wrap(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("host %s: %s: %w", h.name, operation, err)
}

// withLink runs f inside the namespace with the interface of that name.
func (h *Host) withLink(operation, name string, f func(netlink.Link) error) error {
	err := h.ns.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return f(link)
	})
	return h.wrap(operation, err)
}

// AddAddr gives the interface an address, for IPv6 without duplicate address
// detection.
func (h *Host) AddAddr(name string, addr netip.Prefix) error {
	return h.withLink(fmt.Sprintf("add address %s to %s", addr, name), name, func(link netlink.Link) error {
		return netlink.AddrAdd(link, address(addr))
	})
}

// DelAddr takes an address from the interface.
func (h *Host) DelAddr(name string, addr netip.Prefix) error {
	return h.withLink(fmt.Sprintf("delete address %s from %s", addr, name), name, func(link netlink.Link) error {
		return netlink.AddrDel(link, address(addr))
	})
}

// AddRoute adds a route to the prefix through a gateway that is reachable
// directly. A route to the same prefix is replaced.
func (h *Host) AddRoute(prefix netip.Prefix, via netip.Addr) error {
	err := h.ns.do(func() error {
		return netlink.RouteReplace(&netlink.Route{Dst: ipNet(prefix), Gw: via.AsSlice()})
	})
	return h.wrap(fmt.Sprintf("add route %s via %s", prefix, via), err)
}

// DelRoute deletes the route to the prefix through the gateway.
func (h *Host) DelRoute(prefix netip.Prefix, via netip.Addr) error {
	err := h.ns.do(func() error {
		return netlink.RouteDel(&netlink.Route{Dst: ipNet(prefix), Gw: via.AsSlice()})
	})
	return h.wrap(fmt.Sprintf("delete route %s via %s", prefix, via), err)
}

// AddNeigh adds a permanent ARP or NDP entry; one for the same address is
// replaced.
func (h *Host) AddNeigh(addr netip.Addr, mac net.HardwareAddr, dev string) error {
	return h.withLink(fmt.Sprintf("add neighbour %s %s on %s", addr, mac, dev), dev, func(link netlink.Link) error {
		return netlink.NeighSet(neighbour(addr, mac, link))
	})
}

// DelNeigh deletes the ARP or NDP entry of an address, permanent or learned.
func (h *Host) DelNeigh(addr netip.Addr, dev string) error {
	return h.withLink(fmt.Sprintf("delete neighbour %s on %s", addr, dev), dev, func(link netlink.Link) error {
		return netlink.NeighDel(neighbour(addr, nil, link))
	})
}

// Sysctl writes a setting below net, in the host only. The key is written with
// dots, or with slashes where an interface's name has a dot in it (sysctl(8)).
func (h *Host) Sysctl(key, value string) error {
	return h.wrap("set", h.ns.sysctl(key, value))
}

// ServeVIP makes the host accept packets for a VIP that reach it by direct
// server return, and keep quiet about it: the address goes on lo, and the host
// answers ARP only for addresses of the interface asked, and asks only from
// these (arp_ignore and arp_announce, ip-sysctl.rst). IPv6 needs no setting:
// the kernel answers a neighbour solicitation only for addresses of the
// interface it came in by.
func (h *Host) ServeVIP(vip netip.Addr) error {
	for _, s := range []setting{
		{"net.ipv4.conf.all.arp_ignore", "1"},
		{"net.ipv4.conf.all.arp_announce", "2"},
	} {
		if err := h.ns.sysctl(s.key, s.value); err != nil {
			return h.wrap(fmt.Sprintf("serve vip %s", vip), err)
		}
	}
	return h.AddAddr("lo", netip.PrefixFrom(vip, vip.BitLen()))
}

// UnserveVIP takes the VIP from lo again.
func (h *Host) UnserveVIP(vip netip.Addr) error {
	err := h.DelAddr("lo", netip.PrefixFrom(vip, vip.BitLen()))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return h.wrap("unserve vip", fmt.Errorf("%s is not served", vip))
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func address(p netip.Prefix) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

func neighbour(addr netip.Addr, mac net.HardwareAddr, link netlink.Link) *netlink.Neigh {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	return &netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       family,
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: mac,
	}
}
