package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// CheckAddresses says what is wrong with the addresses that WithAddresses has
// given to services: by the rules that those in the file have to keep, and with a
// host by those that are about the box. The error is of type Errors; it is nil if
// nothing is wrong.
func (c *Config) CheckAddresses(host *Host) error {
	r := &report{pos: c.pos}
	validate(c, r)
	if host != nil {
		validateOn(c, host, r)
	}
	r.sort()
	if len(r.errors) > 0 {
		return r.errors
	}
	return nil
}

// addresses checks the VIPs of a service, or what it says about those that it is
// to get from a pool.
func (v *validator) addresses(s *Service, path string) {
	if v.listed(path) {
		v.explicit(s, path)
	} else {
		v.request(s, path)
	}
	own := make(map[netip.Addr]string, len(s.Addresses))
	for j, a := range s.Addresses {
		at := fmt.Sprintf("%s.addresses[%d]", path, j)
		if !v.unicast(at, a, "a VIP") {
			continue
		}
		if first, ok := own[a]; ok {
			v.errorf(at, "%s is here twice; the first is in line %d, keep one", a, v.pos.line(first))
			continue
		}
		own[a] = at
		if _, ok := v.vips[a]; !ok {
			v.vips[a] = at
		}
	}
	v.announced(s.Announce, path+".announce")
}

// explicit checks a service that lists its addresses.
func (v *validator) explicit(s *Service, path string) {
	const list = "addresses"
	if len(s.Addresses) == 0 {
		v.absent(path, list, "at least one VIP, as [203.0.113.10]; without the key they come from a pool")
	}
	for _, key := range []string{".pool", ".ip_families"} {
		if v.pos.has(path + key) {
			v.errorf(path+key, "is for addresses from a pool, but the service lists its own in line %d; keep one of them", v.pos.line(path+"."+list))
		}
	}
	if !v.pos.has(path + ".announce") {
		return
	}
	for _, a := range s.Addresses {
		if k, ok := v.inPool(a); ok {
			v.errorf(path+".announce", "is for addresses in no pool, but %s is in pool %s, which says how it is announced; remove it", a, v.poolName(k.pool))
			return
		}
	}
}

// request checks a service that gets its addresses from a pool.
func (v *validator) request(s *Service, path string) {
	if v.pos.has(path + ".announce") {
		v.errorf(path+".announce", "is for a service that lists its addresses; those of a pool are announced as that says, remove it")
	}
	families := path + ".ip_families"
	if v.pos.has(families) && len(s.Families) == 0 {
		v.absent(path, "ip_families", "ipv4, ipv6 or both; without the key they are those of the backends")
	}
	for _, j := range repeated(s.Families) {
		v.errorf(fmt.Sprintf("%s[%d]", families, j), "%s is here twice; keep one, a service gets one address of each family", s.Families[j])
	}
	if v.poolsUnknown {
		return
	}
	switch at := path + ".pool"; {
	case v.broken[at]:
	case s.Pool != "":
		v.named(s, at)
	case len(v.c.Pools) == 0:
		v.absent(path, "addresses", "at least one VIP, as [203.0.113.10], or else pools in the file to get one from")
	default:
		v.automatic(s, path)
	}
}

// unknown notes which names the file has that could not be decoded, so that it
// makes no sense to say that there is no such one. It is called first, as later
// what is broken can also be what was decoded.
func (v *validator) unknown() {
	v.poolsUnknown, v.peersUnknown, v.interfacesUnknown = v.broken[""], v.broken["bgp"], v.brokenIn("interfaces")
	for path := range v.broken {
		if strings.HasPrefix(path, "pools") && !strings.Contains(path, ".l2") && !strings.Contains(path, ".bgp") {
			v.poolsUnknown = true
		}
		if rest, ok := strings.CutPrefix(path, "bgp.peers"); ok && (!strings.Contains(rest, ".") || strings.HasSuffix(rest, ".name") || strings.HasSuffix(rest, ".address")) {
			v.peersUnknown = true
		}
	}
}

// named checks that the pool a service names has what it wants.
func (v *validator) named(s *Service, at string) {
	i, ok := v.poolIndex[s.Pool]
	if !ok {
		v.errorf(at, "there is no pool %s; %s", s.Pool, v.wantPool())
		return
	}
	for _, f := range s.Families {
		if f != "" && !v.offers(i, f) {
			v.errorf(at, "pool %s has no %s address, which the service asks for; want another pool, an %s range in this one, or ip_families without %s", s.Pool, f.title(), f.title(), f)
		}
	}
}

// wantPool says which pools there are to name.
func (v *validator) wantPool() string {
	if len(v.c.Pools) == 0 {
		return "the file has no pools"
	}
	return "want one of " + joinPools(v.c.Pools)
}

// joinPools names the pools, the first few if they are many.
func joinPools(pools []Pool) string {
	var names []string
	for i, p := range pools {
		if i == 8 {
			names = append(names, fmt.Sprintf("%d more", len(pools)-i))
			break
		}
		names = append(names, p.Name)
	}
	return joinWords(names)
}

// automatic checks that there is a pool for a service that names none.
func (v *validator) automatic(s *Service, path string) {
	var fit []int
	for i := range v.c.Pools {
		if v.c.Pools[i].selects(s.Labels) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		v.errorf(path, "lists no addresses and names no pool, and no pool with auto_assign takes it by its labels; want addresses, a pool, or other labels; the pools are %s", joinPools(v.c.Pools))
		return
	}
	for _, f := range s.Families {
		if f != "" && !slices.ContainsFunc(fit, func(i int) bool { return v.offers(i, f) }) {
			v.errorf(path, "asks for an %s address, which no pool with auto_assign has that takes it by its labels; want an %s range in one, a pool: of its own, or ip_families without %s", f.title(), f.title(), f)
		}
	}
}

// announced checks that what addresses are announced by is there.
func (v *validator) announced(ways []Announce, path string) {
	repeats(v, ways, path)
	for j, way := range ways {
		if way == AnnounceBGP && v.c.BGP == nil && !v.known("bgp") {
			v.errorf(fmt.Sprintf("%s[%d]", path, j), "bgp has no use without a bgp section, which says who the peers are; add one, as bgp: {asn: 65010, peers: [{address: 10.0.0.1, asn: 65000}]}, or remove it")
		}
	}
}

// repeated returns the indices of what is in a list before, zero values left out.
func repeated[T comparable](list []T) []int {
	var zero T
	var again []int
	seen := make(map[T]bool, len(list))
	for i, v := range list {
		if v != zero && seen[v] {
			again = append(again, i)
		}
		seen[v] = true
	}
	return again
}

// repeats reports what is in a list twice.
func repeats[T ~string](v *validator, list []T, path string) {
	for _, i := range repeated(list) {
		v.errorf(fmt.Sprintf("%s[%d]", path, i), "%s is here twice; keep one", list[i])
	}
}

// known says whether the file has the field at path, right or wrong.
func (v *validator) known(path string) bool { return v.pos.has(path) || v.broken[path] }

// shares checks services that have the same key to get the same address, as far
// as that is not about ports.
func (v *validator) shares() {
	first := make(map[string]int)
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		if s.Share == "" || !s.Allocated() || slices.Contains(s.Families, "") {
			continue
		}
		j, ok := first[s.Share]
		if !ok {
			first[s.Share] = i
			continue
		}
		other := &v.c.Services[j]
		line := v.pos.line(servicePath(j) + ".share")
		if !sameFamilies(s.Families, other.Families) {
			v.errorf(path+".share", "is also that of service %s in line %d, which gets addresses of %s, but this one of %s; want the same ip_families in both, or another key", v.name(j), line, joinWords(other.Families), joinWords(s.Families))
		}
		if !v.together(s, other) {
			v.errorf(path+".share", "is also that of service %s in line %d, but there is no pool that both get addresses from; want the same pool in both, or another key", v.name(j), line)
		}
	}
}

func sameFamilies(a, b []Family) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(f Family) bool { return !slices.Contains(b, f) })
}

// together says whether there is a pool that both services get addresses from.
func (v *validator) together(s, other *Service) bool {
	gives := func(p *Pool, s *Service) bool { return p.Name == s.Pool || s.Pool == "" && p.selects(s.Labels) }
	none := func(s *Service) bool {
		return !slices.ContainsFunc(v.c.Pools, func(p Pool) bool { return gives(&p, s) })
	}
	if v.poolsUnknown || none(s) || none(other) { // which has been reported
		return true
	}
	return slices.ContainsFunc(v.c.Pools, func(p Pool) bool { return gives(&p, s) && gives(&p, other) })
}
