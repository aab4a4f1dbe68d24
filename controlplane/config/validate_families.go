package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// coverage checks that each VIP has backends that can serve it, and each
// backend a VIP that it can serve. In dsr mode the frame stays as it is and the
// backend takes it in by the VIP's own family, and a client's own address that
// is kept is of that family, too; a tunnel carries either family in either, and
// SNAT makes either of either.
func (v *validator) coverage(s *Service, path string) {
	keeps, mixes := "dsr", "mode ipip or nat, which mix them"
	switch {
	case s.Mode == ModeIPIP:
		v.capacity(path, "", s.Backends)
		return
	case s.Mode == ModeNAT && s.ClientAddress == ClientSNAT:
		v.capacity(path, "", s.Backends)
		v.snatFamilies(s, path)
		return
	case s.Mode == ModeNAT:
		keeps, mixes = "client_address keep", "client_address snat, which mixes them"
	}
	for _, v6 := range []bool{false, true} {
		at, vip := s.vip(v6)
		if vip == "" {
			v.useless(s, path, v6, keeps, mixes)
			continue
		}
		able := slices.DeleteFunc(slices.Clone(s.Backends), func(b Backend) bool { return b.Address.Is6() != v6 })
		if len(able) == 0 {
			v.errorf(path+at, "%s is an %s VIP but all backends are %s; %s wants backends of the VIP's own family; add one, or use %s", vip, family(v6), family(!v6), keeps, mixes)
			continue
		}
		v.capacity(path, family(v6)+" ", able)
	}
}

// vip returns the first VIP of a family that s has or asks a pool for, and where
// the service says so; "" if it has none.
func (s *Service) vip(v6 bool) (at, vip string) {
	if s.Allocated() {
		f := IPv4
		if v6 {
			f = IPv6
		}
		if i := slices.Index(s.Families, f); i >= 0 {
			return fmt.Sprintf(".ip_families[%d]", i), "what it asks of a pool"
		}
		return "", ""
	}
	i := slices.IndexFunc(s.Addresses, func(a netip.Addr) bool { return a.IsValid() && a.Is6() == v6 })
	if i < 0 {
		return "", ""
	}
	return fmt.Sprintf(".addresses[%d]", i), s.Addresses[i].String()
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// title is f in the words of errors.
func (f Family) title() string { return family(f == IPv6) }

// useless reports the backends of a family that no VIP has. If all are of that
// family, the VIPs have been reported for it.
func (v *validator) useless(s *Service, path string, v6 bool, keeps, mixes string) {
	fits := func(b Backend) bool { return b.Address.Is6() != v6 }
	unknown := len(s.Addresses) == 0 || v.broken[path+".addresses"] || slices.Contains(s.Addresses, netip.Addr{})
	if s.Allocated() {
		unknown = v.broken[path+".ip_families"] || slices.Contains(s.Families, "")
	}
	if unknown || !slices.ContainsFunc(s.Backends, fits) {
		return
	}
	for j, b := range s.Backends {
		if !fits(b) {
			v.errorf(fmt.Sprintf("%s.backends[%d].address", path, j), "%s is an %s backend but the service has no %s VIP, so that %s can never use it; remove it, add a VIP of its family, or use %s", b.Address, family(v6), family(v6), keeps, mixes)
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

// snatFamilies checks that there is a SNAT address of each family that backends
// of s are of, on this node and on the others of nat.nodes, and reports the first
// backend of a family that has none.
func (v *validator) snatFamilies(s *Service, path string) {
	if v.snatUnknown || len(v.others) > maxNodes {
		return
	}
	if len(v.others) > 0 && !v.ownSNAT(IPv4) && !v.ownSNAT(IPv6) && len(v.c.NAT.Shared.Addresses) == 0 {
		if at := "nat.nodes"; !v.broken[at] {
			v.errorf(at, "has no addresses of this node, %s, for service %s, which has mode nat; add some, or set node to the name of one that is there, as %s", v.c.Node, v.serviceName(s, path), v.others[0])
		}
		return
	}
	key := "nat.addresses"
	if v.pos.has("nat.nodes") {
		key = join("nat.nodes", v.c.Node)
	}
	for _, f := range []Family{IPv4, IPv6} {
		j := slices.IndexFunc(s.Backends, func(b Backend) bool { return isFamily(b.Address, f) })
		if j < 0 || slices.ContainsFunc(v.c.NAT.Shared.Addresses, func(a netip.Addr) bool { return isFamily(a, f) }) {
			continue
		}
		b := s.Backends[j].Address
		if !v.ownSNAT(f) {
			v.errorf(fmt.Sprintf("%s.backends[%d].address", path, j), "backend %s needs an %s address in %s, or in nat.shared.addresses, for its packets to come from; add one, or set client_address to keep", b, f.title(), key)
		}
		for _, node := range v.others {
			if at := join("nat.nodes", node); !v.snatOf[node][f] && !v.broken[at] {
				v.errorf(at, "has no %s address, which backend %s of service %s needs for its packets to come from; add one", f.title(), b, v.serviceName(s, path))
			}
		}
	}
}

func (v *validator) serviceName(s *Service, path string) string { return cmp.Or(s.Name, path) }
