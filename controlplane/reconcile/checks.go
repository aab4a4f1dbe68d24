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

// checksVIPs tells whether the checks of a service ask for its VIPs.
func checksVIPs(s *config.Service) bool {
	return s.Health != nil && s.Health.Address == config.CheckVIP
}

// checkID names the check of a backend of a service, for one VIP or, if that is
// not valid, of the backend's own address.
func checkID(s *config.Service, b, vip netip.Addr) string {
	id := s.Name + " " + b.String()
	if vip.IsValid() {
		id += " " + vip.String()
	}
	return id
}

// checkedVIPs returns the VIPs that a backend is checked for; one that is not valid
// stands for its own address.
func checkedVIPs(s *config.Service, b *config.Backend) []netip.Addr {
	switch {
	case !s.Checked(b):
		return nil
	case !checksVIPs(s):
		return []netip.Addr{{}}
	}
	var all []netip.Addr
	for _, a := range s.Addresses {
		if Serves(s, b.Address, a.Is6()) {
			all = append(all, a)
		}
	}
	return all
}

// checks returns the health checks that a configuration asks for.
func checks(c *config.Config) []health.Check {
	var all []health.Check
	for i := range c.Services {
		s := &c.Services[i]
		for k := range s.Backends {
			b := &s.Backends[k]
			if b.State == config.Disabled {
				continue
			}
			for _, vip := range checkedVIPs(s, b) {
				all = append(all, check(s, b, vip))
			}
		}
	}
	return all
}

func check(s *config.Service, b *config.Backend, vip netip.Addr) health.Check {
	h := s.Health
	c := health.Check{
		ID: checkID(s, b.Address, vip), Targets: []netip.AddrPort{netip.AddrPortFrom(b.Address, b.CheckPort)}, Probe: probe(h),
		Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall,
	}
	if vip.IsValid() {
		c.Targets = []netip.AddrPort{netip.AddrPortFrom(vip, b.CheckPort)}
		c.Way = WayTo(s.Name, b.Address)
	}
	return c
}

// way notes how a check of VIPs gets to the backend: as packets for the VIPs do,
// also while it is down.
func (c *compilation) way(s *config.Service, v *Backend) {
	if s.Mode == config.ModeNAT {
		return
	}
	way := via.Way{
		Interface: v.Hop.Interface, Reason: c.unreachable(s, &v.Hop),
		// That it does not answer ARP or NDP is its own fault, and no reason to take it
		// for what it was.
		Unreachable: v.Hop.Silent,
	}
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
