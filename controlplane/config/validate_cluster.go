package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

func peerPath(i int) string { return fmt.Sprintf("bgp.peers[%d]", i) }

func (v *validator) cluster() {
	const path = "cluster"
	c := v.c.Cluster
	if c == nil || v.broken[path] {
		return
	}
	if len(c.Peers) == 0 {
		v.absent(path, "peers", "at least one other node, as [10.0.0.3]; this one may be among them, so that all nodes can have the same file")
	}
	repeats(v, c.Peers, path+".peers")
	switch key, file := path+".key", path+".key_file"; {
	case v.pos.has(key) && v.pos.has(file):
		v.errorf(file, "is given next to %s in line %d; keep one of them", key, v.pos.line(key))
	case len(c.Key) == 0 && !v.known(file):
		v.absent(path, "key", wantKey+", or key_file with a file that has it")
	}
	if b, a := c.Bind.Addr(), c.Advertise.Addr(); b.IsValid() && a.IsValid() && b.Is4() != a.Is4() {
		v.errorf(path+".advertise", "%s is not of the family of bind, %s; want the same", a, b)
	}
	if port := c.Bind.Port(); len(v.c.NAT.Shared.Addresses) > 0 && v.c.NAT.Shared.Ports.Lo <= port && port <= v.c.NAT.Shared.Ports.Hi {
		v.errorf(path+".bind", "has port %d, which is one of %s, nat.shared.ports in line %d, so that weir would take the packets to it; want another port", port, v.c.NAT.Shared.Ports, v.pos.line("nat.shared.ports"))
	}
}

// endpoint is an address that the box, or a neighbour that weir talks to, has to
// itself.
type endpoint struct {
	path, what string
	address    netip.Addr
	own        bool // it is the box's
}

// endpoints returns what the file has of them in cluster and bgp, valid or not.
func (v *validator) endpoints() []endpoint { return v.c.endpoints() }

func (c *Config) endpoints() []endpoint {
	var all []endpoint
	if k := c.Cluster; k != nil {
		all = append(all,
			endpoint{"cluster.bind", "cluster.bind", k.Bind.Addr(), true},
			endpoint{"cluster.advertise", "cluster.advertise", k.Advertise.Addr(), false})
		for i, p := range k.Peers {
			ap, _ := netip.ParseAddrPort(p)
			all = append(all, endpoint{fmt.Sprintf("cluster.peers[%d]", i), "a node of the cluster", ap.Addr(), false})
		}
	}
	if b := c.BGP; b != nil {
		all = append(all, endpoint{"bgp.listen", "bgp.listen", b.Listen.Addr(), true})
		for i, p := range b.Peers {
			path := peerPath(i)
			all = append(all,
				endpoint{path + ".address", "a BGP peer", p.Address, false},
				endpoint{path + ".source", "the source of a BGP session", p.Source, true})
		}
	}
	return all
}

// endpointVIPs reports endpoints that are VIPs.
func (v *validator) endpointVIPs() {
	for _, e := range v.endpoints() {
		if vip, ok := v.vips[e.address]; ok {
			v.errorf(e.path, "%s is also a VIP, %s in line %d; want an address of a machine's own", e.address, vip, v.pos.line(vip))
		}
	}
}

func (v *validator) bgp() {
	const path = "bgp"
	b := v.c.BGP
	if b == nil || v.broken[path] {
		return
	}
	if b.ASN == 0 {
		v.absent(path, "asn", "the AS number of this box, as 65010")
	}
	v.asn(b.ASN, path+".asn")
	v.family(b.RouterID, IPv4, path+".router_id", "router_id is written as an IPv4 address also where there is only IPv6, RFC 6286")
	v.family(b.NextHop, IPv4, path+".next_hop", "that of IPv6 routes is next_hop6")
	v.family(b.NextHop6, IPv6, path+".next_hop6", "that of IPv4 routes is next_hop")
	if len(b.Peers) == 0 {
		v.absent(path, "peers", "at least one, as {address: 10.0.0.1, asn: 65000}")
	}
	names, addresses := make(map[string]string), make(map[netip.Addr]string)
	for i := range b.Peers {
		p, at := &b.Peers[i], peerPath(i)
		if first, ok := names[p.Name]; ok && p.Name != "" {
			v.errorf(at, "has the name %s, as has %s in line %d; want another name", p.Name, first, v.pos.line(first))
		} else {
			names[p.Name] = at
		}
		if first, ok := addresses[p.Address]; ok && p.Address.IsValid() {
			v.errorf(at+".address", "%s is here twice; the first is %s in line %d, keep one", p.Address, first, v.pos.line(first))
		} else {
			addresses[p.Address] = at + ".address"
		}
		v.peer(p, at)
	}
	way := func(a Announce) bool { return a == AnnounceBGP || a == "" }
	pool := func(p Pool) bool { return slices.ContainsFunc(p.Announce, way) }
	service := func(s Service) bool { return slices.ContainsFunc(s.Announce, way) }
	if !slices.ContainsFunc(v.c.Pools, pool) && !slices.ContainsFunc(v.c.Services, service) && !v.poolsUnknown && !v.brokenIn("services") {
		v.warnf(path, "no pool and no service has bgp in announce; nothing is announced")
	}
}

// asn reports an AS number that nobody can have.
func (v *validator) asn(n uint32, path string) {
	if problem := asn(n); problem != "" {
		v.errorf(path, "%d %s; want the number of a real or private AS", n, problem)
	}
}

// family reports an address that is given, but not one of a machine of family f.
func (v *validator) family(a netip.Addr, f Family, path, hint string) {
	switch {
	case !a.IsValid():
	case FamilyOf(a) != f:
		v.errorf(path, "%s is not %s; want an %s address, %s", a, f.title(), f.title(), hint)
	default:
		v.unicast(path, a, "the address of a router")
	}
}

// maxPeers is how many BGP peers there can be.
const maxPeers = 256

// peers notes the names of BGP peers.
func (v *validator) peers() {
	v.peerNames = make(map[string]bool)
	if v.c.BGP == nil {
		return
	}
	for _, p := range v.c.BGP.Peers {
		v.peerNames[p.Name] = true
	}
	if n := len(v.c.BGP.Peers); n > maxPeers {
		v.errorf("bgp.peers", "are %d; want at most %d", n, maxPeers)
	}
}

func (v *validator) peer(p *BGPPeer, path string) {
	if v.broken[path] {
		return
	}
	if a := p.Address; !a.IsValid() {
		v.absent(path, "address", "the IP address of the router, as 10.0.0.1")
	} else if !a.IsLoopback() { // a router on the same box
		v.unicast(path+".address", a, "a BGP peer")
	}
	if p.ASN == 0 {
		v.absent(path, "asn", "the AS number of the router, as 65000")
	}
	v.asn(p.ASN, path+".asn")
	v.asn(p.LocalASN, path+".local_asn")
	if p.Address.IsValid() {
		v.family(p.Source, FamilyOf(p.Address), path+".source", "the peer's own family")
	}
	v.family(p.NextHop, IPv4, path+".next_hop", "that of IPv6 routes is next_hop6")
	v.family(p.NextHop6, IPv6, path+".next_hop6", "that of IPv4 routes is next_hop")
	v.peerFamilies(p, path)
	v.peerTimes(p, path)
	if file := path + ".password_file"; v.pos.has(path+".password") && v.pos.has(file) {
		v.errorf(file, "is given next to password in line %d; keep one of them", v.pos.line(path+".password"))
	}
	repeats(v, p.Communities, path+".communities")
	if p.LocalPref != nil && p.ASN != 0 && v.c.BGP.ASN != 0 && p.ASN != v.c.BGP.Local(p) {
		v.warnf(path+".local_pref", "is not sent to a peer of another AS, RFC 4271 section 5.1.5")
	}
	v.peerPools(p, path)
}

// peerFamilies checks that there is a next hop of each family of routes.
func (v *validator) peerFamilies(p *BGPPeer, path string) {
	at := path + ".families"
	if v.pos.has(at) && len(p.Families) == 0 {
		v.absent(path, "families", "ipv4, ipv6 or both; without the key it is that of the peer's address")
	}
	repeats(v, p.Families, at)
	for j, f := range p.Families {
		entry := fmt.Sprintf("%s[%d]", at, j)
		key, own, all := "next_hop", p.NextHop, v.c.BGP.NextHop
		if f == IPv6 {
			key, own, all = "next_hop6", p.NextHop6, v.c.BGP.NextHop6
		}
		switch {
		case f == "" || !p.Address.IsValid():
		case f != FamilyOf(p.Address) && !own.IsValid() && !all.IsValid() && !v.known(join(path, key)) && !v.known("bgp."+key):
			v.errorf(entry, "%s routes need an %s next hop, which a session to %s does not have by itself; want %s here, or bgp.%s", f.title(), f.title(), p.Address, key, key)
		}
	}
}

func (v *validator) peerTimes(p *BGPPeer, path string) {
	keep := path + ".keepalive_time"
	given := v.pos.has(keep) && !v.broken[keep] && !v.broken[path+".hold_time"]
	switch {
	case !given:
	case p.KeepaliveTime >= p.HoldTime:
		v.errorf(keep, "%s is not less than hold_time, %s, after which the peer gives up; want a third of that", short(p.KeepaliveTime), short(p.HoldTime))
	case p.KeepaliveTime > (p.HoldTime / 3).Truncate(time.Second):
		v.warnf(keep, "%s is more than a third of hold_time, %s, so that few lost packets end the session (RFC 4271 section 4.4)", short(p.KeepaliveTime), short(p.HoldTime))
	}
	if at := path + ".restart_time"; v.pos.has(at) && !p.GracefulRestart && !v.broken[path+".graceful_restart"] {
		v.errorf(at, "is for graceful_restart, which is off; remove it, or set graceful_restart to true")
	}
}

func (v *validator) peerPools(p *BGPPeer, path string) {
	if at := path + ".pools"; v.pos.has(at) && len(p.Pools) == 0 {
		v.absent(path, "pools", "at least one, as [public]; without the key all addresses are announced to this peer")
	}
	repeats(v, p.Pools, path+".pools")
	for j, name := range p.Pools {
		at := fmt.Sprintf("%s.pools[%d]", path, j)
		i, ok := v.poolIndex[name]
		switch {
		case name == "" || v.poolsUnknown:
		case !ok:
			v.errorf(at, "there is no pool %s; %s", name, v.wantPool())
		case !slices.Contains(v.c.Pools[i].Announce, AnnounceBGP):
			v.errorf(at, "pool %s has no bgp in announce, line %d; add it there, or remove the pool here", name, v.pos.line(poolPath(i)+".announce"))
		}
	}
}
