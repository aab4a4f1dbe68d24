package config

import (
	"cmp"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// derive fills in the defaults that depend on other fields. r knows which fields
// the file has.
func (c *Config) derive(r *report) {
	for i := range c.Services {
		s, path := &c.Services[i], servicePath(i)
		c.deriveAddresses(s, path, r)
		if h := s.Health; h != nil {
			if h.Address == "" && !r.broken[path+".health.check_address"] {
				h.Address = CheckVIP
				if s.Mode == ModeNAT {
					h.Address = CheckBackend
				}
			}
			s.deriveChecks()
		}
	}
	if c.BGP != nil {
		for i := range c.BGP.Peers {
			c.BGP.Peers[i].derive(peerPath(i), r)
		}
	}
	if c.StateDir == "" && c.API.Socket == socketPath {
		c.StateDir = stateDir
	} else if c.StateDir == "" {
		c.StateDir = filepath.Dir(c.API.Socket)
	}
	c.expandSNAT()
}

// deriveAddresses fills in what a service asks of a pool if it lists no address,
// and how the addresses are announced that it lists.
func (c *Config) deriveAddresses(s *Service, path string, r *report) {
	if r.listed(path) {
		s.Families = nil
		if s.Announce == nil {
			s.Announce = []Announce{AnnounceL2}
		}
		return
	}
	if r.pos.has(path + ".ip_families") {
		return
	}
	for _, f := range []Family{IPv4, IPv6} {
		if slices.ContainsFunc(s.Backends, func(b Backend) bool { return b.Address.IsValid() && FamilyOf(b.Address) == f }) {
			s.Families = append(s.Families, f)
		}
	}
}

// listed says whether the service at path lists its addresses, be they right or
// wrong.
func (r *report) listed(path string) bool {
	return r.pos.has(path+".addresses") || r.broken[path+".addresses"]
}

// deriveChecks fills in what the checks of a service take from other fields.
func (s *Service) deriveChecks() {
	h := s.Health
	if h.Timeout == 0 {
		h.Timeout = min(time.Second, h.Interval)
	}
	if h.HTTP != nil && h.HTTP.TLS != nil && h.HTTP.TLS.ServerName == "" {
		h.HTTP.TLS.ServerName = hostOf(h.HTTP.Host)
	}
	if t := h.TCP; t != nil {
		s.checkPorts(&t.Port, firstPort(s.Ports, TCP))
	}
	if t := h.HTTP; t != nil {
		s.checkPorts(&t.Port, firstPort(s.Ports, TCP))
	}
	if u := h.UDP; u != nil {
		s.checkPorts(&u.Port, firstPort(s.Ports, UDP))
	}
	if q := h.DNS; q != nil {
		s.checkPorts(&q.Port, cmp.Or(firstPort(s.Ports, q.proto()), 53))
	}
	if g := h.GRPC; g != nil {
		s.checkPorts(&g.Port, firstPort(s.Ports, TCP))
	}
}

// hostOf returns a Host header without its port.
func hostOf(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	return strings.Trim(header, "[]")
}

// checkPorts fills in the port of the check, and that of the check of each
// backend.
func (s *Service) checkPorts(port *uint16, otherwise uint16) {
	own := *port != 0
	if !own {
		*port = otherwise
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		b.CheckPort = *port
		if !own && b.Port != 0 {
			b.CheckPort = b.Port
		}
	}
}

// firstPort returns the first port of a protocol that is named, or 0.
func firstPort(ports []Port, proto Proto) uint16 {
	for _, p := range ports {
		if p.Proto == proto && !p.All() {
			return p.Lo
		}
	}
	return 0
}

func (p *BGPPeer) derive(path string, r *report) {
	if p.Name == "" && p.Address.IsValid() && !r.broken[path+".name"] {
		p.Name = p.Address.String()
	}
	if len(p.Families) == 0 && p.Address.IsValid() && !r.pos.has(path+".families") {
		p.Families = []Family{FamilyOf(p.Address)}
	}
	if !r.pos.has(path + ".keepalive_time") {
		p.KeepaliveTime = (p.HoldTime / 3).Truncate(time.Second)
	}
}

// isFamily says whether a is a valid address of f.
func isFamily(a netip.Addr, f Family) bool { return a.IsValid() && FamilyOf(a) == f }
