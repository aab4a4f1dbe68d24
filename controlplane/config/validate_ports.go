package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// maxPairs bounds the pairs of VIP and port range of all services together.
const maxPairs = 1 << 20

// claim is a range of ports that a service has on one VIP, or on one backend.
type claim struct {
	service, entry int // indices; entry is that of the port, in keeps that of the backend
	ports          Port
}

// place is what services must not have the same ports of: a VIP, or the key of
// services that can get the same VIP.
type place struct {
	vip   netip.Addr
	share string
}

func (p place) kind() string {
	if p.share != "" {
		return "share key"
	}
	return "VIP"
}

// String returns p as errors say it.
func (p place) String() string {
	if p.share != "" {
		return p.kind() + " " + p.share
	}
	return p.kind() + " " + p.vip.String()
}

// places returns the valid VIPs of s, each once, and its key.
func (s *Service) places() []place {
	var all []place
	vips := slices.Clone(s.Addresses)
	slices.SortFunc(vips, netip.Addr.Compare)
	for _, vip := range slices.Compact(vips) {
		if vip.IsValid() {
			all = append(all, place{vip: vip})
		}
	}
	if s.Share != "" {
		all = append(all, place{share: s.Share})
	}
	return all
}

// overlaps reports ports that two services claim in the same place, or one
// service claims twice.
func (v *validator) overlaps() {
	type key struct {
		place
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
		v.collide(own, false, v.twice)
		if pairs += len(s.Addresses) * len(own); pairs > maxPairs {
			v.errorf(servicePath(i), "the services up to here have more than %d pairs of address and port; want ranges of ports, or fewer services", maxPairs)
			return
		}
		for _, p := range s.places() {
			for _, c := range own {
				k := key{p, c.ports.Proto}
				if claims[k] == nil {
					order = append(order, k)
				}
				claims[k] = append(claims[k], c)
			}
		}
	}
	// Who has the same VIP is not told about the key that is the same, too.
	reported := make(map[[2]claim]bool)
	for _, shared := range []bool{false, true} {
		for _, k := range order {
			if shared != (k.share != "") {
				continue
			}
			v.collide(claims[k], true, func(a, b claim) {
				if pair := [2]claim{a, b}; !shared || !reported[pair] {
					reported[pair] = true
					v.collision(a, b, k.place)
				}
			})
		}
	}
}

// collide finds overlaps: between different services, or within the one service
// that all claims are of. Each claim is compared with the one before it, by
// first port, that reaches farthest. report gets the one that is earlier in the
// file first.
func (v *validator) collide(claims []claim, between bool, report func(a, b claim)) {
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.ports.Proto, b.ports.Proto), cmp.Compare(a.ports.Lo, b.ports.Lo))
	})
	// far reaches farthest, next farthest of those that are of another service.
	var far, next claim
	for _, c := range claims {
		other := far
		if between && other.service == c.service {
			other = next
		}
		if other.ports.Proto == c.ports.Proto && c.ports.Lo <= other.ports.Hi {
			if cmp.Or(cmp.Compare(other.service, c.service), cmp.Compare(other.entry, c.entry)) > 0 {
				report(c, other)
			} else {
				report(other, c)
			}
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

func (c claim) path() string { return fmt.Sprintf("services[%d].ports[%d]", c.service, c.entry) }

// twice reports that a and b, of one service, overlap.
func (v *validator) twice(a, b claim) {
	v.errorf(b.path(), "%s overlaps %s in line %d of the same service; keep one", b.ports, a.ports, v.pos.line(a.path()))
}

// collision reports that a and b, of two services, overlap.
func (v *validator) collision(a, b claim, both place) {
	v.errorf(b.path(), "%s of service %s overlaps %s of service %s in line %d, both have %s; change the ports or the %s of one", b.ports, v.name(b.service), a.ports, v.name(a.service), v.pos.line(a.path()), both, both.kind())
}

// name is what errors call a service.
func (v *validator) name(i int) string {
	return cmp.Or(v.c.Services[i].Name, servicePath(i))
}
