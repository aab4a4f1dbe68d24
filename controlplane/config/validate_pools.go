package config

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// How many addresses one range of a pool has at most, as a power of two. More
// than that are a typing error; and a network of IPv6 has 64 bits of them.
const (
	maxPoolBits  = 24
	maxPoolBits6 = 96
)

func poolPath(i int) string { return fmt.Sprintf("pools[%d]", i) }

func rangePath(i, j int) string { return fmt.Sprintf("pools[%d].addresses[%d]", i, j) }

// How many pools, and ranges of all of them together, there can be. Each service
// is held against each pool.
const (
	maxPools  = 256
	maxRanges = 4096
)

// pools checks pools by themselves and against each other; poolConflicts is for
// what else has addresses.
func (v *validator) pools() {
	v.poolIndex = make(map[string]int)
	ranges := 0
	for _, p := range v.c.Pools {
		ranges += len(p.Ranges)
	}
	if len(v.c.Pools) > maxPools || ranges > maxRanges {
		v.errorf("pools", "are more than %d, or have more than %d ranges in all; want fewer and larger ones", maxPools, maxRanges)
		v.poolsUnknown = true
		return
	}
	for i := range v.c.Pools {
		p, path := &v.c.Pools[i], poolPath(i)
		if p.Name == "" {
			v.absent(path, "name", "a name of lower-case letters, digits and dashes, as public")
		} else if j, ok := v.poolIndex[p.Name]; ok {
			first := poolPath(j) + ".name"
			v.errorf(path+".name", "%s is the name of two pools; the first is %s in line %d, rename one", p.Name, first, v.pos.line(first))
		} else {
			v.poolIndex[p.Name] = i
		}
		v.offered = append(v.offered, map[Family]bool{IPv4: p.offers(IPv4), IPv6: p.offers(IPv6)})
		if len(p.Ranges) == 0 {
			v.absent(path, "addresses", "at least one prefix, range or address, as [203.0.113.0/28]")
		}
		for j, r := range p.Ranges {
			v.poolRange(r, rangePath(i, j))
		}
		v.offer(p, path)
		v.announced(p.Announce, path+".announce")
		v.poolL2(p, path)
		v.poolBGP(i)
	}
	v.poolOverlaps()
	v.sortRanges()
}

// offer checks that a pool has something to give.
func (v *validator) offer(p *Pool, path string) {
	if len(p.Ranges) == 0 || slices.Contains(p.Ranges, Range{}) || v.brokenIn(path+".addresses") {
		return
	}
	if !p.offers(IPv4) && !p.offers(IPv6) {
		v.errorf(path+".addresses", "has only addresses that end in .0 or .255, which avoid_buggy_ips leaves out; want more addresses, or avoid_buggy_ips: false")
	}
	if len(p.Selector) > 0 && !p.AutoAssign {
		v.errorf(path+".services", "says which services get an address without naming the pool, but with auto_assign false none does; remove one of them")
	}
	if len(p.Selector) == 0 && v.pos.has(path+".services") && !v.broken[path+".services"] {
		v.absent(path, "services", "at least one label, as {tier: gold}; without the key all services are taken")
	}
}

// poolRange checks that all addresses of r can be VIPs.
func (v *validator) poolRange(r Range, path string) {
	const what = "an address of a pool"
	if !v.unicast(path, r.From, what) || r.To != r.From && !v.unicast(path, r.To, what) {
		return
	}
	most := maxPoolBits
	if r.From.Is6() {
		most = maxPoolBits6
	}
	if n := r.sizeBits(); n > most {
		v.errorf(path, "%s has more than 2^%d addresses; want fewer, a pool is what services can get", r, most)
		return
	}
	for _, p := range special() {
		if r.overlaps(Range{p.Addr(), last(p)}) {
			v.errorf(path, "%s contains addresses of %s, which %s cannot be; want unicast addresses only", r, p, what)
			return
		}
	}
}

// special returns the networks whose addresses are unusable.
func special() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{"127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// overlaps says whether r and s, both valid, have addresses in common.
func (r Range) overlaps(s Range) bool {
	return r.From.BitLen() == s.From.BitLen() && !s.To.Less(r.From) && !r.To.Less(s.From)
}

// sizeBits returns the least n for which r has no more than 2^n addresses.
func (r Range) sizeBits() int {
	lo, hi := r.From.As16(), r.To.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(hi[8:]), binary.BigEndian.Uint64(lo[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(hi[:8]), binary.BigEndian.Uint64(lo[:8]), borrow)
	if high > 0 {
		return 64 + bits.Len64(high)
	}
	return bits.Len64(low)
}

// entry is a range of a pool.
type entry struct{ pool, index int }

// poolOverlaps reports addresses that are in two ranges, of one pool or of two.
func (v *validator) poolOverlaps() {
	var spans []span
	var entries []entry
	for i, p := range v.c.Pools {
		for j, r := range p.Ranges {
			if v.broken[rangePath(i, j)] {
				continue
			}
			spans = append(spans, span{lo: r.From, hi: r.To})
			entries = append(entries, entry{i, j})
		}
	}
	of := func(e entry) (r Range, path, pool string) {
		return v.c.Pools[e.pool].Ranges[e.index], rangePath(e.pool, e.index), v.poolName(e.pool)
	}
	overlapping(spans, func(a, b int) {
		first, at, pool := of(entries[a])
		second, path, pool2 := of(entries[b])
		if entries[a].pool == entries[b].pool {
			v.errorf(path, "%s overlaps %s in line %d of the same pool, %s; want each address once", second, first, v.pos.line(at), pool)
			return
		}
		v.errorf(path, "%s of pool %s overlaps %s of pool %s in line %d; want each address in one pool", second, pool2, first, pool, v.pos.line(at))
	})
}

// poolName is what errors call a pool.
func (v *validator) poolName(i int) string {
	if name := v.c.Pools[i].Name; name != "" {
		return name
	}
	return poolPath(i)
}

func (v *validator) poolL2(p *Pool, path string) {
	path += ".l2"
	if v.pos.has(path) && !slices.Contains(p.Announce, AnnounceL2) && !slices.Contains(p.Announce, "") {
		v.errorf(path, "is for announce l2, but announce is [%s]; remove it, or add l2 to announce", joinWords(p.Announce))
	}
	if at := path + ".interfaces"; v.pos.has(at) && len(p.L2.Interfaces) == 0 {
		v.absent(path, "interfaces", "at least one, as [eth1]; without the key the pool is announced on all")
	}
	repeats(v, p.L2.Interfaces, path+".interfaces")
	for j, name := range p.L2.Interfaces {
		at := fmt.Sprintf("%s.interfaces[%d]", path, j)
		switch {
		case name == "":
		case !v.interfacesUnknown && !slices.ContainsFunc(v.c.Interfaces, func(i Interface) bool { return i.Name == name }):
			v.errorf(at, "%s is not one of interfaces; want the name of one that weir takes frames from", name)
		}
	}
	if p.L2.AllActive && v.c.Cluster == nil && !v.known("cluster") {
		v.warnf(path+".all_active", "there is no cluster section, so that there is no other node to spread flows over")
	}
}

func (v *validator) poolBGP(i int) {
	p, path := &v.c.Pools[i], poolPath(i)+".bgp"
	if v.pos.has(path) && !slices.Contains(p.Announce, AnnounceBGP) && !slices.Contains(p.Announce, "") {
		v.errorf(path, "is for announce bgp, but announce is [%s]; remove it, or add bgp to announce", joinWords(p.Announce))
	}
	repeats(v, p.BGP.Communities, path+".communities")
	if at := path + ".peers"; v.pos.has(at) && len(p.BGP.Peers) == 0 {
		v.absent(path, "peers", "at least one, as [router1]; without the key the pool is announced to all")
	}
	repeats(v, p.BGP.Peers, path+".peers")
	for j, name := range p.BGP.Peers {
		at := fmt.Sprintf("%s.peers[%d]", path, j)
		switch {
		case name == "":
		case v.c.BGP == nil || v.peersUnknown:
		case !v.peerNames[name]:
			v.errorf(at, "there is no peer %s in bgp.peers; want the name of one, or its address if it has none", name)
		}
	}
	for j, r := range p.Ranges {
		v.aggregate(r, p, path, rangePath(i, j))
	}
}

// aggregate checks that announced prefixes have no other addresses in them than
// those of the pool: what is sent to the others would be lost.
func (v *validator) aggregate(r Range, p *Pool, path, at string) {
	if !r.From.IsValid() {
		return
	}
	key, length := ".aggregation", p.BGP.Aggregation
	if r.From.Is6() {
		key, length = ".aggregation6", p.BGP.Aggregation6
	}
	if v.broken[path+key] {
		return
	}
	first, err1 := r.From.Prefix(length)
	end, err2 := r.To.Prefix(length)
	if err1 == nil && err2 == nil && (first.Addr() != r.From || last(end) != r.To) {
		v.errorf(path+key, "is %d, but %s in line %d does not consist of whole prefixes of that length, so that other addresses would be announced with it; want a longer one, at most /%d, or other ranges", length, r, v.pos.line(at), r.From.BitLen())
	}
}

// poolConflicts reports addresses in pools that are something else already, so
// that no service may get them.
func (v *validator) poolConflicts() {
	reported := make(map[netip.Addr]bool)
	check := func(what, at string, a netip.Addr) {
		r, ok := v.inPool(a)
		if !ok || reported[a] || v.c.Pools[r.pool].avoids(a) {
			return
		}
		reported[a] = true
		v.errorf(r.path(), "%s of pool %s contains %s, %s in line %d; want ranges that nothing else has addresses in", r.Range, v.poolName(r.pool), a, what, v.pos.line(at))
	}
	for i, s := range v.c.Services {
		for j, b := range s.Backends {
			check("a backend", fmt.Sprintf("%s.backends[%d].address", servicePath(i), j), b.Address)
		}
	}
	check("ipip.source", "ipip.source", v.c.IPIP.Source)
	check("ipip.source6", "ipip.source6", v.c.IPIP.Source6)
	for i, a := range v.c.NAT.Shared.Addresses {
		check("a SNAT address", fmt.Sprintf("nat.shared.addresses[%d]", i), a)
	}
	for _, e := range v.endpoints() {
		check(e.what, e.path, e.address)
	}
	for _, r := range v.ranges {
		for _, p := range []netip.Prefix{v.c.IPIP.SourcePrefix, v.c.IPIP.SourcePrefix6} {
			if p.IsValid() && r.overlaps(Range{p.Masked().Addr(), last(p)}) {
				v.errorf(r.path(), "%s of pool %s overlaps the source prefix %s of ipip; want ranges that nothing else has addresses in", r.Range, v.poolName(r.pool), p)
			}
		}
	}
	v.poolSNAT()
}

// ranged is a range, and where it is.
type ranged struct {
	Range
	entry
}

func (r ranged) path() string { return rangePath(r.pool, r.index) }

// sortRanges fills in v.ranges with those that nothing is wrong with.
func (v *validator) sortRanges() {
	for i, p := range v.c.Pools {
		for j, r := range p.Ranges {
			if r.From.IsValid() && !v.broken[rangePath(i, j)] {
				v.ranges = append(v.ranges, ranged{r, entry{i, j}})
			}
		}
	}
	slices.SortFunc(v.ranges, func(a, b ranged) int { return a.From.Compare(b.From) })
}

// upTo returns the last of v.ranges that begins at a or before.
func (v *validator) upTo(a netip.Addr) (ranged, bool) {
	n, _ := slices.BinarySearchFunc(v.ranges, a, func(r ranged, a netip.Addr) int {
		if a.Less(r.From) {
			return 1
		}
		return -1
	})
	if n == 0 {
		return ranged{}, false
	}
	return v.ranges[n-1], true
}

// inPool returns the range that a is in. Those that overlap others have been
// reported and are not looked at.
func (v *validator) inPool(a netip.Addr) (ranged, bool) {
	r, ok := v.upTo(a)
	return r, ok && r.Contains(a)
}

// offers says whether pool i has an address of f that it may give away.
func (v *validator) offers(i int, f Family) bool { return v.offered[i][f] }

// poolSNAT reports each entry of SNAT addresses that overlaps a pool.
func (v *validator) poolSNAT() {
	for _, s := range v.c.snat {
		if !s.lo.IsValid() {
			continue
		}
		if r, ok := v.upTo(s.hi); ok && r.overlaps(Range{s.lo, s.hi}) {
			v.errorf(s.path, "%s overlaps %s of pool %s in line %d; want addresses that no service can get", s.text, r.Range, v.poolName(r.pool), v.pos.line(r.path()))
		}
	}
}

// inPool returns the pool and the range that a is in.
func (c *Config) inPool(a netip.Addr) (pool, index int, ok bool) {
	for i := range c.Pools {
		if j := slices.IndexFunc(c.Pools[i].Ranges, func(r Range) bool { return r.Contains(a) }); j >= 0 {
			return i, j, true
		}
	}
	return 0, 0, false
}

// avoids says whether p does not give a away though it is in it.
func (p *Pool) avoids(a netip.Addr) bool { return p.AvoidBuggyIPs && buggy(a) }
