package config

import (
	"cmp"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// maxPairs bounds the pairs of VIP and port range of all services together.
const maxPairs = 1 << 20

// wantedEntries is how many table entries each backend should have, so that the
// shares of the backends differ by about 1 % at most; Maglev paper (NSDI 2016),
// section 3.4.
const wantedEntries = 100

// validator checks services against each other.
type validator struct {
	*report
	c    *Config
	vips map[netip.Addr]string // path of the first use
}

func (v *validator) services() {
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
	}
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		v.backends(s, path)
		v.table(s, path)
	}
	v.overlaps()
	v.source("ipip.source", v.c.IPIP.Source)
	v.source("ipip.source6", v.c.IPIP.Source6)
	v.sourcePrefix("ipip.source_prefix", v.c.IPIP.SourcePrefix)
	v.sourcePrefix("ipip.source_prefix6", v.c.IPIP.SourcePrefix6)
}

func (v *validator) source(path string, a netip.Addr) {
	if vip, ok := v.vips[a]; ok {
		v.errorf(path, "%s is also a VIP, %s in line %d; want an address of the box's own", a, vip, v.pos.line(vip))
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
}

func servicePath(i int) string { return fmt.Sprintf("services[%d]", i) }

func (v *validator) addresses(s *Service, path string) {
	if len(s.Addresses) == 0 && !v.pos.has(path+".pool") {
		v.absent(path, "addresses", "at least one VIP, as [203.0.113.10]")
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
}

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

func (v *validator) health(s *Service, path string) {
	path += ".health"
	h := s.Health
	if h == nil || v.broken[path] {
		return
	}
	check, port := "", uint16(0)
	switch {
	case h.TCP != nil && h.HTTP != nil:
		v.errorf(path, "has both tcp and http; keep one of them")
	case h.TCP != nil:
		check, port = path+".tcp", h.TCP.Port
	case h.HTTP != nil:
		check, port = path+".http", h.HTTP.Port
		if len(h.HTTP.Codes) == 0 {
			v.absent(check, "codes", wantCodes)
		}
	case !v.pos.has(path+".tcp") && !v.pos.has(path+".http"):
		v.errorf(path, "has no check; want one of tcp: {}, http: {path: /healthz}")
	}
	ports := path[:len(path)-len("health")] + "ports"
	known := !v.broken[check] && !v.broken[check+".port"] && len(s.Ports) > 0 && !v.broken[ports] && !slices.Contains(s.Ports, Port{})
	if check != "" && port == 0 && known {
		v.absent(check, "port", "the port to check, as the service names no port of tcp that could be taken")
	}
	if h.Timeout > h.Interval && !v.broken[path+".interval"] {
		v.errorf(path+".timeout", "%s is longer than the interval of %s; want at most that", short(h.Timeout), short(h.Interval))
	}
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
	if sound && s.Mode != "" {
		v.coverage(s, path)
	}
}

// coverage checks that each VIP has backends that can serve it, and each
// backend a VIP that it can serve. In dsr mode the frame stays as it is and the
// backend takes it in by the VIP's own family; a tunnel carries either family in
// either.
func (v *validator) coverage(s *Service, path string) {
	if s.Mode == ModeIPIP {
		v.capacity(path, "", s.Backends)
		return
	}
	for _, v6 := range []bool{false, true} {
		family, other := "IPv4", "IPv6"
		if v6 {
			family, other = other, family
		}
		vip := slices.IndexFunc(s.Addresses, func(a netip.Addr) bool { return a.IsValid() && a.Is6() == v6 })
		if vip < 0 {
			v.useless(s, path, v6, family)
			continue
		}
		able := slices.DeleteFunc(slices.Clone(s.Backends), func(b Backend) bool { return b.Address.Is6() != v6 })
		if len(able) == 0 {
			v.errorf(fmt.Sprintf("%s.addresses[%d]", path, vip), "%s is an %s VIP but all backends are %s; dsr wants backends of the VIP's own family, mode ipip mixes them", s.Addresses[vip], family, other)
			continue
		}
		v.capacity(path, family+" ", able)
	}
}

// useless reports the backends of a family that no VIP has. If all are of that
// family, the VIPs have been reported for it.
func (v *validator) useless(s *Service, path string, v6 bool, family string) {
	fits := func(b Backend) bool { return b.Address.Is6() != v6 }
	if len(s.Addresses) == 0 || v.broken[path+".addresses"] || slices.Contains(s.Addresses, netip.Addr{}) || !slices.ContainsFunc(s.Backends, fits) {
		return
	}
	for j, b := range s.Backends {
		if !fits(b) {
			v.errorf(fmt.Sprintf("%s.backends[%d].address", path, j), "%s is an %s backend but the service has no %s VIP, so that dsr can never use it; remove it, add a VIP of its family, or use mode ipip, which mixes them", b.Address, family, family)
		}
	}
}

// capacity checks that some of these backends, of a family if it is named, can
// serve. Taking the last one out is only warned of: who must do that at once
// must not have to take the service away, too.
func (v *validator) capacity(path, family string, backends []Backend) {
	path += ".backends"
	every := func(f func(Backend) bool) bool {
		return !slices.ContainsFunc(backends, func(b Backend) bool { return !f(b) })
	}
	switch {
	case every(func(b Backend) bool { return b.Weight == 0 }):
		v.errorf(path, "all %sbackends have weight 0; want a weight above 0 for at least one", family)
	case every(func(b Backend) bool { return b.State == Disabled }):
		v.warnf(path, "all %sbackends are disabled; their VIPs forward nothing", family)
	case every(func(b Backend) bool { return b.State != Active || b.Weight == 0 }):
		v.warnf(path, "no %sbackend is active with a weight above 0; the service takes no new flows", family)
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

// claim is a range of ports that a service has on one VIP and protocol.
type claim struct {
	service, port int // indices
	ports         Port
}

// overlaps reports ports that two services claim on the same VIP, or one
// service claims twice.
func (v *validator) overlaps() {
	type key struct {
		vip   netip.Addr
		proto Proto
	}
	claims := make(map[key][]claim)
	var order []key // so that the report does not depend on the map's
	pairs := 0
	for i, s := range v.c.Services {
		var own []claim
		for j, p := range s.Ports {
			if p.Lo != 0 {
				own = append(own, claim{i, j, p})
			}
		}
		v.collide(own, "")
		if pairs += len(s.Addresses) * len(own); pairs > maxPairs {
			v.errorf(servicePath(i), "the services up to here have more than %d pairs of address and port; want ranges of ports, or fewer services", maxPairs)
			return
		}
		vips := slices.Clone(s.Addresses)
		slices.SortFunc(vips, netip.Addr.Compare)
		for _, vip := range slices.Compact(vips) {
			if !vip.IsValid() {
				continue
			}
			for _, c := range own {
				k := key{vip, c.ports.Proto}
				if claims[k] == nil {
					order = append(order, k)
				}
				claims[k] = append(claims[k], c)
			}
		}
	}
	for _, k := range order {
		v.collide(claims[k], k.vip.String())
	}
}

// collide reports overlaps: those between different services on a VIP, or if
// vip is empty those within the one service that all claims are of. Each claim
// is compared with the one before it, by first port, that reaches farthest.
func (v *validator) collide(claims []claim, vip string) {
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.ports.Proto, b.ports.Proto), cmp.Compare(a.ports.Lo, b.ports.Lo))
	})
	// far reaches farthest, next farthest of those that are of another service.
	var far, next claim
	for _, c := range claims {
		other := far
		if vip != "" && other.service == c.service {
			other = next
		}
		if other.ports.Proto == c.ports.Proto && c.ports.Lo <= other.ports.Hi {
			v.collision(other, c, vip)
		}
		switch {
		case far.ports.Proto != c.ports.Proto:
			far, next = c, claim{}
		case c.ports.Hi > far.ports.Hi:
			if far.service != c.service {
				next = far
			}
			far = c
		case c.service != far.service && c.ports.Hi > next.ports.Hi:
			next = c
		}
	}
}

// collision reports the one of two claims that is later in the file.
func (v *validator) collision(a, b claim, vip string) {
	if cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.port, b.port)) > 0 {
		a, b = b, a
	}
	path := func(c claim) string { return fmt.Sprintf("services[%d].ports[%d]", c.service, c.port) }
	line := v.pos.line(path(a))
	if vip == "" {
		v.errorf(path(b), "%s overlaps %s in line %d of the same service; keep one", b.ports, a.ports, line)
		return
	}
	name := func(c claim) string {
		if n := v.c.Services[c.service].Name; n != "" {
			return n
		}
		return servicePath(c.service)
	}
	v.errorf(path(b), "%s of service %s overlaps %s of service %s in line %d, both have VIP %s; change the ports or the VIP of one", b.ports, name(b), a.ports, name(a), line, vip)
}
