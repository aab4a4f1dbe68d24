package config

import (
	"net/netip"
	"time"
)

func (d *decoder) cluster(n node) *Cluster {
	c := &Cluster{Bind: netip.AddrPortFrom(netip.Addr{}, gossipPort)}
	d.mapping(n, fields{
		"bind":      func(n node) { value(d, n, &c.Bind, wantBind, parseBind) },
		"advertise": func(n node) { value(d, n, &c.Advertise, wantEndpoint, parseAdvertise) },
		"peers": func(n node) {
			list(d, n, &c.Peers, func(n node, p *string) { value(d, n, p, wantMember, parseMember) })
		},
		"key":      func(n node) { value(d, n, &c.Key, wantKey, parseKey) },
		"key_file": func(n node) { value(d, n, &c.Key, "the path of a file", parseKeyFile) },
	})
	return c
}

func (d *decoder) bgp(n node) *BGP {
	b := &BGP{ShutdownDelay: 5 * time.Second}
	d.mapping(n, fields{
		"asn":            func(n node) { number(d, n, &b.ASN, 1, maxASN) },
		"router_id":      func(n node) { value(d, n, &b.RouterID, "an IPv4 address", parseAddress) },
		"listen":         func(n node) { value(d, n, &b.Listen, wantListen, parseBGPListen) },
		"next_hop":       func(n node) { value(d, n, &b.NextHop, wantAddress, parseAddress) },
		"next_hop6":      func(n node) { value(d, n, &b.NextHop6, wantAddress, parseAddress) },
		"shutdown_delay": func(n node) { value(d, n, &b.ShutdownDelay, "a duration", parseDuration(0, maxDelay)) },
		"peers":          func(n node) { list(d, n, &b.Peers, d.peer) },
	})
	return b
}

func (d *decoder) peer(n node, p *BGPPeer) {
	*p = BGPPeer{Port: bgpPort, HoldTime: 90 * time.Second, ConnectRetry: 5 * time.Second, RestartTime: 2 * time.Minute}
	d.mapping(n, fields{
		"name":             func(n node) { value(d, n, &p.Name, "a name", parsePeerName) },
		"address":          func(n node) { value(d, n, &p.Address, wantAddress, parsePeer) },
		"asn":              func(n node) { number(d, n, &p.ASN, 1, maxASN) },
		"port":             func(n node) { number(d, n, &p.Port, 1, 65535) },
		"local_asn":        func(n node) { number(d, n, &p.LocalASN, 0, maxASN) },
		"source":           func(n node) { value(d, n, &p.Source, wantAddress, parseAddress) },
		"multihop":         func(n node) { number(d, n, &p.Multihop, 0, 255) },
		"password":         func(n node) { value(d, n, &p.Password, "a password", parsePassword) },
		"password_file":    func(n node) { value(d, n, &p.Password, "the path of a file", parsePasswordFile) },
		"hold_time":        func(n node) { value(d, n, &p.HoldTime, "a duration", parseHold) },
		"keepalive_time":   func(n node) { value(d, n, &p.KeepaliveTime, "a duration", parseSeconds(time.Second, maxHold)) },
		"connect_retry":    func(n node) { value(d, n, &p.ConnectRetry, "a duration", parseDuration(minRetry, maxRetry)) },
		"families":         func(n node) { words(d, n, &p.Families, IPv4, IPv6) },
		"next_hop":         func(n node) { value(d, n, &p.NextHop, wantAddress, parseAddress) },
		"next_hop6":        func(n node) { value(d, n, &p.NextHop6, wantAddress, parseAddress) },
		"communities":      func(n node) { d.communities(n, &p.Communities) },
		"local_pref":       func(n node) { optional(d, n, &p.LocalPref) },
		"med":              func(n node) { optional(d, n, &p.MED) },
		"graceful_restart": func(n node) { d.flag(n, &p.GracefulRestart) },
		"restart_time":     func(n node) { value(d, n, &p.RestartTime, "a duration", parseSeconds(time.Second, maxRestart)) },
		"pools": func(n node) {
			list(d, n, &p.Pools, func(n node, to *string) { value(d, n, to, "the name of a pool", parsePoolName) })
		},
	})
}
