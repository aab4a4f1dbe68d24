package nexthop

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	backend = netip.MustParseAddr("10.0.0.9")
	router  = netip.MustParseAddr("10.0.0.1")
	linkV6  = netip.MustParseAddr("fe80::1")
	own     = netip.MustParseAddr("10.0.0.2")

	eth1    = link{index: 2, name: "eth1", mac: MAC{2, 0, 0, 0, 0, 2}, mtu: 1500, up: true, ethernet: true}
	eth2    = link{index: 3, name: "eth2", mac: MAC{2, 0, 0, 0, 0, 3}, mtu: 9000, up: true, ethernet: true}
	vlan5   = link{index: 4, name: "eth1.5", mac: MAC{2, 0, 0, 0, 0, 4}, mtu: 1400, up: true, ethernet: true, vlan: 5, parent: 2}
	vlan5x6 = link{index: 5, name: "eth1.5.6", mac: MAC{2, 0, 0, 0, 0, 5}, mtu: 1400, up: true, ethernet: true, vlan: 6, parent: 4}
	vlanFar = link{index: 6, name: "far", mac: MAC{2, 0, 0, 0, 0, 6}, mtu: 1500, up: true, ethernet: true, vlan: 7}
	tun0    = link{index: 7, name: "tun0", mtu: 1420, up: true}

	serverMAC = MAC{2, 0, 0, 0, 1, 9}
	routerMAC = MAC{2, 0, 0, 0, 1, 1}
)

// known is an entry of the neighbour table.
func known(ifindex int, addr netip.Addr, mac MAC, f fact) neighbour {
	return neighbour{neighKey: neighKey{ifindex, addr}, mac: mac, fact: f}
}

func down(l link) link { l.up = false; return l }

func TestResolve(t *testing.T) {
	onLink := func(l link) route { return route{kind: unix.RTN_UNICAST, ifindex: l.index, source: own} }
	by := func(l link, gateway netip.Addr) route {
		r := onLink(l)
		r.gateway = gateway
		return r
	}
	entry := func(l link, addr netip.Addr, mac MAC, f fact) neighbour {
		return known(l.index, addr, mac, f)
	}
	server := func(l link, f fact) neighbour { return entry(l, backend, serverMAC, f) }
	hop := func(l link) Hop { // a hop by l that is on the link and not resolved
		return Hop{Addr: backend, Ifindex: l.index, Interface: l.name, SrcMAC: l.mac, Source: own, MTU: l.mtu}
	}
	resolved := func(h Hop, mac MAC) Hop { h.State, h.DstMAC = Resolved, mac; return h }
	unreachable := func(h Hop, reason string) Hop { h.State, h.Reason = Unreachable, reason; return h }
	silent := func(h Hop, reason string) Hop { h = unreachable(h, reason); h.Silent = true; return h }
	waiting := func(h Hop, reason string) Hop { h.State, h.Reason = Unresolved, reason; return h }
	with := func(h Hop, change func(*Hop)) Hop { change(&h); return h }
	nowhere := func(reason string) Hop { return Hop{Addr: backend, State: Unreachable, Reason: reason} }
	tagged := with(hop(eth1), func(h *Hop) { h.VLAN, h.SrcMAC, h.MTU = 5, vlan5.mac, 1400 })
	routed := with(hop(eth1), func(h *Hop) { h.Gateway = router })

	tests := []struct {
		name       string
		links      []link // in place of those with the same index
		neighbours []neighbour
		found      route
		lookup     error
		refused    error
		prev       Hop
		want       Hop
		wantKey    neighKey
	}{
		{name: "on the link", found: onLink(eth1), neighbours: []neighbour{server(eth1, fresh)},
			want: resolved(hop(eth1), serverMAC), wantKey: neighKey{2, backend}},
		{name: "stale is usable", found: onLink(eth1), neighbours: []neighbour{server(eth1, stale)},
			want: resolved(hop(eth1), serverMAC), wantKey: neighKey{2, backend}},
		{name: "permanent", found: onLink(eth1), neighbours: []neighbour{server(eth1, fixed)},
			want: resolved(hop(eth1), serverMAC), wantKey: neighKey{2, backend}},
		{name: "known on another interface only", found: onLink(eth1), neighbours: []neighbour{server(eth2, fresh)},
			want: waiting(hop(eth1), "waiting for 10.0.0.9 to answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "route's MTU", found: altered(onLink(eth1), func(r *route) { r.mtu = 1280 }), neighbours: []neighbour{server(eth1, fresh)},
			want: with(resolved(hop(eth1), serverMAC), func(h *Hop) { h.MTU = 1280 }), wantKey: neighKey{2, backend}},
		{name: "by a gateway", found: by(eth1, router),
			neighbours: []neighbour{server(eth1, fresh), entry(eth1, router, routerMAC, fresh)},
			want:       resolved(routed, routerMAC), wantKey: neighKey{2, router}},
		{name: "by an IPv6 gateway", found: by(eth1, linkV6), neighbours: []neighbour{entry(eth1, linkV6, routerMAC, fresh)},
			want:    with(resolved(hop(eth1), routerMAC), func(h *Hop) { h.Gateway = linkV6 }),
			wantKey: neighKey{2, linkV6}},

		{name: "VLAN", found: onLink(vlan5), neighbours: []neighbour{server(vlan5, fresh), entry(eth1, backend, routerMAC, fresh)},
			want: resolved(tagged, serverMAC), wantKey: neighKey{4, backend}},
		{name: "VLAN, waiting", found: onLink(vlan5),
			want: waiting(tagged, "waiting for 10.0.0.9 to answer ARP on eth1.5"), wantKey: neighKey{4, backend}},
		{name: "VLAN, parent down", found: onLink(vlan5), links: []link{down(eth1)}, neighbours: []neighbour{server(vlan5, fresh)},
			want: unreachable(tagged, "interface eth1 is down")},
		{name: "VLAN itself down", found: onLink(vlan5), links: []link{down(vlan5)}, neighbours: []neighbour{server(vlan5, fresh)},
			want: unreachable(tagged, "interface eth1.5 is down")},
		{name: "VLAN in a VLAN", found: onLink(vlan5x6),
			want: unreachable(with(hop(vlan5), func(h *Hop) { h.VLAN, h.SrcMAC = 6, vlan5x6.mac }),
				"interface eth1.5.6 is not a plain 802.1Q tag on an interface of this machine")},
		{name: "VLAN with its parent elsewhere", found: onLink(vlanFar),
			want: unreachable(with(hop(vlanFar), func(h *Hop) { h.VLAN = 7 }),
				"interface far is not a plain 802.1Q tag on an interface of this machine")},
		{name: "not Ethernet", found: onLink(tun0), want: unreachable(hop(tun0), "interface tun0 is not Ethernet")},
		{name: "interface not known", found: route{kind: unix.RTN_UNICAST, ifindex: 99},
			want: waiting(Hop{Addr: backend}, "the interface towards 10.0.0.9 is not known yet")},
		{name: "interface down", found: onLink(eth1), links: []link{down(eth1)}, neighbours: []neighbour{server(eth1, fresh)},
			want: unreachable(hop(eth1), "interface eth1 is down")},

		{name: "no entry", found: onLink(eth1),
			want: waiting(hop(eth1), "waiting for 10.0.0.9 to answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "failed", found: onLink(eth1), neighbours: []neighbour{server(eth1, failed)}, prev: resolved(hop(eth1), serverMAC),
			want: silent(hop(eth1), "10.0.0.9 does not answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "gateway failed", found: by(eth1, router), neighbours: []neighbour{entry(eth1, router, MAC{}, failed)},
			want: silent(routed, "gateway 10.0.0.1 does not answer ARP on eth1"), wantKey: neighKey{2, router}},
		{name: "entry lost, MAC kept", found: onLink(eth1), prev: resolved(hop(eth1), serverMAC),
			want: resolved(hop(eth1), serverMAC), wantKey: neighKey{2, backend}},
		{name: "entry lost and refused, MAC kept", found: onLink(eth1), prev: resolved(hop(eth1), serverMAC), refused: unix.ENOBUFS,
			want: resolved(hop(eth1), serverMAC), wantKey: neighKey{2, backend}},
		{name: "MAC not kept on another interface", found: onLink(eth1), prev: resolved(hop(eth2), serverMAC),
			want: waiting(hop(eth1), "waiting for 10.0.0.9 to answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "MAC not kept with another tag", found: onLink(eth1), prev: resolved(tagged, serverMAC),
			want: waiting(hop(eth1), "waiting for 10.0.0.9 to answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "MAC not kept by another gateway", found: by(eth1, router), prev: resolved(hop(eth1), serverMAC),
			want: waiting(routed, "waiting for 10.0.0.1 to answer ARP on eth1"), wantKey: neighKey{2, router}},
		{name: "silent one is asked again", found: onLink(eth1),
			prev:    silent(hop(eth1), "10.0.0.9 does not answer ARP on eth1"),
			want:    silent(hop(eth1), "10.0.0.9 does not answer ARP on eth1"),
			wantKey: neighKey{2, backend}},
		{name: "after the interface was down", found: onLink(eth1), prev: unreachable(hop(eth1), "interface eth1 is down"),
			want: waiting(hop(eth1), "waiting for 10.0.0.9 to answer ARP on eth1"), wantKey: neighKey{2, backend}},
		{name: "table full", found: onLink(eth1), refused: fmt.Errorf("probe neighbour: %w", unix.ENOBUFS),
			want:    waiting(hop(eth1), "the kernel's neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3"),
			wantKey: neighKey{2, backend}},
		{name: "probe refused", found: onLink(eth1), refused: fmt.Errorf("probe neighbour: %w", unix.EPERM),
			want: waiting(hop(eth1), "probe neighbour: operation not permitted"), wantKey: neighKey{2, backend}},

		{name: "no route", lookup: unix.ENETUNREACH, want: nowhere("no route to 10.0.0.9")},
		{name: "no route since the interface is off", lookup: unix.ENETUNREACH, links: []link{down(eth1)},
			prev: resolved(hop(eth1), serverMAC),
			want: Hop{Addr: backend, State: Unreachable, Reason: "interface eth1 is down", Ifindex: 2, Interface: "eth1"}},
		{name: "no route, interface still up", lookup: unix.ENETUNREACH, prev: resolved(hop(eth1), serverMAC),
			want: nowhere("no route to 10.0.0.9")},
		{name: "blackhole, IPv4", lookup: unix.EINVAL, want: nowhere("the route to 10.0.0.9 is a blackhole")},
		{name: "blackhole, IPv6", found: route{kind: unix.RTN_BLACKHOLE}, want: nowhere("the route to 10.0.0.9 is a blackhole")},
		{name: "unreachable, IPv4", lookup: unix.EHOSTUNREACH, want: nowhere("the route to 10.0.0.9 is of type unreachable")},
		{name: "unreachable, IPv6", found: route{kind: unix.RTN_UNREACHABLE}, want: nowhere("the route to 10.0.0.9 is of type unreachable")},
		{name: "prohibit", lookup: unix.EACCES, want: nowhere("the route to 10.0.0.9 is of type prohibit")},
		{name: "other error", lookup: fmt.Errorf("look up route: %w", syscall.ENOMEM), want: nowhere("look up route: cannot allocate memory")},
		{name: "own address", found: route{kind: unix.RTN_LOCAL, ifindex: 1}, want: nowhere("10.0.0.9 is an address of this machine")},
		{name: "broadcast", found: route{kind: unix.RTN_BROADCAST, ifindex: 2}, want: nowhere("10.0.0.9 is a broadcast address")},
		{name: "multicast", found: route{kind: unix.RTN_MULTICAST, ifindex: 2}, want: nowhere("10.0.0.9 is a multicast address")},
		{name: "encapsulating route", found: altered(onLink(eth1), func(r *route) { r.encap = true }),
			want: nowhere("the route to 10.0.0.9 encapsulates, which weir cannot follow")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := tables{links: map[int]link{}, neighbours: map[neighKey]neighbour{}}
			for _, l := range append([]link{eth1, eth2, vlan5, vlan5x6, vlanFar, tun0}, tt.links...) {
				tb.links[l.index] = l
			}
			for _, n := range tt.neighbours {
				tb.neighbours[n.neighKey] = n
			}
			got, key := tb.resolve(backend, tt.found, tt.lookup, tt.refused, tt.prev)
			if got != tt.want {
				t.Errorf("hop\n got %+v\nwant %+v", got, tt.want)
			}
			if key != tt.wantKey {
				t.Errorf("neighbour: got %v, want %v", key, tt.wantKey)
			}
		})
	}
}

func altered(r route, change func(*route)) route { change(&r); return r }

func TestZonedBackend(t *testing.T) {
	tb := tables{}
	hop, _ := tb.resolve(netip.MustParseAddr("fe80::9%eth1"), route{kind: unix.RTN_UNICAST}, nil, nil, Hop{})
	if hop.State != Unreachable || hop.Reason == "" {
		t.Errorf("got %+v, want it unreachable", hop)
	}
}
