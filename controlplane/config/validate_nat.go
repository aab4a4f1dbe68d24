package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// nat checks the SNAT addresses, and fills in v.snat.
func (v *validator) nat() {
	nat := &v.c.NAT
	used := func(s Service) bool { return s.Mode == "" || s.Mode == ModeNAT && s.ClientAddress != ClientKeep }
	if v.pos.has("nat") && !slices.ContainsFunc(v.c.Services, used) {
		v.warnf("nat", "no service has mode nat with client_address snat; this is not used")
	}
	v.oneNode()
	tooMany := v.c.tooManySNAT()
	if tooMany {
		v.tooMany()
	}
	for _, s := range v.c.snat {
		if !v.unicast(s.path, s.lo, "a SNAT address") || s.hi != s.lo && !v.unicast(s.path, s.hi, "a SNAT address") {
			continue
		}
		for a := range s.all() {
			if tooMany { // all of them could be thousands of millions
				break
			}
			v.snat[a] = s.path
		}
	}
	v.snatOverlaps()
	v.shared()
	switch {
	case len(v.c.snat) > 0:
	case v.pos.has("nat.nodes"):
		if !v.brokenIn("nat.nodes") {
			v.absent("nat", "nodes", "the addresses of each node, as {lb1: [10.0.0.240/31], lb2: [10.0.0.242/31]}")
		}
	case v.pos.has("nat") && len(nat.Shared.Addresses) == 0 && !v.brokenIn("nat.shared"):
		v.absent("nat", "addresses", "at least one, as [10.0.0.240/30], or else shared with addresses of the box")
	case v.pos.has("nat.ports") && !v.brokenIn("nat.addresses"):
		v.errorf("nat.ports", "are those of nat.addresses, of which there are none; remove them, those of shared addresses are in nat.shared.ports")
	}
	v.snatConflicts()
}

// maxNodes is how many nodes nat.nodes can have.
const maxNodes = 256

// nodes notes which node has SNAT addresses of which families.
func (v *validator) nodes() {
	v.snatOf = make(map[string]map[Family]bool)
	for _, s := range v.c.snat {
		if v.snatOf[s.node] == nil {
			v.snatOf[s.node] = make(map[Family]bool)
			if !v.c.ours(s) {
				v.others = append(v.others, s.node)
			}
		}
		if s.lo.IsValid() {
			v.snatOf[s.node][FamilyOf(s.lo)] = true
		}
	}
	if len(v.others) > maxNodes {
		v.errorf("nat.nodes", "has more than %d nodes; want those of one cluster", maxNodes)
	}
}

// oneNode checks that the file says whose SNAT addresses are in it.
func (v *validator) oneNode() {
	const list, nodes = "nat.addresses", "nat.nodes"
	switch {
	case v.pos.has(list) && v.pos.has(nodes):
		v.errorf(nodes, "is given next to %s in line %d; keep one of them", list, v.pos.line(list))
	case v.pos.has(list) && v.c.Cluster != nil:
		v.errorf(list, "would be of all nodes of the cluster at once, so that answers came to the wrong one; want nat.nodes, as nodes: {%s: [10.0.0.240/31], lb2: [10.0.0.242/31]}", v.c.Node)
	}
}

// ownSNAT says whether this node has a SNAT address of f that is its own.
func (v *validator) ownSNAT(f Family) bool { return v.snatOf[""][f] || v.snatOf[v.c.Node][f] }

// tooMany reports the entries that are too many by themselves, or else the list.
func (v *validator) tooMany() {
	found := false
	for _, s := range v.c.snat {
		if s.size() > MaxSNAT {
			found = true
			v.errorf(s.path, "%s has more than the %d addresses that there can be in all; want fewer, each has all of nat.ports for every backend", s.text, MaxSNAT)
		}
	}
	switch {
	case found:
	case v.pos.has("nat.nodes"):
		v.errorf("nat.nodes", "has more than %d addresses for one node, shared ones included, or more than %d for all of them; want fewer, each has all ports for every backend", MaxSNAT, maxAllSNAT)
	default:
		v.errorf("nat", "has more than %d addresses, shared ones included; want fewer, each has all ports for every backend", MaxSNAT)
	}
}

// snatOverlaps reports SNAT addresses that are in two entries.
func (v *validator) snatOverlaps() {
	overlapping(v.c.snat, func(a, b int) {
		first, second := v.c.snat[a], v.c.snat[b]
		v.errorf(second.path, "%s overlaps %s in line %d; want each address once", second.text, first.text, v.pos.line(first.path))
	})
}

// overlapping compares each span with the one before it, by first address, that
// reaches farthest. report gets the index of the earlier one first.
func overlapping(spans []span, report func(a, b int)) {
	var order []int
	for i, s := range spans {
		if s.lo.IsValid() {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return spans[i].lo.Compare(spans[j].lo) })
	far := 0
	for n, i := range order {
		if n == 0 {
			far = i
			continue
		}
		if !spans[far].hi.Less(spans[i].lo) {
			report(min(i, far), max(i, far))
		}
		if spans[far].hi.Less(spans[i].hi) {
			far = i
		}
	}
}

// shared checks the addresses that weir shares with the box.
func (v *validator) shared() {
	const path = "nat.shared"
	s := &v.c.NAT.Shared
	for i, a := range s.Addresses {
		at := fmt.Sprintf("%s.addresses[%d]", path, i)
		if !v.unicast(at, a, "a SNAT address") {
			continue
		}
		if other, ok := v.snat[a]; ok {
			v.errorf(at, "%s is here twice; the first is %s in line %d, keep one", a, other, v.pos.line(other))
			continue
		}
		v.snat[a] = at
	}
	if !v.pos.has(path) {
		return
	}
	if len(s.Addresses) == 0 {
		v.absent(path, "addresses", "at least one address of the box's own, as [10.0.0.2]")
	}
	if s.Ports == (PortRange{}) {
		v.absent(path, "ports", wantPorts+"; the kernel keeps the others")
	}
	if port, ok := v.listens(s.Addresses); ok && s.Ports.Lo <= port && port <= s.Ports.Hi {
		v.errorf("api.metrics", "has port %d, which is one of %s, nat.shared.ports in line %d, so that weir would take the packets to it; want another port", port, s.Ports, v.pos.line(path+".ports"))
	}
}

// listens returns the port of api.metrics, if that is on one of these addresses.
func (v *validator) listens(on []netip.Addr) (uint16, bool) {
	host, digits, err := net.SplitHostPort(v.c.API.Metrics)
	if err != nil {
		return 0, false
	}
	port, _ := parseDigits(digits)
	a, _ := netip.ParseAddr(host)
	return uint16(port), host == "" || a.IsUnspecified() || a.IsValid() && slices.Contains(on, a)
}

// snatConflicts reports SNAT addresses that are something else as well, once for
// each entry.
func (v *validator) snatConflicts() {
	reported := make(map[string]bool)
	check := func(what string, a netip.Addr, at string) {
		path, ok := v.snat[a]
		if !ok || reported[path] {
			return
		}
		reported[path] = true
		v.errorf(path, "%s is also a %s, %s in line %d; want an address that nothing else has", a, what, at, v.pos.line(at))
	}
	for i, s := range v.c.Services {
		for j, vip := range s.Addresses {
			check("VIP", vip, fmt.Sprintf("%s.addresses[%d]", servicePath(i), j))
		}
		for j, b := range s.Backends {
			check("backend", b.Address, fmt.Sprintf("%s.backends[%d].address", servicePath(i), j))
		}
	}
}

// maxKept is how many ports of backends can be watched for answers: as many as
// steer.MaxAnswers, which is what the maps in the kernel hold.
const maxKept = 65536

// keeps reports what client_address keep cannot tell apart: an answer comes from
// the address and port of a backend, so these have to follow from one VIP and
// port only.
func (v *validator) keeps() {
	type key struct {
		backend netip.Addr
		proto   Proto
	}
	claims := make(map[key][]claim)
	var order []key // so that the report does not depend on the map's
	pairs, kept := 0, 0
	for i, s := range v.c.Services {
		if s.Mode != ModeNAT || s.ClientAddress != ClientKeep {
			continue
		}
		v.keptVIPs(&s, servicePath(i))
		if pairs += len(s.Backends) * len(s.Ports); pairs > maxPairs {
			v.errorf(servicePath(i), "the services with client_address keep up to here have more than %d pairs of backend and port; want ranges of ports, or fewer services", maxPairs)
			return
		}
		for j, b := range s.Backends {
			for _, p := range v.keptPorts(&s, b, fmt.Sprintf("%s.backends[%d].port", servicePath(i), j)) {
				k := key{b.Address, p.Proto}
				if claims[k] == nil {
					order = append(order, k)
				}
				claims[k] = append(claims[k], claim{i, j, p})
				kept += int(p.Hi) - int(p.Lo) + 1
			}
		}
		if kept > maxKept {
			v.errorf(servicePath(i), "the services with client_address keep up to here have more than %d ports of backends in all, each of which has to be watched for answers; want fewer ports, or client_address snat", maxKept)
			return
		}
	}
	reported := make(map[[2]int]bool)
	for _, k := range order {
		v.collide(claims[k], true, func(a, b claim) {
			if pair := [2]int{a.service, b.service}; !reported[pair] {
				reported[pair] = true
				path := func(c claim) string { return fmt.Sprintf("%s.backends[%d]", servicePath(c.service), c.entry) }
				v.errorf(path(b), "%s gets %s from service %s, and %s from service %s in line %d, both with client_address keep, so that answers could not be told apart; want another backend or backend port, or client_address snat for one of them", k.backend, b.ports, v.name(b.service), a.ports, v.name(a.service), v.pos.line(path(a)))
			}
		})
	}
}

// keptVIPs reports a second VIP of a family.
func (v *validator) keptVIPs(s *Service, path string) {
	var first [2]int // of each family, index + 1
	for j, vip := range s.Addresses {
		if !vip.IsValid() || vip.Is4In6() {
			continue
		}
		n := 0
		if vip.Is6() {
			n = 1
		}
		if first[n] == 0 {
			first[n] = j + 1
			continue
		}
		if other := s.Addresses[first[n]-1]; other != vip {
			v.errorf(fmt.Sprintf("%s.addresses[%d]", path, j), "%s and %s have the same backends and backend ports, so that with client_address keep answers could not be told apart; want one VIP of each family, and another service for the other, or client_address snat", vip, other)
			return
		}
	}
}

// keptPorts returns the ports of a backend that packets of s go to, and reports
// at path if several ports of the VIP become one.
func (v *validator) keptPorts(s *Service, b Backend, path string) []Port {
	if !b.Address.IsValid() {
		return nil
	}
	if b.Port == 0 {
		return slices.DeleteFunc(slices.Clone(s.Ports), func(p Port) bool { return p.Lo == 0 })
	}
	var to, from []Port
	for _, p := range s.Ports {
		if p.Lo == 0 {
			continue
		}
		n := slices.IndexFunc(from, func(f Port) bool { return f.Proto == p.Proto })
		switch {
		case p.Lo != p.Hi:
			v.merged(path, p.String(), p.Proto, b)
		case n >= 0 && from[n] != p:
			v.merged(path, from[n].String()+" and "+p.String(), p.Proto, b)
		}
		if n < 0 {
			from = append(from, p)
			to = append(to, Port{p.Proto, b.Port, b.Port})
		}
	}
	return to
}

func (v *validator) merged(path, ports string, proto Proto, b Backend) {
	v.errorf(path, "makes %s the one port %s/%d of %s, so that with client_address keep answers could not be told apart; want a service for each, with a port of its own, or client_address snat", ports, proto, b.Port, b.Address)
}
