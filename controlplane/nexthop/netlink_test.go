package nexthop

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestLinkOf(t *testing.T) {
	attrs := func(change func(*netlink.LinkAttrs)) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Index, a.Name, a.MTU, a.EncapType = 4, "eth1.5", 1400, "ether"
		a.HardwareAddr = vlan5.mac[:]
		a.RawFlags = unix.IFF_UP | unix.IFF_RUNNING
		change(&a)
		return a
	}
	onEth1 := func(a *netlink.LinkAttrs) { a.ParentIndex = 2 }
	with := func(change func(*link)) link { l := vlan5; change(&l); return l }
	untagged := with(func(l *link) { l.vlan, l.parent = 0, 0 })
	tests := []struct {
		name string
		link netlink.Link
		want link
	}{
		{"VLAN", &netlink.Vlan{LinkAttrs: attrs(onEth1), VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, vlan5},
		{"802.1ad", &netlink.Vlan{LinkAttrs: attrs(onEth1), VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021AD},
			with(func(l *link) { l.parent = 0 })},
		{"parent in another namespace", &netlink.Vlan{VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q,
			LinkAttrs: attrs(func(a *netlink.LinkAttrs) { a.ParentIndex, a.NetNsID = 2, 0 })},
			with(func(l *link) { l.parent = 0 })},
		{"not a VLAN, though it has a peer", &netlink.Veth{LinkAttrs: attrs(onEth1)}, untagged},
		{"switched off", &netlink.Device{LinkAttrs: attrs(func(a *netlink.LinkAttrs) { a.RawFlags = unix.IFF_RUNNING })}, down(untagged)},
		{"no carrier", &netlink.Device{LinkAttrs: attrs(func(a *netlink.LinkAttrs) { a.RawFlags = unix.IFF_UP })}, down(untagged)},
		{"loopback", &netlink.Device{LinkAttrs: attrs(func(a *netlink.LinkAttrs) { a.EncapType = "loopback" })},
			func() link { l := untagged; l.ethernet = false; return l }()},
		{"no MAC", &netlink.Device{LinkAttrs: attrs(func(a *netlink.LinkAttrs) { a.HardwareAddr = nil })},
			func() link { l := untagged; l.ethernet, l.mac = false, MAC{}; return l }()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := linkOf(tt.link); got != tt.want {
				t.Errorf("\n got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestNeighbourOf(t *testing.T) {
	for _, tt := range []struct {
		state int
		mac   net.HardwareAddr
		want  fact
	}{
		{netlink.NUD_NONE, nil, unknown},
		{netlink.NUD_INCOMPLETE, nil, unknown},
		{netlink.NUD_REACHABLE, serverMAC[:], fresh},
		{netlink.NUD_STALE, serverMAC[:], stale},
		{netlink.NUD_DELAY, serverMAC[:], fresh},
		{netlink.NUD_PROBE, serverMAC[:], fresh},
		{netlink.NUD_FAILED, nil, failed},
		{netlink.NUD_FAILED, serverMAC[:], failed},
		{netlink.NUD_NOARP, serverMAC[:], fixed},
		{netlink.NUD_PERMANENT, serverMAC[:], fixed},
		{netlink.NUD_PERMANENT, nil, unknown},
	} {
		entry := netlink.Neigh{LinkIndex: 2, Family: unix.AF_INET, State: tt.state, IP: net.IP{10, 0, 0, 9}, HardwareAddr: tt.mac}
		want := known(2, backend, MAC{}, tt.want)
		if tt.want.usable() {
			want.mac = serverMAC
		}
		if got, ok := neighbourOf(&entry); got != want || !ok {
			t.Errorf("state %#x: got %+v, %v, want %+v", tt.state, got, ok, want)
		}
		entry.Flags, want.router = netlink.NTF_ROUTER, true
		if got, ok := neighbourOf(&entry); got != want || !ok {
			t.Errorf("state %#x of a router: got %+v, %v, want %+v", tt.state, got, ok, want)
		}
		entry.Flags = 0
		entry.Family = unix.AF_BRIDGE
		if _, ok := neighbourOf(&entry); ok {
			t.Errorf("state %#x: took a forwarding entry for a neighbour", tt.state)
		}
		entry.Family, entry.Flags = unix.AF_INET, netlink.NTF_PROXY
		if _, ok := neighbourOf(&entry); ok {
			t.Errorf("state %#x: took a proxy entry for a neighbour", tt.state)
		}
	}
}

// routeMessage is a route notification for a prefix.
func routeMessage(family, bits uint8, dst []byte) []byte {
	m := &nl.RtMsg{}
	m.Family, m.Dst_len = family, bits
	data := m.Serialize()
	if dst != nil {
		data = append(data, nl.NewRtAttr(unix.RTA_DST, dst).Serialize()...)
	}
	return data
}

func TestEventOf(t *testing.T) {
	linkMessage := func(family uint8) []byte {
		m := nl.NewIfInfomsg(int(family))
		m.Index = 3
		return m.Serialize()
	}
	neighMessage := (&netlink.Ndmsg{Family: unix.AF_INET, Index: 2, State: netlink.NUD_REACHABLE}).Serialize()
	neighMessage = append(neighMessage, nl.NewRtAttr(netlink.NDA_DST, []byte{10, 0, 0, 9}).Serialize()...)
	neighMessage = append(neighMessage, nl.NewRtAttr(netlink.NDA_LLADDR, serverMAC[:]).Serialize()...)
	toPrefix := func(s string) event { return event{kind: routeChanged, prefix: netip.MustParsePrefix(s)} }
	tests := []struct {
		name string
		kind uint16
		data []byte
		want event
		none bool
	}{
		{name: "link gone", kind: unix.RTM_DELLINK, data: linkMessage(unix.AF_UNSPEC), want: event{kind: linkGone, link: link{index: 3}}},
		{name: "left a bridge", kind: unix.RTM_DELLINK, data: linkMessage(unix.AF_BRIDGE), none: true},
		{name: "bridge port", kind: unix.RTM_NEWLINK, data: linkMessage(unix.AF_BRIDGE), none: true},
		{name: "neighbour", kind: unix.RTM_NEWNEIGH, data: neighMessage,
			want: event{kind: neighbourChanged, neighbour: known(2, backend, serverMAC, fresh)}},
		{name: "neighbour gone", kind: unix.RTM_DELNEIGH, data: neighMessage,
			want: event{kind: neighbourChanged, neighbour: known(2, backend, MAC{}, unknown)}},
		{name: "route", kind: unix.RTM_NEWROUTE, data: routeMessage(unix.AF_INET, 24, []byte{10, 1, 2, 0}), want: toPrefix("10.1.2.0/24")},
		{name: "default route", kind: unix.RTM_DELROUTE, data: routeMessage(unix.AF_INET, 0, nil), want: toPrefix("0.0.0.0/0")},
		{name: "IPv6 default route", kind: unix.RTM_NEWROUTE, data: routeMessage(unix.AF_INET6, 0, nil), want: toPrefix("::/0")},
		{name: "MPLS route", kind: unix.RTM_NEWROUTE, data: routeMessage(unix.AF_MPLS, 20, []byte{0, 0, 1, 0}), none: true},
		{name: "prefix too long", kind: unix.RTM_NEWROUTE, data: routeMessage(unix.AF_INET, 33, []byte{10, 1, 2, 0}), none: true},
		{name: "address", kind: unix.RTM_NEWADDR, want: event{kind: anyRouteChanged}},
		{name: "nexthop object", kind: unix.RTM_DELNEXTHOP, want: event{kind: anyRouteChanged}},
		{name: "something else", kind: unix.RTM_NEWQDISC, none: true},
		{name: "short link", kind: unix.RTM_NEWLINK, data: []byte{0}, none: true},
		{name: "short neighbour", kind: unix.RTM_NEWNEIGH, data: []byte{2}, none: true},
		{name: "short route", kind: unix.RTM_NEWROUTE, data: []byte{2}, none: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := eventOf(tt.kind, tt.data)
			if ok == tt.none || ok && got != tt.want {
				t.Errorf("got %+v, %v, want %+v, %v", got, ok, tt.want, !tt.none)
			}
		})
	}
}

func FuzzRoutePrefix(f *testing.F) {
	f.Add(routeMessage(unix.AF_INET, 24, []byte{10, 1, 2, 0}))
	f.Add(routeMessage(unix.AF_INET6, 0, nil))
	f.Add(routeMessage(unix.AF_INET6, 64, make([]byte, 16)))
	f.Add(binary.NativeEndian.AppendUint32(routeMessage(unix.AF_INET, 8, nil), 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		prefix, ok := routePrefix(data)
		if !ok {
			return
		}
		if prefix != prefix.Masked() || prefix.Bits() != int(data[1]) || prefix.Addr().Is4() != (data[0] == unix.AF_INET) {
			t.Errorf("%x: got %v", data, prefix)
		}
	})
}
