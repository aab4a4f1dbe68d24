package config

import (
	"fmt"
	"slices"
)

// serve returns how many backends of s can serve its VIPs of a family, and how
// many of these are not disabled.
func (s *Service) serve(f Family) (all, enabled int) {
	own := s.ownFamily()
	for _, b := range s.Backends {
		if own && !isFamily(b.Address, f) {
			continue
		}
		all++
		if b.State != Disabled {
			enabled++
		}
	}
	return all, enabled
}

// ownFamily says whether a backend serves VIPs of its own family only.
func (s *Service) ownFamily() bool {
	return s.Mode == ModeDSR || s.Mode == ModeNAT && s.ClientAddress == ClientKeep
}

// quorum is a place in which VIPs of a family have a service with as many backends
// as its min_backends wants, be they disabled or not.
type quorum struct {
	place
	family  Family
	enabled bool // that many are not disabled
}

// minimums checks that the VIPs of each service can be announced: that there can
// be as many backends as min_backends says, in it or in another service that has
// the same VIPs. Of none at all there are reports already.
func (v *validator) minimums() {
	met := make(map[quorum]bool)
	for i := range v.c.Services {
		s := &v.c.Services[i]
		for _, f := range []Family{IPv4, IPv6} {
			all, enabled := s.serve(f)
			for _, p := range s.places() {
				if all >= s.MinBackends {
					met[quorum{p, f, false}] = true
				}
				if enabled >= s.MinBackends {
					met[quorum{p, f, true}] = true
				}
			}
		}
	}
	for i := range v.c.Services {
		s, path := &v.c.Services[i], servicePath(i)
		wrong := func(b Backend) bool { return b.State == "" || !b.Address.IsValid() }
		if v.pos.has(path+".min_backends") && !v.broken[path+".backends"] && s.Mode != "" && s.ClientAddress != "" && !slices.ContainsFunc(s.Backends, wrong) {
			v.minimum(s, path, met)
		}
	}
}

func (v *validator) minimum(s *Service, path string, met map[quorum]bool) {
	families := slices.DeleteFunc([]Family{IPv4, IPv6}, func(f Family) bool {
		_, vip := s.vip(f == IPv6)
		return vip == ""
	})
	if len(families) == 0 {
		return
	}
	if !s.ownFamily() {
		v.quorum(s, path, "", families, met)
		return
	}
	for _, f := range families {
		v.quorum(s, path, f.title()+" ", []Family{f}, met)
	}
}

// quorum checks min_backends for VIPs of families that the same backends serve.
func (v *validator) quorum(s *Service, path, kind string, families []Family, met map[quorum]bool) {
	path += ".min_backends"
	all, enabled := s.serve(families[0])
	lacks := func(enabled bool) bool {
		return slices.ContainsFunc(families, func(f Family) bool { return !s.meets(f, enabled, met) })
	}
	switch {
	case s.MinBackends <= enabled || all == 0:
	case s.MinBackends > all && lacks(false):
		v.errorf(path, "is %d, but the service has %s, so that its %sVIPs would never be announced; want at most %d", s.MinBackends, backends(all, kind), kind, all)
	case s.MinBackends > all:
		v.warnf(path, "is %d, but the service has %s, so that its %sVIPs are announced because of other services only; want at most %d if this one is to count", s.MinBackends, backends(all, kind), kind, all)
	case enabled > 0 && lacks(true):
		v.warnf(path, "is %d, but all but %s are disabled, so that its %sVIPs are not announced", s.MinBackends, backends(enabled, kind), kind)
	}
}

// meets says whether there are enough backends for each VIP of a family that s has,
// or can have.
func (s *Service) meets(f Family, enabled bool, met map[quorum]bool) bool {
	if s.Share != "" && met[quorum{place{share: s.Share}, f, enabled}] {
		return true
	}
	some := false
	for _, a := range s.Addresses {
		if isFamily(a, f) {
			if !met[quorum{place{vip: a}, f, enabled}] {
				return false
			}
			some = true
		}
	}
	return some
}

func backends(n int, kind string) string {
	if n == 1 {
		return fmt.Sprintf("1 %sbackend", kind)
	}
	return fmt.Sprintf("%d %sbackends", n, kind)
}
