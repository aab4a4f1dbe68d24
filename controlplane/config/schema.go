package config

import (
	"os"
	"time"
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
	maxPrio    = 1_000_000     // of a pool
	maxMinimum = 65535         // backends
	maxSend    = 1280 - 40 - 8 // bytes of a UDP check: what fits every IPv6 path, RFC 8200 section 5
	maxRegexp  = 4096          // bytes
	maxFolder  = 4000          // bytes of its path; a file in it has up to PATH_MAX, 4096

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
	maxDelay    = 5 * time.Minute // of a shutdown
	minRetry    = time.Second     // of a BGP session
	maxRetry    = time.Hour
	minHold     = 3 * time.Second     // if there is one, RFC 4271 section 4.2
	maxHold     = 65535 * time.Second // 16 bits, the same
	maxRestart  = 4095 * time.Second  // 12 bits, RFC 4724 section 3
)

// Where weir is asked, and where it keeps what is to outlive it.
const (
	socketPath = "/run/weir/weir.sock"
	stateDir   = "/var/lib/weir"
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
		API:     API{Socket: socketPath},
		Log:     Log{Level: "info", Format: "text"},
	}
}

// What follows, here and in the other schema files, has one function for each
// type of the configuration, which knows the keys of its mapping and their
// defaults.

func (d *decoder) config(n node, c *Config) {
	d.mapping(n, fields{
		"node":       func(n node) { value(d, n, &c.Node, "a name", parseNode) },
		"interfaces": func(n node) { list(d, n, &c.Interfaces, d.netInterface) },
		"pools":      func(n node) { list(d, n, &c.Pools, d.pool) },
		"services":   func(n node) { list(d, n, &c.Services, d.service) },
		"flows":      func(n node) { d.flows(n, &c.Flows) },
		"ipip":       func(n node) { d.ipip(n, &c.IPIP) },
		"nat":        func(n node) { d.nat(n, c) },
		"cluster":    func(n node) { c.Cluster = d.cluster(n) },
		"bgp":        func(n node) { c.BGP = d.bgp(n) },
		"state_dir":  func(n node) { value(d, n, &c.StateDir, "the path of a folder", parseFolder) },
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
