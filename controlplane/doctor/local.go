package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/nexthop"
)

// What this box's kernel knows, asked anew: the hop that weir goes by may be about
// to change.

// link looks at the interface that frames leave by, or, when no route says which,
// at all of weir's.
func (e *examination) link(context.Context) []Diagnosis {
	names := e.subject.Interfaces
	if e.subject.Hop.Interface != "" {
		names = []string{e.subject.Hop.Interface}
	}
	var faults []Diagnosis
	for _, name := range names {
		if fault, bad := linkFault(name); bad {
			faults = append(faults, fault)
		}
	}
	list := strings.Join(names, ", ")
	switch {
	case len(names) == 0:
		return []Diagnosis{skipped(Link, "weir has no interface")}
	case len(faults) == len(names):
		return faults[:1]
	case len(faults) > 0:
		return []Diagnosis{warn(Link, faults[0].Text, faults[0].Fix)}
	}
	return []Diagnosis{ok(Link, "%s up, with carrier", list)}
}

func linkFault(name string) (Diagnosis, bool) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fail(Link, fmt.Sprintf("interface %s: %v", name, err), `"ip link" lists those there are; put one of them under interfaces`), true
	}
	switch flags := link.Attrs().RawFlags; {
	case flags&unix.IFF_UP == 0:
		return fail(Link, fmt.Sprintf("%s is down", name), fmt.Sprintf("ip link set %s up", name)), true
	case flags&unix.IFF_RUNNING == 0:
		return fail(Link, fmt.Sprintf("%s has no carrier", name),
			fmt.Sprintf("check its cable and the switch's port; ethtool %s", name)), true
	}
	return Diagnosis{}, false
}

// route asks for the kernel's way to the backend.
func (e *examination) route(context.Context) []Diagnosis {
	s := &e.subject
	found, err := netlink.RouteGet(s.Backend.AsSlice())
	if err == nil && len(found) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return []Diagnosis{fail(Route, fmt.Sprintf("the kernel has no route to %s: %v", s.Backend, err),
			fmt.Sprintf("ip route add %s via GATEWAY, or give this box an address in the backend's network", s.Backend))}
	}
	r := &found[0]
	if r.Type == unix.RTN_LOCAL {
		return []Diagnosis{fail(Route, fmt.Sprintf("%s is an address of this box", s.Backend), "put the backend's own address under backends")}
	}
	link, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		return []Diagnosis{fail(Route, fmt.Sprintf("the route to %s leaves by an interface that cannot be found: %v", s.Backend, err), "ip route get "+s.Backend.String())}
	}
	e.device = link
	e.nic = link.Attrs().Name
	if parent := parentOf(link); parent != "" {
		e.nic = parent
	}
	e.next = s.Backend
	if gateway, isIP := netip.AddrFromSlice(r.Gw); isIP && !gateway.IsUnspecified() {
		e.next = gateway.Unmap()
	} else if via, isVia := r.Via.(*netlink.Via); isVia {
		e.next, _ = netip.AddrFromSlice(via.Addr)
	}
	switch {
	case !slices.Contains(s.Interfaces, e.nic):
		return []Diagnosis{fail(Route, fmt.Sprintf("the route to %s leaves by %s, which is not among weir's interfaces", s.Backend, e.nic),
			fmt.Sprintf("add %s under interfaces, or change the route: ip route get %s", e.nic, s.Backend))}
	case s.Mode == DSR && e.next != s.Backend:
		return []Diagnosis{fail(Route, fmt.Sprintf("%s is behind the router %s, and mode dsr reaches backends on the link only", s.Backend, e.next),
			"use mode: ipip for this service, or put the backend on the link")}
	case e.next != s.Backend:
		return []Diagnosis{ok(Route, "via %s, by %s", e.next, e.device.Attrs().Name)}
	}
	return []Diagnosis{ok(Route, "on the link, by %s", e.device.Attrs().Name)}
}

// parentOf returns what a VLAN interface is on; empty for any other.
func parentOf(link netlink.Link) string {
	if _, isVLAN := link.(*netlink.Vlan); !isVLAN || link.Attrs().ParentIndex == 0 {
		return ""
	}
	parent, err := netlink.LinkByIndex(link.Attrs().ParentIndex)
	if err != nil {
		return ""
	}
	return parent.Attrs().Name
}

// neighbour finds out whether somebody answers for the next hop's address on the
// link. A datagram to the discard port has the kernel ask.
func (e *examination) neighbour(ctx context.Context) []Diagnosis {
	name := e.device.Attrs().Name
	protocol, tool := "ARP", "arping -I "+name+" "+e.next.String()
	if e.next.Is6() {
		protocol, tool = "NDP", "ndisc6 "+e.next.String()+" "+name
	}
	for limit := time.Now().Add(e.timeout + tick); ; {
		mac, state := neighbourOf(e.next, e.device.Attrs().Index)
		switch {
		case mac != "" && state&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0:
			if s := &e.subject; s.Hop.State == nexthop.Unreachable && s.Hop.Reason != "" {
				return []Diagnosis{warn(Neighbour, fmt.Sprintf("%s has %s, but weir does not use it: %s", e.next, mac, s.Hop.Reason), "weir show backends")}
			}
			return []Diagnosis{ok(Neighbour, "%s has %s", e.next, mac)}
		case time.Now().After(limit) || ctx.Err() != nil:
			return []Diagnosis{fail(Neighbour, fmt.Sprintf("%s does not answer %s on %s: it is off, on another link or VLAN, or has another address", e.next, protocol, name), tool)}
		}
		e.knock()
		time.Sleep(tick)
	}
}

// knock sends a datagram to the backend that nobody answers.
func (e *examination) knock() {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.subject.Backend, 9)))
	if err != nil {
		return
	}
	_, _ = c.Write(nil)
	_ = c.Close()
}

func neighbourOf(addr netip.Addr, index int) (mac string, state int) {
	list, err := netlink.NeighList(index, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return "", 0
	}
	for i := range list {
		if a, isIP := netip.AddrFromSlice(list[i].IP); isIP && a.Unmap() == addr && len(list[i].HardwareAddr) > 0 {
			return list[i].HardwareAddr.String(), list[i].State
		}
	}
	return "", 0
}
