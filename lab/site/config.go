package site

import (
	"fmt"
	"net/netip"
)

// Config is weir's configuration file. It is written apart from the package
// that parses the file, so that a key which is misread there fails here.
type Config struct {
	Node       string      `yaml:"node,omitempty"`
	Interfaces []Interface `yaml:"interfaces"`
	Pools      []Pool      `yaml:"pools,omitempty"`
	Services   []Service   `yaml:"services"`
	Flows      Flows       `yaml:"flows,omitempty"`
	IPIP       IPIPConfig  `yaml:"ipip,omitempty"`
	NAT        NATConfig   `yaml:"nat,omitempty"`
	PathMTU    string      `yaml:"path_mtu,omitempty"`
	Cluster    *Cluster    `yaml:"cluster,omitempty"`
	BGP        *BGP        `yaml:"bgp,omitempty"`
	API        API         `yaml:"api"`
	Log        Log         `yaml:"log,omitempty"`
}

// Interface is one of weir's interfaces.
type Interface struct {
	Name    string `yaml:"name"`
	Driver  string `yaml:"driver,omitempty"`
	XDPMode string `yaml:"xdp_mode,omitempty"`
	Queues  string `yaml:"queues,omitempty"`
	CPUs    []int  `yaml:"cpus,omitempty,flow"`
}

// Service is one service.
type Service struct {
	Name      string           `yaml:"name"`
	Addresses []string         `yaml:"addresses,omitempty,flow"`
	Ports     []string         `yaml:"ports,flow"`
	Mode      string           `yaml:"mode,omitempty"`
	Affinity  string           `yaml:"affinity,omitempty"`
	TableSize int              `yaml:"table_size,omitempty"`
	Health    *Health          `yaml:"health,omitempty"`
	Backends  []ServiceBackend `yaml:"backends"`

	ClientAddress   string  `yaml:"client_address,omitempty"`
	AffinityPrefix  int     `yaml:"affinity_prefix,omitempty"`
	AffinityPrefix6 int     `yaml:"affinity_prefix6,omitempty"`
	Ping            string  `yaml:"ping,omitempty"`
	Reject          string  `yaml:"reject,omitempty"`
	SlowStart       string  `yaml:"slow_start,omitempty"`
	Limits          *Limits `yaml:"limits,omitempty"`
	ACL             *ACL    `yaml:"acl,omitempty"`

	Pool        string            `yaml:"pool,omitempty"`
	Families    []string          `yaml:"ip_families,omitempty,flow"`
	Labels      map[string]string `yaml:"labels,omitempty,flow"`
	Share       string            `yaml:"share,omitempty"`
	Announce    *[]string         `yaml:"announce,omitempty,flow"` // nil: weir's default
	MinBackends *int              `yaml:"min_backends,omitempty"`  // nil: weir's default
}

// Limits are a service's rates per second.
type Limits struct {
	NewFlows  int           `yaml:"new_flows,omitempty"`
	Packets   int           `yaml:"packets,omitempty"`
	PerSource *SourceLimits `yaml:"per_source,omitempty"`
}

// SourceLimits are a service's rates per second and prefix of clients.
type SourceLimits struct {
	Prefix   int `yaml:"prefix,omitempty"`
	Prefix6  int `yaml:"prefix6,omitempty"`
	NewFlows int `yaml:"new_flows,omitempty"`
	Packets  int `yaml:"packets,omitempty"`
}

// ACL says which clients a service is for.
type ACL struct {
	Allow []string `yaml:"allow,omitempty,flow"`
	Deny  []string `yaml:"deny,omitempty,flow"`
}

// ServiceBackend is a backend of a service.
type ServiceBackend struct {
	Address string `yaml:"address"`
	Weight  *int   `yaml:"weight,omitempty"` // nil: weir's default
	State   string `yaml:"state,omitempty"`
	VLAN    int    `yaml:"vlan,omitempty"`
	Port    uint16 `yaml:"port,omitempty"` // mode nat; 0: the VIP's
	MTU     int    `yaml:"mtu,omitempty"`
}

// Flows sizes the flow tables.
type Flows struct {
	Entries  int               `yaml:"entries,omitempty"`
	NewRate  *int              `yaml:"new_rate,omitempty"` // nil: weir's default
	Timeouts map[string]string `yaml:"timeouts,omitempty"`
}

// NATConfig is what mode nat takes SNAT addresses and ports from.
type NATConfig struct {
	Addresses []string            `yaml:"addresses,omitempty,flow"`
	Nodes     map[string][]string `yaml:"nodes,omitempty"`
	Ports     string              `yaml:"ports,omitempty"`
	Shared    *NATShared          `yaml:"shared,omitempty"`
}

// NATShared are SNAT addresses that are weir's host's own, and the ports of them
// that are weir's.
type NATShared struct {
	Addresses []string `yaml:"addresses,flow"`
	Ports     string   `yaml:"ports"`
}

// IPIPConfig is the outer source of tunnelled packets.
type IPIPConfig struct {
	Source        string `yaml:"source,omitempty"`
	Source6       string `yaml:"source6,omitempty"`
	SourcePrefix  string `yaml:"source_prefix,omitempty"`
	SourcePrefix6 string `yaml:"source_prefix6,omitempty"`
}

// API is where weir is asked.
type API struct {
	Socket  string `yaml:"socket"`
	Metrics string `yaml:"metrics,omitempty"`
}

// Log is what weir logs.
type Log struct {
	Level string `yaml:"level,omitempty"`
}

// Service returns the service of that name, or nil.
func (c *Config) Service(name string) *Service {
	for i := range c.Services {
		if c.Services[i].Name == name {
			return &c.Services[i]
		}
	}
	return nil
}

// Backend returns the backend with that address, or nil.
func (s *Service) Backend(addr netip.Addr) *ServiceBackend {
	for i := range s.Backends {
		if s.Backends[i].Address == addr.String() {
			return &s.Backends[i]
		}
	}
	return nil
}

// Add adds a backend with weir's default weight.
func (s *Service) Add(addr netip.Addr) {
	s.Backends = append(s.Backends, ServiceBackend{Address: addr.String()})
}

// Remove takes the backend with that address out.
func (s *Service) Remove(addr netip.Addr) {
	kept := s.Backends[:0:0]
	for _, b := range s.Backends {
		if b.Address != addr.String() {
			kept = append(kept, b)
		}
	}
	s.Backends = kept
}

// SetWeight sets the weight of the backend with that address, which has to be
// there.
func (s *Service) SetWeight(addr netip.Addr, weight int) { s.Backend(addr).Weight = &weight }

// SetState sets the admin state of the backend with that address, which has to
// be there.
func (s *Service) SetState(addr netip.Addr, state string) { s.Backend(addr).State = state }

// SetPort sends what is for the service to one port of all its backends, 0 for
// that of the VIP. Only in mode nat it may be another one.
func (s *Service) SetPort(port uint16) {
	for i := range s.Backends {
		s.Backends[i].Port = port
	}
}

// defaultConfig has all services, with all backends behind each.
func (s *Site) defaultConfig() *Config {
	c := &Config{
		Node:       "lb1",
		Interfaces: []Interface{{Name: Front, Driver: s.opt.Driver, XDPMode: s.opt.XDPMode}},
		Flows:      Flows{Entries: FlowEntries},
	}
	if s.opt.TwoArmed {
		c.Interfaces = append(c.Interfaces, Interface{Name: Back, Driver: s.opt.Driver, XDPMode: s.opt.XDPMode})
	}
	if s.opt.Modes&DSR != 0 {
		c.Services = append(c.Services, s.service(DSR4, "dsr", s.DSR4, false), s.service(DSR6, "dsr", s.DSR6, true))
	}
	if s.opt.Modes&IPIP != 0 {
		c.Services = append(c.Services, s.service(IPIP4, "ipip", s.IPIP4, false), s.service(IPIP6, "ipip", s.IPIP6, true))
	}
	if s.opt.Modes&(NAT|Keep) != 0 {
		for _, v := range []Service{s.service(NAT4, "nat", s.NAT4, false), s.service(NAT6, "nat", s.NAT6, true)} {
			v.SetPort(HealthPort)
			if s.opt.Modes == Keep {
				v.ClientAddress = "keep"
			}
			c.Services = append(c.Services, v)
		}
	}
	if s.opt.Modes&NAT != 0 {
		c.Services = append(c.Services, s.service(NAT46, "nat", s.NAT46, true), s.service(NAT64, "nat", s.NAT64, false))
		c.NAT.Addresses = []string{s.SNAT4.String(), s.SNAT6.String()}
	}
	return c
}

// FlowEntries is enough for the lab, whose memory is shared.
const FlowEntries = 65536

// service returns a service with all backends, under their IPv6 or IPv4
// addresses.
func (s *Site) service(name, mode string, vip netip.AddrPort, ipv6 bool) Service {
	v := NewService(name, mode, vip, s.Backends, ipv6)
	if s.opt.Health {
		v.Health = FastHealth()
	}
	return v
}

// NewService returns a service without health checks, TCP and UDP on one port,
// with backends under their IPv6 or IPv4 addresses.
func NewService(name, mode string, vip netip.AddrPort, backends []*Backend, ipv6 bool) Service {
	v := Service{
		Name: name, Mode: mode, Addresses: []string{vip.Addr().String()},
		Ports: []string{fmt.Sprintf("tcp/%d", vip.Port()), fmt.Sprintf("udp/%d", vip.Port())},
	}
	for _, b := range backends {
		v.Add(b.Addr(ipv6))
	}
	return v
}

// FastHealth asks a backend's HealthPort five times a second.
func FastHealth() *Health {
	return &Health{
		HTTP:     &HTTPCheck{Path: "/healthz", Port: HealthPort},
		Interval: "200ms", Timeout: "200ms", Rise: 1, Fall: 3,
	}
}
