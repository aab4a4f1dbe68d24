package nexthop

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// tables is what is known of the kernel's interfaces and neighbours.
type tables struct {
	links      map[int]link
	neighbours map[neighKey]neighbour
}

// resolve works the hop to addr out. It returns the neighbour that the hop
// depends on too, the zero key if none.
//
// found and lookup are the answer of kernel.Route; refused is why the kernel
// would not probe the neighbour, nil if it did. prev is the hop so far. It
// decides while the kernel looks for a neighbour: one that was known stays
// usable when its entry is flushed or collected as garbage, and one that was
// silent stays unreachable, until the kernel knows better.
func (t *tables) resolve(addr netip.Addr, found route, lookup, refused error, prev Hop) (Hop, neighKey) {
	hop := Hop{Addr: addr, State: Unreachable}
	if hop.Reason = noWay(addr, found, lookup); hop.Reason != "" {
		// Switching an interface off takes its routes away. That there is no
		// route is then true, but it is not what has happened.
		if was, ok := t.links[prev.Ifindex]; ok && !was.up && errors.Is(lookup, unix.ENETUNREACH) {
			hop.Ifindex, hop.Interface, hop.Reason = was.index, was.name, isDown(was)
		}
		return hop, neighKey{}
	}

	via, ok := t.links[found.ifindex]
	out := via
	if via.vlan != 0 && via.parent != 0 {
		out, ok = t.links[via.parent]
	}
	if !ok { // the route was asked for later than the interfaces
		hop.State, hop.Reason = Unresolved, fmt.Sprintf("the interface towards %v is not known yet", addr)
		return hop, neighKey{}
	}
	hop.Ifindex, hop.Interface = out.index, out.name
	hop.VLAN, hop.SrcMAC = via.vlan, via.mac
	hop.Gateway, hop.Source = found.gateway, found.source
	if hop.MTU = found.mtu; hop.MTU == 0 {
		hop.MTU = via.mtu
	}
	if hop.Reason = unfit(via, out); hop.Reason != "" {
		return hop, neighKey{}
	}

	key := neighKey{found.ifindex, addr}
	if found.gateway.IsValid() {
		key.addr = found.gateway
	}
	n := t.neighbours[key]
	samePath := prev.Ifindex == hop.Ifindex && prev.VLAN == hop.VLAN && prev.Gateway == hop.Gateway
	switch {
	case n.fact.usable():
		hop.State, hop.DstMAC = Resolved, n.mac
	case n.fact == failed:
		hop.Reason, hop.Silent = isSilent(key.addr, found.gateway, via), true
	case samePath && prev.State == Resolved:
		hop.State, hop.DstMAC = Resolved, prev.DstMAC
	case samePath && prev.Reason == isSilent(key.addr, found.gateway, via):
		hop.Reason, hop.Silent = prev.Reason, true
	case errors.Is(refused, unix.ENOBUFS):
		hop.State = Unresolved
		hop.Reason = "the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3"
		if key.addr.Is6() {
			hop.Reason = "the kernel's neighbour table is full: raise net.ipv6.neigh.default.gc_thresh3"
		}
	case refused != nil:
		hop.State, hop.Reason = Unresolved, refused.Error()
	default:
		hop.State = Unresolved
		hop.Reason = fmt.Sprintf("waiting for %v to answer %s on %s", key.addr, protocol(key.addr), via.name)
	}
	return hop, key
}

// noWay says why the answer to a lookup leads nowhere; "" if it leads
// somewhere. IPv4 reports a route without a way as an errno (fib_props in
// net/ipv4/fib_semantics.c), IPv6 as a route of its type.
func noWay(addr netip.Addr, found route, lookup error) string {
	kind := found.kind
	switch {
	case addr.Zone() != "":
		return fmt.Sprintf("%v names a zone: a backend needs an address that can be routed", addr)
	case lookup == nil:
	case errors.Is(lookup, unix.ENETUNREACH):
		return fmt.Sprintf("no route to %v", addr)
	case errors.Is(lookup, unix.EINVAL):
		kind = unix.RTN_BLACKHOLE
	case errors.Is(lookup, unix.EHOSTUNREACH):
		kind = unix.RTN_UNREACHABLE
	case errors.Is(lookup, unix.EACCES):
		kind = unix.RTN_PROHIBIT
	default:
		return lookup.Error()
	}
	switch kind {
	case unix.RTN_UNICAST:
		if found.encap {
			return fmt.Sprintf("the route to %v encapsulates, which weir cannot follow", addr)
		}
		return ""
	case unix.RTN_LOCAL, unix.RTN_ANYCAST:
		return fmt.Sprintf("%v is an address of this machine", addr)
	case unix.RTN_BROADCAST:
		return fmt.Sprintf("%v is a broadcast address", addr)
	case unix.RTN_MULTICAST:
		return fmt.Sprintf("%v is a multicast address", addr)
	case unix.RTN_BLACKHOLE:
		return fmt.Sprintf("the route to %v is a blackhole", addr)
	case unix.RTN_UNREACHABLE:
		return fmt.Sprintf("the route to %v is of type unreachable", addr)
	case unix.RTN_PROHIBIT:
		return fmt.Sprintf("the route to %v is of type prohibit", addr)
	}
	return fmt.Sprintf("the route to %v is of an unknown type, %d", addr, kind)
}

// unfit says why no frame can leave by an interface and what it is on; "" if
// one can.
func unfit(via, out link) string {
	switch {
	case !via.ethernet:
		return fmt.Sprintf("interface %s is not Ethernet", via.name)
	case via.vlan != 0 && (via.parent == 0 || out.vlan != 0):
		return fmt.Sprintf("interface %s is not a plain 802.1Q tag on an interface of this machine", via.name)
	case !out.up:
		return isDown(out)
	case !via.up:
		return isDown(via)
	}
	return ""
}

func isDown(l link) string { return fmt.Sprintf("interface %s is down", l.name) }

func isSilent(addr, gateway netip.Addr, via link) string {
	who := addr.String()
	if gateway.IsValid() {
		who = "gateway " + who
	}
	return fmt.Sprintf("%s does not answer %s on %s", who, protocol(addr), via.name)
}

// protocol names what resolves an address.
func protocol(addr netip.Addr) string {
	if addr.Is4() {
		return "ARP"
	}
	return "NDP"
}
