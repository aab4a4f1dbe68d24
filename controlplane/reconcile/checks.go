package reconcile

import (
	"net/netip"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
)

// WayTo names the way to VIPs of a service on one of its backends, for Ways.
func WayTo(service string, backend netip.Addr) string { return service + " " + backend.String() }

// checkID names the check of a backend of a service.
func checkID(s *config.Service, b netip.Addr) string { return s.Name + " " + b.String() }

// checks returns the health checks that a configuration asks for.
func checks(c *config.Config) []health.Check {
	var all []health.Check
	for i := range c.Services {
		s := &c.Services[i]
		for k := range s.Backends {
			if b := &s.Backends[k]; s.Checked(b) && b.State != config.Disabled {
				all = append(all, check(s, b))
			}
		}
	}
	return all
}

func check(s *config.Service, b *config.Backend) health.Check {
	h := s.Health
	c := health.Check{
		ID: checkID(s, b.Address), Probe: probe(h),
		Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall,
	}
	if h.Address != config.CheckVIP {
		c.Targets = []netip.AddrPort{netip.AddrPortFrom(b.Address, b.CheckPort)}
		return c
	}
	// Every VIP that it serves has to be on it.
	c.Way = WayTo(s.Name, b.Address)
	for _, ipv6 := range families(s) {
		if !Serves(s, b.Address, ipv6) {
			continue
		}
		for _, a := range s.Addresses {
			if a.Is6() == ipv6 {
				c.Targets = append(c.Targets, netip.AddrPortFrom(a, b.CheckPort))
			}
		}
	}
	return c
}

// way notes how a check of VIPs gets to the backend: as packets for the VIPs do,
// also while it is down.
func (c *compilation) way(s *config.Service, v *Backend) {
	if s.Mode == config.ModeNAT {
		return
	}
	way := via.Way{Interface: v.Hop.Interface, Reason: c.unreachable(s, &v.Hop)}
	for _, ipv6 := range families(s) {
		if way.Reason != "" || !Serves(s, v.Address, ipv6) {
			continue
		}
		rw, err := c.rewrite(s, v, ipv6)
		switch {
		case err != nil:
			way.Reason = err.Error()
		case ipv6:
			way.IPv6, way.Has6 = rw, true
		default:
			way.IPv4, way.Has4 = rw, true
		}
	}
	if v.Hop.State == nexthop.Resolved && v.Hop.Source.Is6() {
		way.Source6 = v.Hop.Source
	} else if v.Hop.State == nexthop.Resolved {
		way.Source4 = v.Hop.Source
	}
	c.ways[WayTo(s.Name, v.Address)] = way
}
