package config

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// wantedEntries is how many table entries each backend should have, so that the
// shares of the backends differ by about 1 % at most; Maglev paper (NSDI 2016),
// section 3.4.
const wantedEntries = 100

// validator checks services against each other.
type validator struct {
	*report
	c    *Config
	vips map[netip.Addr]string // path of the first use
	snat map[netip.Addr]string // path of the SNAT address, or of what it is in

	// The file has some that could not be decoded.
	snatUnknown, poolsUnknown, peersUnknown, interfacesUnknown bool

	poolIndex map[string]int    // by name
	offered   []map[Family]bool // by pool: of which it has addresses to give
	peerNames map[string]bool
	ranges    []ranged                   // of all pools, by first address; only good ones
	others    []string                   // the nodes of nat.nodes but this one
	snatOf    map[string]map[Family]bool // which SNAT addresses nodes have
}

func (v *validator) services() {
	v.unknown()
	v.peers()
	v.pools()
	if len(v.c.Services) == 0 && !v.broken["services"] && !v.broken[""] {
		v.warnf("services", "there are no services; weir forwards nothing")
	}
	names := make(map[string]string)
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		if s.Name == "" {
			v.absent(path, "name", "a name of lower-case letters, digits and dashes, as web")
		} else if first, ok := names[s.Name]; ok {
			v.errorf(path+".name", "%s is the name of two services; the first is %s in line %d, rename one", s.Name, first, v.pos.line(first))
		} else {
			names[s.Name] = path + ".name"
		}
		v.addresses(s, path)
		if len(s.Ports) == 0 {
			v.absent(path, "ports", "at least one, as [tcp/80]")
		}
		v.health(s, path)
		v.policy(s, path)
	}
	v.nodes()
	v.snatUnknown = v.broken["nat"] || v.broken["nat.shared"] || v.brokenIn("nat.addresses") || v.brokenIn("nat.nodes") || v.brokenIn("nat.shared.addresses")
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		v.backends(s, path)
		v.table(s, path)
	}
	v.minimums()
	v.overlaps()
	v.agreement("ping", true, func(s Service) string { return string(s.Ping) })
	v.agreement("reject", true, func(s Service) string { return string(s.Reject) })
	v.agreement("announce", false, ways)
	v.shares()
	v.keeps()
	v.nat()
	v.source("ipip.source", v.c.IPIP.Source)
	v.source("ipip.source6", v.c.IPIP.Source6)
	v.sourcePrefix("ipip.source_prefix", v.c.IPIP.SourcePrefix)
	v.sourcePrefix("ipip.source_prefix6", v.c.IPIP.SourcePrefix6)
	v.cluster()
	v.bgp()
	v.endpointVIPs()
	v.poolConflicts()
	v.unheard()
	v.lonely()
	v.spreads()
}

// ways is how the addresses that s lists are announced.
func ways(s Service) string {
	switch {
	case s.Allocated() || slices.Contains(s.Announce, ""):
		return ""
	case len(s.Announce) == 0:
		return "nothing"
	}
	return joinWords(slices.Sorted(slices.Values(s.Announce)))
}

func (v *validator) source(path string, a netip.Addr) {
	if vip, ok := v.vips[a]; ok {
		v.errorf(path, "%s is also a VIP, %s in line %d; want an address of the box's own", a, vip, v.pos.line(vip))
	}
	if at, ok := v.snat[a]; ok && slices.Contains(v.c.NAT.Addresses, a) {
		v.errorf(path, "%s is also a SNAT address, %s in line %d; want an address of the box's own", a, at, v.pos.line(at))
	}
}

// sourcePrefix reports the first VIP or backend that the source of a tunnelled
// packet could be mistaken for: what answers to the source (ICMP errors) would
// go there.
func (v *validator) sourcePrefix(path string, p netip.Prefix) {
	report := func(what, at string, a netip.Addr) {
		v.errorf(path, "%s contains the %s %s, %s in line %d; want a prefix that nothing else has addresses in", p, what, a, at, v.pos.line(at))
	}
	for i, s := range v.c.Services {
		for j, a := range s.Addresses {
			if p.Contains(a) {
				report("VIP", fmt.Sprintf("%s.addresses[%d]", servicePath(i), j), a)
				return
			}
		}
		for j, b := range s.Backends {
			if p.Contains(b.Address) {
				report("backend", fmt.Sprintf("%s.backends[%d].address", servicePath(i), j), b.Address)
				return
			}
		}
	}
	for _, a := range v.c.NAT.Addresses {
		if p.Contains(a) {
			report("SNAT address", v.snat[a], a)
			return
		}
	}
}

func servicePath(i int) string { return fmt.Sprintf("services[%d]", i) }

// unicast says whether a is an address that a VIP or a backend can have, and
// reports if it is not.
func (v *validator) unicast(path string, a netip.Addr, what string) bool {
	if !a.IsValid() {
		return false
	}
	problem := unusable(a)
	switch {
	case a.Is4In6():
		v.errorf(path, "%s is %s, which %s cannot be; want %s", a, problem, what, a.Unmap())
	case problem != "":
		v.errorf(path, "%s is %s, which %s cannot be; want a unicast address", a, problem, what)
	}
	return problem == ""
}

func (v *validator) backends(s *Service, path string) {
	if len(s.Backends) == 0 {
		v.absent(path, "backends", "at least one, as {address: 10.0.0.11}")
		return
	}
	first := make(map[netip.Addr]string, len(s.Backends))
	sound := !v.broken[path+".backends"]
	for j, b := range s.Backends {
		entry := fmt.Sprintf("%s.backends[%d]", path, j)
		at := entry + ".address"
		if !b.Address.IsValid() {
			v.absent(entry, "address", "the IP address of the backend, as 10.0.0.11")
		}
		v.backend(s, b, entry)
		if b.State == "" || !v.unicast(at, b.Address, "a backend") {
			sound = false
			continue
		}
		if vip, ok := v.vips[b.Address]; ok {
			v.errorf(at, "%s is also a VIP, %s in line %d; want an address of the server's own", b.Address, vip, v.pos.line(vip))
		}
		if other, ok := first[b.Address]; ok {
			v.errorf(at, "%s is here twice; the first is in line %d, keep one", b.Address, v.pos.line(other))
			continue
		}
		first[b.Address] = at
	}
	if sound && s.Mode != "" && s.ClientAddress != "" {
		v.coverage(s, path)
	}
}

// backend checks the keys of a backend that depend on the mode, or on the family
// of its address.
func (v *validator) backend(s *Service, b Backend, path string) {
	if b.Port != 0 && s.Mode != ModeNAT && s.Mode != "" {
		v.errorf(path+".port", "is for mode nat; mode %s leaves ports as they are, so the backend listens on the ports of the service; remove it, or set mode to nat", s.Mode)
	}
	if b.MTU != 0 && b.MTU < minMTU6 && b.Address.Is6() && !b.Address.Is4In6() {
		v.errorf(path+".mtu", "%d is less than every IPv6 path has; want at least %d", b.MTU, minMTU6)
	}
}

func (v *validator) table(s *Service, path string) {
	path += ".table_size"
	n, size := len(s.Backends), s.TableSize
	if size == 0 || v.broken[path] {
		return
	}
	switch {
	case !prime(size):
		v.errorf(path, "%d is not a prime, as Maglev hashing needs; want for example %d", size, nextPrime(size))
	case size <= n:
		v.errorf(path, "%d entries are too few for %d backends; want for example %d", size, n, nextPrime(wantedEntries*n))
	case size < wantedEntries*n:
		v.warnf(path, "%d entries are less than %d for each of %d backends, so that their shares are uneven; better is %d", size, wantedEntries, n, nextPrime(wantedEntries*n))
	}
}

// prime is exact for all table sizes: ProbablyPrime is, below 2^64.
func prime(n int) bool { return big.NewInt(int64(n)).ProbablyPrime(0) }

// nextPrime returns the smallest prime >= n that a table can have, or else the
// largest that it can have.
func nextPrime(n int) int {
	p := n
	for p < maxTable && !prime(p) {
		p++
	}
	for p = min(p, maxTable); !prime(p); p-- {
	}
	return p
}
