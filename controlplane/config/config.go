// Package config turns weir's YAML file into a Config in which everything is
// parsed, defaulted and checked.
//
// The problem it solves: whoever edits the file of a load balancer at night
// must not learn about mistakes one restart at a time, nor find out later that
// a misspelt key was ignored. So the parser is strict, goes on after a mistake,
// and reports all of them at once, each with its line, the path of its field
// and what would be right. What Parse returns needs no second look: every
// address is valid, every default is filled in, and no two services collide.
//
// What only the machine can tell (does the interface exist, is a VIP one of the
// box's own addresses) is checked when Parse is given a Host.
package config

import (
	"net/netip"
	"strconv"
	"time"
)

// Config is one configuration file, complete with defaults. It is not changed
// after Parse has returned it.
type Config struct {
	Node       string // name of this box in logs and metrics; default: host name
	Interfaces []Interface
	Services   []Service
	Flows      Flows
	IPIP       IPIP
	API        API
	Log        Log

	pos positions // where each field stands in the file
}

// Interface is one NIC that weir takes frames from.
type Interface struct {
	Name    string
	Driver  Driver  // default DriverAuto
	XDPMode XDPMode // default XDPAuto; DriverAFPacket has no other
	Queues  Queues  // default AllQueues
	CPUs    []int   // workers are pinned to these, in order; empty: the engine chooses
}

// Driver says how frames get from a NIC to weir.
type Driver string

// The drivers. DriverAuto takes the first that works.
const (
	DriverAuto     Driver = "auto"
	DriverAFXDP    Driver = "afxdp"
	DriverAFPacket Driver = "afpacket"
)

// XDPMode narrows what the AF_XDP driver may try.
type XDPMode string

// The modes of AF_XDP, fastest first after XDPAuto, which takes the first that
// works.
const (
	XDPAuto     XDPMode = "auto"
	XDPZeroCopy XDPMode = "zero-copy" // native XDP, frames stay in the NIC's memory
	XDPCopy     XDPMode = "copy"      // native XDP, one copy per frame
	XDPGeneric  XDPMode = "generic"   // XDP after the kernel has made an skb
)

// Queues is how many queues of a NIC weir serves, from queue 0 on.
type Queues int

// AllQueues stands for as many queues as the NIC has.
const AllQueues Queues = 0

// Service is a set of VIPs and ports, and the backends behind them.
type Service struct {
	Name      string       // unique; [a-z0-9-], at most 63 bytes
	Addresses []netip.Addr // the VIPs; no duplicates, no zones, never IPv4-mapped
	Ports     []Port       // no two overlap
	Mode      Mode         // default ModeDSR
	Affinity  Affinity     // default AffinityFlow
	TableSize int          // entries of the Maglev table, a prime; default 65537
	Health    *Health      // nil: backends are not checked
	Backends  []Backend    // no two have the same address
}

// Mode says how a frame is sent to a backend.
type Mode string

// The forwarding modes of this version.
const (
	ModeDSR  Mode = "dsr"  // new destination MAC; the backend holds the VIP
	ModeIPIP Mode = "ipip" // inside an IP tunnel, RFC 2003 and RFC 2473
)

// Affinity says which packets must reach the same backend.
type Affinity string

// The affinities.
const (
	AffinityFlow   Affinity = "flow"   // those of one 5-tuple
	AffinitySource Affinity = "source" // those of one client address
)

// Proto is an IP protocol number as assigned by IANA.
type Proto uint8

// The protocols a service can have.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// String returns the protocol's name as the configuration has it.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

// Port is a protocol and a range of its ports.
type Port struct {
	Proto  Proto
	Lo, Hi uint16 // both included, 1 <= Lo <= Hi
}

// All says whether p is every port of its protocol ("tcp/*").
func (p Port) All() bool { return p.Lo == 1 && p.Hi == 65535 }

// String returns p as the configuration has it.
func (p Port) String() string {
	switch {
	case p.All():
		return p.Proto.String() + "/*"
	case p.Lo == p.Hi:
		return p.Proto.String() + "/" + strconv.Itoa(int(p.Lo))
	}
	return p.Proto.String() + "/" + strconv.Itoa(int(p.Lo)) + "-" + strconv.Itoa(int(p.Hi))
}

// Health says how the backends of a service are checked. Exactly one of TCP and
// HTTP is set.
type Health struct {
	TCP      *TCPCheck
	HTTP     *HTTPCheck
	Interval time.Duration // from the start of one check to the next; default 2s
	Timeout  time.Duration // of one check, at most Interval; default 1s, or a shorter Interval
	Rise     int           // successes in a row until a backend is up; default 2
	Fall     int           // failures in a row until a backend is down; default 3
}

// TCPCheck succeeds when a connection is established.
type TCPCheck struct {
	Port uint16 // default: the service's first tcp port
}

// HTTPCheck succeeds when the answer's status code is one of Codes.
type HTTPCheck struct {
	Port   uint16 // default: the service's first tcp port
	Path   string // default "/"
	Host   string // Host header; empty: the backend's address
	Method string // GET, HEAD or OPTIONS; default GET
	Codes  []Codes
}

// Codes is a range of HTTP status codes, both ends included.
type Codes struct {
	Lo, Hi int // 100 <= Lo <= Hi <= 599
}

// Backend is a server behind a service.
type Backend struct {
	Address netip.Addr
	Weight  uint32 // share of new flows, relative to the others; 0: none; default 100
	State   State  // default Active
	VLAN    uint16 // 802.1Q tag of frames to it, 1..4094; 0: that of the route's interface
}

// State is what the administrator wants of a backend; health is separate.
type State string

// The admin states.
const (
	Active   State = "active"
	Draining State = "draining" // keeps its flows, gets no new ones
	Disabled State = "disabled" // gets nothing
)

// Flows sizes the flow tables.
type Flows struct {
	Entries  int // of each worker's table; default 1048576
	Timeouts Timeouts
}

// Timeouts is how long a flow is remembered after its last packet, by state.
// 0 stands for the flow table's own default.
type Timeouts struct {
	UDP            time.Duration
	TCPSyn         time.Duration
	TCPEstablished time.Duration
	TCPFin         time.Duration
	TCPClosed      time.Duration
}

// IPIP is the outer source address of tunnelled packets. For each family at
// most one of address and prefix is valid; with neither, the source is the one
// the kernel would take for the route to the backend.
type IPIP struct {
	Source  netip.Addr // IPv4
	Source6 netip.Addr // IPv6

	// With a prefix, its free low bits depend on the flow, so that RSS on a
	// backend spreads tunnelled flows over queues as it would plain ones. The
	// base address is masked, and at least 16 bits are free.
	SourcePrefix  netip.Prefix // IPv4
	SourcePrefix6 netip.Prefix // IPv6
}

// API is where weir can be asked.
type API struct {
	Socket  string // path of the unix socket; default /run/weir/weir.sock
	Metrics string // host:port of the Prometheus listener; empty: none
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn or error; default info
	Format string // text or json; default text
}
