package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/announce"
)

// route is what one peer is told about one prefix. The AS path is the session's
// business.
type route struct {
	nextHop     netip.Addr // invalid: the session's local address
	communities communities
	med         *uint32
	localPref   *uint32 // nil for eBGP

	// note says that the prefix cannot be announced quite as configured. It is
	// for people, and no part of the route.
	note string
}

// same reports whether a peer would be told the same.
func (r *route) same(other *route) bool {
	return r.nextHop == other.nextHop && r.communities.equal(other.communities) &&
		equal(r.med, other.med) && equal(r.localPref, other.localPref)
}

func equal(a, b *uint32) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// plan returns what each peer is to be told, by its name. With leaving, every
// route asks to be avoided (RFC 8326).
func plan(c *prepared, ads []announce.Advertisement, leaving bool) map[string]map[netip.Prefix]route {
	ads = slices.Clone(ads)
	// One prefix has one route. Where pools that share it want different ones, the
	// first pool by name is followed, whatever the order of the set.
	slices.SortFunc(ads, func(a, b announce.Advertisement) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.Address.Compare(b.Address))
	})
	all := make(map[string]map[netip.Prefix]route, len(c.peers))
	for i := range c.peers {
		peer := &c.peers[i]
		routes := make(map[netip.Prefix]route)
		from := make(map[netip.Prefix]string)
		made := make(map[string][2]*route) // by pool, for IPv4 and IPv6
		for _, ad := range ads {
			address := ad.Address.Unmap()
			if !peer.takes(c, ad.Pool, address) {
				continue
			}
			both := made[ad.Pool]
			r := &both[0]
			if address.Is6() {
				r = &both[1]
			}
			if *r == nil {
				v := peer.route(c, ad.Pool, address.Is6(), leaving)
				*r = &v
				made[ad.Pool] = both
			}
			prefix := c.prefix(ad.Pool, address)
			before, ok := routes[prefix]
			if !ok {
				routes[prefix], from[prefix] = **r, ad.Pool
			} else if before.note == "" && !before.same(*r) {
				before.note = fmt.Sprintf("pools %q and %q want different attributes for it; it has those of %q", from[prefix], ad.Pool, from[prefix])
				routes[prefix] = before
			}
		}
		all[peer.Name] = routes
	}
	return all
}

// prefix returns what an address of a pool is announced as.
func (c *prepared) prefix(pool string, a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if p, ok := c.Pools[pool]; ok {
		bits = p.Aggregation
		if a.Is6() {
			bits = p.Aggregation6
		}
	}
	return netip.PrefixFrom(a.WithZone(""), bits).Masked()
}

// takes reports whether an address of a pool is announced to the peer.
func (p *preparedPeer) takes(c *prepared, pool string, a netip.Addr) bool {
	if a.Is4() && !p.IPv4 || a.Is6() && !p.IPv6 || !a.IsValid() {
		return false
	}
	if len(p.Pools) > 0 && !slices.Contains(p.Pools, pool) {
		return false
	}
	of := c.Pools[pool]
	if of.Nobody {
		return false
	}
	to := of.Peers
	return len(to) == 0 || slices.Contains(to, p.Name)
}

// route returns what the peer is told about prefixes of a pool.
func (p *preparedPeer) route(c *prepared, pool string, six, leaving bool) route {
	of := c.Pools[pool]
	r := route{nextHop: p.NextHop, med: cmp.Or(p.MED, of.MED), communities: join(c.communities[pool], p.communities)}
	if six {
		r.nextHop = p.NextHop6
	}
	if p.ibgp {
		r.localPref = cmp.Or(p.LocalPref, of.LocalPref)
	}
	if leaving {
		r.communities = join(r.communities, communities{standard: []uint32{gracefulShutdown}})
		if p.ibgp {
			r.localPref = new(uint32)
		}
	}
	return r
}
