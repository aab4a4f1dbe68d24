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
	maxChecks  = 1000 // rise and fall
	maxCPU     = 1023 // CPU_SETSIZE of sched_setaffinity(2), less one
)

const (
	minInterval = 100 * time.Millisecond // between health checks
	maxInterval = time.Hour
	minTimeout  = 10 * time.Millisecond // of a health check
	minFlowAge  = time.Second
	maxFlowAge  = 7 * 24 * time.Hour
)

// defaults returns the configuration of a file that says nothing.
func defaults() *Config {
	node, err := os.Hostname()
	if _, problem := parseNode(node); err != nil || problem != "" {
		node = "weir"
	}
	return &Config{
		Node:  node,
		Flows: Flows{Entries: 1 << 20},
		API:   API{Socket: "/run/weir/weir.sock"},
		Log:   Log{Level: "info", Format: "text"},
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
		port := firstTCP(s.Ports)
		if t := s.Health.TCP; t != nil && t.Port == 0 {
			t.Port = port
		}
		if h := s.Health.HTTP; h != nil && h.Port == 0 {
			h.Port = port
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
	*s = Service{Mode: ModeDSR, Affinity: AffinityFlow, TableSize: 65537}
	d.mapping(n, fields{
		"name": func(n node) { value(d, n, &s.Name, "a name", parseServiceName) },
		"addresses": func(n node) {
			list(d, n, &s.Addresses, func(n node, a *netip.Addr) { value(d, n, a, wantAddress, parseVIP) })
		},
		"ports": func(n node) {
			list(d, n, &s.Ports, func(n node, p *Port) { value(d, n, p, wantPort, parsePort) })
		},
		"mode":       func(n node) { d.mode(n, s) },
		"affinity":   func(n node) { word(d, n, &s.Affinity, AffinityFlow, AffinitySource) },
		"table_size": func(n node) { number(d, n, &s.TableSize, 2, maxTable) },
		"health":     func(n node) { s.Health = d.health(n) },
		"backends":   func(n node) { list(d, n, &s.Backends, d.backend) },
	})
}

func (d *decoder) mode(n node, s *Service) {
	if n.Kind == yaml.ScalarNode && n.Value == "nat" {
		s.Mode = ""
		d.errorf(n.path, "mode nat is not available in this version; want one of dsr, ipip")
		return
	}
	word(d, n, &s.Mode, ModeDSR, ModeIPIP)
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
	})
}

func (d *decoder) flows(n node, f *Flows) {
	age := func(to *time.Duration) func(node) {
		return func(n node) { value(d, n, to, "a duration", parseDuration(minFlowAge, maxFlowAge)) }
	}
	d.mapping(n, fields{
		"entries": func(n node) { number(d, n, &f.Entries, minEntries, maxEntries) },
		"timeouts": func(n node) {
			d.mapping(n, fields{
				"udp":             age(&f.Timeouts.UDP),
				"tcp_syn":         age(&f.Timeouts.TCPSyn),
				"tcp_established": age(&f.Timeouts.TCPEstablished),
				"tcp_fin":         age(&f.Timeouts.TCPFin),
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
