package nexthop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// receiveBuffer is the room for notifications, in bytes, while a pass is
	// being made: a table of a few thousand neighbours that changes at once.
	receiveBuffer = 4 << 20

	// requestTimeout bounds one request. The kernel answers in microseconds.
	requestTimeout = 5 * time.Second
)

// groups are all notifications that can change an answer. They share one
// socket, so that they arrive in the order in which things happened, and so
// that an overrun of one is an overrun of all.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	unix.RTNLGRP_NEXTHOP,
}

// rtnetlink is the kernel of the network namespace it was opened in.
type rtnetlink struct {
	requests *netlink.Handle
	events   *nl.NetlinkSocket
}

// openKernel opens the sockets in the network namespace of the calling thread.
// Notifications are collected from here on.
func openKernel() (kernel, error) {
	events, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN. With less room,
	// notifications are lost more easily, and that is handled.
	if events.SetReceiveBufferSize(receiveBuffer, true) != nil {
		_ = events.SetReceiveBufferSize(receiveBuffer, false)
	}
	requests, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		events.Close()
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	if err := requests.SetSocketTimeout(requestTimeout); err != nil {
		requests.Close()
		events.Close()
		return nil, fmt.Errorf("set rtnetlink timeout: %w", err)
	}
	return &rtnetlink{requests: requests, events: events}, nil
}

func (k *rtnetlink) Close() {
	k.events.Close()
	k.requests.Close()
}

func (k *rtnetlink) Links() ([]link, error) {
	list, err := dump(k.requests.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := make([]link, len(list))
	for i, l := range list {
		links[i] = linkOf(l)
	}
	return links, nil
}

func (k *rtnetlink) Neighbours() ([]neighbour, error) {
	list, err := dump(func() ([]netlink.Neigh, error) { return k.requests.NeighList(0, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	neighbours := make([]neighbour, 0, len(list))
	for i := range list {
		if n, ok := neighbourOf(&list[i]); ok {
			neighbours = append(neighbours, n)
		}
	}
	return neighbours, nil
}

func (k *rtnetlink) Addresses() ([]ownAddress, error) {
	list, err := dump(func() ([]netlink.Addr, error) { return k.requests.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var own []ownAddress
	for i := range list {
		// Of a point-to-point link this is the near end, IFA_LOCAL.
		if list[i].IPNet == nil {
			continue
		}
		if addr := addrOf(list[i].IP); addr.IsValid() {
			bits, _ := list[i].Mask.Size()
			own = append(own, ownAddress{netip.PrefixFrom(addr.Unmap(), bits), list[i].LinkIndex})
		}
	}
	return own, nil
}

// dump repeats a dump that a concurrent change has torn (NLM_F_DUMP_INTR). A
// table that never rests is taken as it is: what it lacks arrives as
// notifications, and in the next dump.
func dump[T any](list func() ([]T, error)) (result []T, err error) {
	for range 3 {
		if result, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return result, err
		}
	}
	return result, nil
}

func (k *rtnetlink) Route(addr netip.Addr) (route, error) {
	list, err := k.requests.RouteGet(addr.AsSlice())
	if err != nil {
		return route{}, fmt.Errorf("look up route: %w", err)
	}
	if len(list) == 0 {
		return route{}, fmt.Errorf("look up route: %w", unix.ENETUNREACH)
	}
	r := &list[0]
	found := route{
		kind:    r.Type,
		ifindex: r.LinkIndex,
		gateway: addrOf(r.Gw),
		source:  addrOf(r.Src),
		mtu:     r.MTU,
		encap:   r.Encap != nil,
	}
	if via, ok := r.Via.(*netlink.Via); ok { // an IPv4 route by an IPv6 gateway, RFC 9229
		found.gateway = addrOf(via.Addr)
	}
	return found, nil
}

func (k *rtnetlink) Source(key neighKey) (netip.Addr, error) {
	list, err := k.requests.RouteGetWithOptions(key.addr.AsSlice(), &netlink.RouteGetOptions{OifIndex: key.ifindex})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up source address: %w", err)
	}
	if len(list) == 0 {
		return netip.Addr{}, fmt.Errorf("look up source address: %w", unix.ENETUNREACH)
	}
	return addrOf(list[0].Src), nil
}

// Probe uses NTF_USE, linux/neighbour.h: net/core/neighbour.c then calls
// neigh_event_send, just as the output path does for a packet.
func (k *rtnetlink) Probe(key neighKey) error {
	err := k.requests.NeighSet(&netlink.Neigh{
		LinkIndex: key.ifindex,
		IP:        key.addr.AsSlice(),
		Flags:     netlink.NTF_USE,
	})
	if err != nil {
		return fmt.Errorf("probe neighbour: %w", err)
	}
	return nil
}

// Verify enters the state PROBE, in which net/core/neighbour.c asks by unicast
// (ucast_solicit, three times a second apart) and ends in REACHABLE or FAILED.
// What is not repeated of the entry would be lost.
func (k *rtnetlink) Verify(n neighbour) error {
	entry := &netlink.Neigh{
		LinkIndex:    n.ifindex,
		IP:           n.addr.AsSlice(),
		HardwareAddr: n.mac[:],
		State:        netlink.NUD_PROBE,
	}
	if n.router {
		entry.Flags = netlink.NTF_ROUTER
	}
	if err := k.requests.NeighSet(entry); err != nil {
		return fmt.Errorf("verify neighbour: %w", err)
	}
	return nil
}

// Receive takes an overrun (ENOBUFS) as the end, too. After one, the kernel
// drops everything until the socket has been read empty, and does not say so
// again (NETLINK_S_CONGESTED in net/netlink/af_netlink.c). With a new socket
// there is no such gap between reading everything and following changes.
func (k *rtnetlink) Receive() ([]event, error) {
	for {
		messages, from, err := k.events.Receive()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("receive notifications: %w", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		var events []event
		for i := range messages {
			if e, ok := eventOf(messages[i].Header.Type, messages[i].Data); ok {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			return events, nil
		}
	}
}

// eventOf decodes the payload of a notification. A message that is none of
// ours, or that cannot be understood, is not ok; the regular refresh makes up
// for the latter.
func eventOf(kind uint16, data []byte) (event, bool) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(data) < unix.SizeofIfInfomsg {
			return event{}, false
		}
		// A bridge reports its ports in messages of family AF_BRIDGE; there
		// RTM_DELLINK means that the interface left the bridge.
		info := nl.DeserializeIfInfomsg(data)
		if info.Family != unix.AF_UNSPEC {
			return event{}, false
		}
		if kind == unix.RTM_DELLINK {
			return event{kind: linkGone, link: link{index: int(info.Index)}}, true
		}
		l, err := netlink.LinkDeserialize(nil, data)
		if err != nil {
			return event{}, false
		}
		return event{kind: linkChanged, link: linkOf(l)}, true

	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if len(data) < unix.SizeofNdMsg {
			return event{}, false
		}
		entry, err := netlink.NeighDeserialize(data)
		if err != nil {
			return event{}, false
		}
		n, ok := neighbourOf(entry)
		if kind == unix.RTM_DELNEIGH {
			n = neighbour{neighKey: n.neighKey}
		}
		return event{kind: neighbourChanged, neighbour: n}, ok

	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		prefix, ok := routePrefix(data)
		return event{kind: routeChanged, prefix: prefix}, ok

	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWRULE, unix.RTM_DELRULE,
		unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return event{kind: anyRouteChanged}, true
	}
	return event{}, false
}

// routePrefix returns the destination of a route message: a struct rtmsg and
// attributes, rtnetlink(7).
func routePrefix(data []byte) (netip.Prefix, bool) {
	if len(data) < unix.SizeofRtMsg {
		return netip.Prefix{}, false
	}
	var dst netip.Addr // a default route has no RTA_DST
	family, bits := data[0], int(data[1])
	switch family {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return netip.Prefix{}, false
	}
	for attrs := data[unix.SizeofRtMsg:]; len(attrs) >= unix.SizeofRtAttr; {
		length := int(binary.NativeEndian.Uint16(attrs))
		if length < unix.SizeofRtAttr || length > len(attrs) {
			return netip.Prefix{}, false
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == unix.RTA_DST {
			addr, ok := netip.AddrFromSlice(attrs[unix.SizeofRtAttr:length])
			if !ok || addr.BitLen() != dst.BitLen() {
				return netip.Prefix{}, false
			}
			dst = addr
		}
		padded := (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		attrs = attrs[min(padded, len(attrs)):]
	}
	prefix := netip.PrefixFrom(dst, bits).Masked()
	return prefix, prefix.IsValid()
}

func linkOf(l netlink.Link) link {
	attrs := l.Attrs()
	mac, isMAC := macOf(attrs.HardwareAddr)
	result := link{
		index:    attrs.Index,
		name:     attrs.Name,
		mac:      mac,
		mtu:      attrs.MTU,
		up:       attrs.RawFlags&unix.IFF_UP != 0 && attrs.RawFlags&unix.IFF_RUNNING != 0,
		ethernet: isMAC && attrs.EncapType == "ether",
	}
	if vlan, ok := l.(*netlink.Vlan); ok {
		result.vlan = uint16(vlan.VlanId)
		// The parent of a VLAN interface that was moved to a container is in
		// another namespace, where its index means another interface.
		if vlan.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q && attrs.NetNsID == -1 {
			result.parent = attrs.ParentIndex
		}
	}
	return result
}

// neighbourOf leaves out what is in the same table but is no neighbour:
// forwarding entries of a bridge, and addresses to be a proxy for.
func neighbourOf(entry *netlink.Neigh) (neighbour, bool) {
	if entry.Family != unix.AF_INET && entry.Family != unix.AF_INET6 || entry.Flags&netlink.NTF_PROXY != 0 {
		return neighbour{}, false
	}
	addr, ok := netip.AddrFromSlice(entry.IP)
	if !ok {
		return neighbour{}, false
	}
	n := neighbour{neighKey: neighKey{entry.LinkIndex, addr}, router: entry.Flags&netlink.NTF_ROUTER != 0}
	mac, isMAC := macOf(entry.HardwareAddr)
	switch {
	case entry.State&netlink.NUD_FAILED != 0:
		n.fact = failed
	case !isMAC:
		n.fact = unknown
	case entry.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0:
		n.fact = fixed
	case entry.State&netlink.NUD_STALE != 0:
		n.fact = stale
	case entry.State&(netlink.NUD_REACHABLE|netlink.NUD_DELAY|netlink.NUD_PROBE) != 0:
		n.fact = fresh
	}
	if n.fact.usable() {
		n.mac = mac
	}
	return n, true
}

func macOf(address net.HardwareAddr) (mac MAC, ok bool) {
	return mac, copy(mac[:], address) == len(mac) && len(address) == len(mac)
}

// addrOf returns the invalid address for nil.
func addrOf(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr
}
