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
		v.collide(own, false, v.twice)
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
		v.collide(claims[k], true, func(a, b claim) { v.collision(a, b, k.vip) })
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
func (v *validator) collision(a, b claim, vip netip.Addr) {
	v.errorf(b.path(), "%s of service %s overlaps %s of service %s in line %d, both have VIP %s; change the ports or the VIP of one", b.ports, v.name(b.service), a.ports, v.name(a.service), v.pos.line(a.path()), vip)
}

// name is what errors call a service.
func (v *validator) name(i int) string {
	return cmp.Or(v.c.Services[i].Name, servicePath(i))
}
