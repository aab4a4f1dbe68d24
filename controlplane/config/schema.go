package config

import (
	"net/netip"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of what can be configured, where nothing else sets them.
const (
	maxTable   = 1 << 24 // entries of a Maglev table
	maxWeight  = 1_000_000
	minEntries = 1 << 10 // of a flow table
	maxEntries = 1 << 28
	maxChecks  = 1000          // rise and fall
	maxCPU     = 1023          // CPU_SETSIZE of sched_setaffinity(2), less one
	maxRate    = 1_000_000_000 // per second

	minSNATPort = 1024  // those below are of the system, RFC 6335 section 6
	minMTU      = 576   // what every IPv4 host takes, RFC 1122 section 3.3.2
	minMTU6     = 1280  // RFC 8200 section 5
	maxMTU      = 65535 // of an IP packet
)

const (
	minInterval = 100 * time.Millisecond // between health checks
	maxInterval = time.Hour
	minTimeout  = 10 * time.Millisecond // of a health check
	minFlowAge  = time.Second
	maxFlowAge  = 7 * 24 * time.Hour
	minSlow     = time.Second
	maxSlow     = time.Hour
)

// defaults returns the configuration of a file that says nothing.
func defaults() *Config {
	node, err := os.Hostname()
	if _, problem := parseNode(node); err != nil || problem != "" {
		node = "weir"
	}
	return &Config{
		Node:    node,
		Flows:   Flows{Entries: 1 << 20, NewRate: 125_000},
		NAT:     NAT{Ports: PortRange{minSNATPort, 65535}},
		PathMTU: PathMTULearn,
		API:     API{Socket: "/run/weir/weir.sock"},
		Log:     Log{Level: "info", Format: "text"},
	}
}

// derive fills in the defaults that depend on other fields.
func (c *Config) derive() {
	for i := range c.Services {
		s := &c.Services[i]
		if s.Health == nil {
			continue
		}
		if s.Health.Timeout == 0 {
			s.Health.Timeout = min(time.Second, s.Health.Interval)
		}
		if t := s.Health.TCP; t != nil {
			s.checkPorts(&t.Port)
		}
		if h := s.Health.HTTP; h != nil {
			s.checkPorts(&h.Port)
		}
	}
	c.expandSNAT()
}

// checkPorts fills in the port of the check, and that of the check of each
// backend.
func (s *Service) checkPorts(port *uint16) {
	own := *port != 0
	if !own {
		*port = firstTCP(s.Ports)
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		b.CheckPort = *port
		if !own && b.Port != 0 {
			b.CheckPort = b.Port
		}
	}
}

// firstTCP returns the first port of tcp that is named, or 0.
func firstTCP(ports []Port) uint16 {
	for _, p := range ports {
		if p.Proto == TCP && !p.All() {
			return p.Lo
		}
	}
	return 0
}

// What follows has one function for each type of config.go, which knows the
// keys of its mapping and their defaults.

func (d *decoder) config(n node, c *Config) {
	d.mapping(n, fields{
		"node":       func(n node) { value(d, n, &c.Node, "a name", parseNode) },
		"interfaces": func(n node) { list(d, n, &c.Interfaces, d.netInterface) },
		"services":   func(n node) { list(d, n, &c.Services, d.service) },
		"flows":      func(n node) { d.flows(n, &c.Flows) },
		"ipip":       func(n node) { d.ipip(n, &c.IPIP) },
		"nat":        func(n node) { d.nat(n, c) },
		"path_mtu":   func(n node) { word(d, n, &c.PathMTU, PathMTULearn, PathMTUFixed) },
		"api": func(n node) {
			d.mapping(n, fields{
				"socket":  func(n node) { value(d, n, &c.API.Socket, "a path", parseSocket) },
				"metrics": func(n node) { value(d, n, &c.API.Metrics, "HOST:PORT", parseListen) },
			})
		},
		"log": func(n node) {
			d.mapping(n, fields{
				"level":  func(n node) { word(d, n, &c.Log.Level, "debug", "info", "warn", "error") },
				"format": func(n node) { word(d, n, &c.Log.Format, "text", "json") },
			})
		},
	})
}

func (d *decoder) netInterface(n node, i *Interface) {
	*i = Interface{Driver: DriverAuto, XDPMode: XDPAuto, Queues: AllQueues}
	d.mapping(n, fields{
		"name":     func(n node) { value(d, n, &i.Name, "the name of an interface", parseInterface) },
		"driver":   func(n node) { word(d, n, &i.Driver, DriverAuto, DriverAFXDP, DriverAFPacket) },
		"xdp_mode": func(n node) { word(d, n, &i.XDPMode, XDPAuto, XDPZeroCopy, XDPCopy, XDPGeneric) },
		"queues":   func(n node) { value(d, n, &i.Queues, "all or a number", parseQueues) },
		"cpus": func(n node) {
			list(d, n, &i.CPUs, func(n node, cpu *int) {
				*cpu = -1
				number(d, n, cpu, 0, maxCPU)
			})
		},
	})
}

func (d *decoder) service(n node, s *Service) {
	*s = Service{
		Mode: ModeDSR, ClientAddress: ClientSNAT, TableSize: 65537,
		Affinity: AffinityFlow, AffinityPrefix: 32, AffinityPrefix6: 128,
		Ping: PingAlways, Reject: RejectDrop,
		Limits: Limits{PerSource: SourceLimits{Prefix: 32, Prefix6: 64}},
	}
	d.mapping(n, fields{
		"name": func(n node) { value(d, n, &s.Name, "a name", parseServiceName) },
		"addresses": func(n node) {
			list(d, n, &s.Addresses, func(n node, a *netip.Addr) { value(d, n, a, wantAddress, parseVIP) })
		},
		"ports": func(n node) {
			list(d, n, &s.Ports, func(n node, p *Port) { value(d, n, p, wantPort, parsePort) })
		},
		"mode":             func(n node) { word(d, n, &s.Mode, ModeDSR, ModeIPIP, ModeNAT) },
		"client_address":   func(n node) { word(d, n, &s.ClientAddress, ClientSNAT, ClientKeep) },
		"affinity":         func(n node) { word(d, n, &s.Affinity, AffinityFlow, AffinitySource) },
		"affinity_prefix":  func(n node) { number(d, n, &s.AffinityPrefix, 1, 32) },
		"affinity_prefix6": func(n node) { number(d, n, &s.AffinityPrefix6, 1, 128) },
		"ping":             func(n node) { word(d, n, &s.Ping, PingAlways, PingHealthy, PingNever) },
		"reject":           func(n node) { word(d, n, &s.Reject, RejectDrop, RejectICMP, RejectRST) },
		"slow_start":       func(n node) { value(d, n, &s.SlowStart, "a duration", parseSlowStart) },
		"limits":           func(n node) { d.limits(n, &s.Limits) },
		"acl":              func(n node) { d.acl(n, &s.ACL) },
		"table_size":       func(n node) { number(d, n, &s.TableSize, 2, maxTable) },
		"health":           func(n node) { s.Health = d.health(n) },
		"backends":         func(n node) { list(d, n, &s.Backends, d.backend) },
	})
}

func (d *decoder) limits(n node, l *Limits) {
	d.mapping(n, fields{
		"new_flows": func(n node) { number(d, n, &l.NewFlows, 0, maxRate) },
		"packets":   func(n node) { number(d, n, &l.Packets, 0, maxRate) },
		"per_source": func(n node) {
			d.mapping(n, fields{
				"prefix":    func(n node) { number(d, n, &l.PerSource.Prefix, 1, 32) },
				"prefix6":   func(n node) { number(d, n, &l.PerSource.Prefix6, 1, 128) },
				"new_flows": func(n node) { number(d, n, &l.PerSource.NewFlows, 0, maxRate) },
				"packets":   func(n node) { number(d, n, &l.PerSource.Packets, 0, maxRate) },
			})
		},
	})
}

func (d *decoder) acl(n node, a *ACL) {
	clients := func(n node, p *netip.Prefix) { value(d, n, p, wantClients, parseClients) }
	d.mapping(n, fields{
		"allow": func(n node) { list(d, n, &a.Allow, clients) },
		"deny":  func(n node) { list(d, n, &a.Deny, clients) },
	})
}

func (d *decoder) health(n node) *Health {
	h := &Health{Interval: 2 * time.Second, Rise: 2, Fall: 3}
	d.mapping(n, fields{
		"tcp": func(n node) {
			h.TCP = &TCPCheck{}
			d.mapping(n, fields{"port": func(n node) { number(d, n, &h.TCP.Port, 1, 65535) }})
		},
		"http":     func(n node) { h.HTTP = d.http(n) },
		"interval": func(n node) { value(d, n, &h.Interval, "a duration", parseDuration(minInterval, maxInterval)) },
		"timeout":  func(n node) { value(d, n, &h.Timeout, "a duration", parseDuration(minTimeout, maxInterval)) },
		"rise":     func(n node) { number(d, n, &h.Rise, 1, maxChecks) },
		"fall":     func(n node) { number(d, n, &h.Fall, 1, maxChecks) },
	})
	return h
}

func (d *decoder) http(n node) *HTTPCheck {
	h := &HTTPCheck{Path: "/", Method: "GET", Codes: []Codes{{200, 399}}}
	d.mapping(n, fields{
		"port":   func(n node) { number(d, n, &h.Port, 1, 65535) },
		"path":   func(n node) { value(d, n, &h.Path, "a path", parsePath) },
		"host":   func(n node) { value(d, n, &h.Host, "a host", parseHost) },
		"method": func(n node) { word(d, n, &h.Method, "GET", "HEAD", "OPTIONS") },
		"codes": func(n node) {
			one := func(n node, c *Codes) { value(d, n, c, wantCodes, parseCodes) }
			if n.Kind == yaml.ScalarNode {
				one(n, &h.Codes[0])
				return
			}
			list(d, n, &h.Codes, one)
		},
	})
	return h
}

func (d *decoder) backend(n node, b *Backend) {
	*b = Backend{Weight: 100, State: Active}
	d.mapping(n, fields{
		"address": func(n node) { value(d, n, &b.Address, wantAddress, parseBackend) },
		"weight":  func(n node) { number(d, n, &b.Weight, 0, maxWeight) },
		"state":   func(n node) { word(d, n, &b.State, Active, Draining, Disabled) },
		"vlan":    func(n node) { number(d, n, &b.VLAN, 1, 4094) },
		"port":    func(n node) { number(d, n, &b.Port, 1, 65535) },
		"mtu":     func(n node) { number(d, n, &b.MTU, minMTU, maxMTU) },
	})
}

func (d *decoder) flows(n node, f *Flows) {
	age := func(to *time.Duration) func(node) {
		return func(n node) { value(d, n, to, "a duration", parseDuration(minFlowAge, maxFlowAge)) }
	}
	d.mapping(n, fields{
		"entries":  func(n node) { number(d, n, &f.Entries, minEntries, maxEntries) },
		"new_rate": func(n node) { number(d, n, &f.NewRate, 0, maxRate) },
		"timeouts": func(n node) {
			d.mapping(n, fields{
				"udp":             age(&f.Timeouts.UDP),
				"tcp_syn":         age(&f.Timeouts.TCPSyn),
				"tcp_established": age(&f.Timeouts.TCPEstablished),
				"tcp_fin":         age(&f.Timeouts.TCPFin),
				"tcp_time_wait":   age(&f.Timeouts.TCPTimeWait),
				"tcp_closed":      age(&f.Timeouts.TCPClosed),
			})
		},
	})
}

func (d *decoder) ipip(n node, i *IPIP) {
	d.mapping(n, fields{
		"source":         func(n node) { value(d, n, &i.Source, wantAddress, parseAddress) },
		"source6":        func(n node) { value(d, n, &i.Source6, wantAddress, parseAddress) },
		"source_prefix":  func(n node) { value(d, n, &i.SourcePrefix, "a prefix", parsePrefix) },
		"source_prefix6": func(n node) { value(d, n, &i.SourcePrefix6, "a prefix", parsePrefix) },
	})
}

func (d *decoder) nat(n node, c *Config) {
	shared := &c.NAT.Shared
	d.mapping(n, fields{
		"addresses": func(n node) {
			list(d, n, &c.snat, func(n node, s *span) { value(d, n, s, wantSpan, parseSpan) })
		},
		"ports": func(n node) { value(d, n, &c.NAT.Ports, wantPorts, parsePorts) },
		"shared": func(n node) {
			d.mapping(n, fields{
				"addresses": func(n node) {
					list(d, n, &shared.Addresses, func(n node, a *netip.Addr) { value(d, n, a, wantAddress, parseAddress) })
				},
				"ports": func(n node) { value(d, n, &shared.Ports, wantPorts, parsePorts) },
			})
		},
	})
}
