package config

import (
	"net/netip"
	"slices"
)

// What can be done, but has no effect, or not the one that is meant: addresses that
// nobody hears of, flows that nobody shares, checks that others can pass.

// poolsOf returns the indices of the pools that s has addresses of, or can get.
func (v *validator) poolsOf(s *Service) []int {
	var all []int
	for _, a := range s.Addresses {
		if r, ok := v.inPool(a); ok && !slices.Contains(all, r.pool) {
			all = append(all, r.pool)
		}
	}
	for i := range v.c.Pools {
		p := &v.c.Pools[i]
		if s.Allocated() && (s.Pool == p.Name || s.Pool == "" && p.selects(s.Labels)) && !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	return all
}

// spreads warns of pools of which flows are to be spread, but cannot be: in mode
// nat only the node that has a flow can translate it.
func (v *validator) spreads() {
	if v.poolsUnknown || v.brokenIn("services") || !slices.ContainsFunc(v.c.Pools, func(p Pool) bool { return p.L2.AllActive }) {
		return
	}
	used, spread := make([]bool, len(v.c.Pools)), make([]bool, len(v.c.Pools))
	for i := range v.c.Services {
		s := &v.c.Services[i]
		for _, j := range v.poolsOf(s) {
			used[j], spread[j] = true, spread[j] || s.Mode != ModeNAT
		}
	}
	for i := range v.c.Pools {
		if v.c.Pools[i].L2.AllActive && used[i] && !spread[i] {
			v.warnf(poolPath(i)+".l2.all_active", "is for modes dsr and ipip, but all services with addresses of pool %s have mode nat; nothing is spread", v.poolName(i))
		}
	}
}

// audience is the peers that some addresses are announced to.
type audience struct {
	first    int // of bgp.peers; -1: none
	families map[Family]bool
}

// audience returns those that hear of addresses for which to says so.
func (v *validator) audience(to func(*BGPPeer) bool) audience {
	heard := audience{-1, make(map[Family]bool)}
	for i := range v.c.BGP.Peers {
		p := &v.c.BGP.Peers[i]
		if !to(p) {
			continue
		}
		if heard.first < 0 {
			heard.first = i
		}
		for _, f := range p.Families {
			heard.families[f] = true
		}
	}
	return heard
}

// unheard warns of addresses that are announced by BGP, but to no peer with routes
// of their family.
func (v *validator) unheard() {
	if v.c.BGP == nil || v.brokenIn("bgp.peers") || v.poolsUnknown || len(v.c.BGP.Peers) == 0 {
		return // too many peers count as broken, too
	}
	for i := range v.c.Pools {
		p, path := &v.c.Pools[i], poolPath(i)
		if !slices.Contains(p.Announce, AnnounceBGP) || v.brokenIn(path) {
			continue
		}
		heard := v.audience(func(peer *BGPPeer) bool { return p.announcedTo(peer) })
		if heard.first < 0 {
			v.warnf(path+".announce", "has bgp, but there is no peer that the pool is announced to; see pools of bgp.peers, and bgp.peers of the pool")
			continue
		}
		for _, f := range []Family{IPv4, IPv6} {
			if v.offers(i, f) && !heard.families[f] {
				v.silent(path+".announce", f, heard)
			}
		}
	}
	v.unheardServices()
}

// announcedTo says whether addresses of p are announced to a peer.
func (p *Pool) announcedTo(peer *BGPPeer) bool {
	return (len(p.BGP.Peers) == 0 || slices.Contains(p.BGP.Peers, peer.Name)) &&
		(len(peer.Pools) == 0 || slices.Contains(peer.Pools, p.Name))
}

// unheardServices does the same for addresses that are in no pool.
func (v *validator) unheardServices() {
	heard := v.audience(func(peer *BGPPeer) bool { return len(peer.Pools) == 0 })
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		if s.Allocated() || !slices.Contains(s.Announce, AnnounceBGP) {
			continue
		}
		for _, f := range []Family{IPv4, IPv6} {
			loose := slices.ContainsFunc(s.Addresses, func(a netip.Addr) bool {
				_, pooled := v.inPool(a)
				return isFamily(a, f) && !pooled
			})
			switch {
			case !loose:
			case heard.first < 0:
				v.warnf(path+".announce", "has bgp, but all of bgp.peers have pools, so that addresses in none are announced to no peer")
				return
			case !heard.families[f]:
				v.silent(path+".announce", f, heard)
			}
		}
	}
}

func (v *validator) silent(path string, f Family, heard audience) {
	at := peerPath(heard.first)
	v.warnf(path, "has bgp, but no peer that it is announced to has %s in families, so that routers do not hear of the %s addresses; add it, for example to %s.families, line %d", f, f.title(), at, v.pos.line(at))
}

// lonely warns of checks that can be passed by way of another node. A backend
// without the VIP that forwards packets sends a check to the router, and that to
// any node with a route. A node drops such checks of those that it knows.
func (v *validator) lonely() {
	if v.c.BGP == nil || v.c.Cluster != nil || v.known("cluster") || v.poolsUnknown || v.brokenIn("services") {
		return
	}
	for i := range v.c.Services {
		s := &v.c.Services[i]
		if s.Mode == ModeNAT || s.Health == nil || s.Health.Address != CheckVIP || len(s.Backends) == 0 {
			continue
		}
		routed := func(pool int) bool { return slices.Contains(v.c.Pools[pool].Announce, AnnounceBGP) }
		if slices.Contains(s.Announce, AnnounceBGP) || slices.ContainsFunc(v.poolsOf(s), routed) {
			v.warnf("bgp", "there is no cluster section, so that this node does not know the addresses of other nodes: a backend without the VIP that forwards packets (ip_forward=1) may pass the check of another node, as of service %s; give the nodes a cluster, if there is more than this one", v.name(i))
			return
		}
	}
}
