package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// policy checks what a service does with packets, as far as that does not depend
// on other services.
func (v *validator) policy(s *Service, path string) {
	given := func(key string) bool { return v.pos.has(path+key) && !v.broken[path+key] }
	if at := ".client_address"; given(at) && s.Mode != ModeNAT && s.Mode != "" {
		v.errorf(path+at, "is for mode nat, but mode is %s, which always keeps the client's address; remove it, or set mode to nat", s.Mode)
	} else if s.Mode == ModeNAT && s.ClientAddress == ClientKeep {
		v.warnf(path+at, "with keep, the backends must route their answers to clients through this box; on each, `ip route get CLIENT from BACKEND` has to name it as the next hop")
	}
	for _, at := range []string{".affinity_prefix", ".affinity_prefix6"} {
		if given(at) && s.Affinity == AffinityFlow {
			v.errorf(path+at, "is for affinity source, but affinity is flow; remove it, or set affinity to source")
		}
	}
	v.limits(s, path+".limits")
	v.acl(s, path+".acl")
}

func (v *validator) limits(s *Service, path string) {
	source, own := path+".per_source", s.Limits.PerSource
	unknown := v.broken[source] || v.broken[source+".new_flows"] || v.broken[source+".packets"]
	if v.pos.has(source) && !unknown && own.NewFlows == 0 && own.Packets == 0 {
		v.warnf(source, "has neither new_flows nor packets above 0; it limits nothing")
	}
	exceeds := func(key string, one, all int) {
		if all > 0 && one > all {
			v.warnf(source+key, "%d is more than the %d of all sources together in line %d; it is never reached", one, all, v.pos.line(path+key))
		}
	}
	exceeds(".new_flows", own.NewFlows, s.Limits.NewFlows)
	exceeds(".packets", own.Packets, s.Limits.Packets)
}

func (v *validator) acl(s *Service, path string) {
	if v.pos.has(path+".allow") && len(s.ACL.Allow) == 0 {
		v.absent(path, "allow", "at least one prefix; without any, remove it, and all clients are allowed")
	}
	first := make(map[netip.Prefix]string)
	check := func(list string, prefixes []netip.Prefix) {
		list = path + list
		for i, p := range prefixes {
			at := fmt.Sprintf("%s[%d]", list, i)
			switch other, ok := first[p]; {
			case !p.IsValid():
			case !ok:
				first[p] = at
			case strings.HasPrefix(other, list):
				v.errorf(at, "%s is here twice; the first is in line %d, keep one", p, v.pos.line(other))
			default:
				v.errorf(at, "%s is also in allow, %s in line %d; keep one", p, other, v.pos.line(other))
			}
		}
	}
	check(".allow", s.ACL.Allow)
	check(".deny", s.ACL.Deny)
	if len(s.ACL.Allow) == 0 || slices.Contains(s.ACL.Allow, netip.Prefix{}) {
		return
	}
	for _, v6 := range []bool{false, true} {
		_, vip := s.vip(v6)
		allowed := slices.ContainsFunc(s.ACL.Allow, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
		if vip != "" && !allowed {
			v.warnf(path+".allow", "has no %s prefix; all clients of the service's %s VIPs are denied", family(v6), family(v6))
		}
	}
}

// agreement checks that services that share a VIP, or with keys those that can get
// the same one, have the same value of a key, which is a property of the VIP. Each pair of services
// is reported once.
func (v *validator) agreement(key string, keys bool, value func(Service) string) {
	first := make(map[place]int)
	reported := make(map[[2]int]bool)
	for i, s := range v.c.Services {
		if value(s) == "" {
			continue
		}
		for _, p := range s.places() {
			if p.share != "" && !keys {
				continue
			}
			j, ok := first[p]
			if !ok {
				first[p] = i
				continue
			}
			other := v.c.Services[j]
			if value(other) == value(s) || reported[[2]int{j, i}] {
				continue
			}
			reported[[2]int{j, i}] = true
			at := servicePath(j) + "." + key
			v.errorf(servicePath(i)+"."+key, "is %s in service %s, but %s in service %s in line %d, and both have %s; want the same in both", value(s), v.name(i), value(other), v.name(j), v.pos.line(at), p)
		}
	}
}
