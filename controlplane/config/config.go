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
//
// Files that the configuration names (keys, passwords, certificates) are read by
// Parse, too, so that a missing one is a mistake like any other. What is in them
// never gets into an error.
//
// Services that take their addresses from a pool have none after Parse. Package
// ipam finds some, WithAddresses fills them in, and CheckAddresses holds them
// against the same rules as those that are in the file.
package config

import (
	"net/netip"
	"strconv"
	"time"
)

// Config is one configuration file, complete with defaults. It is not changed
// after Parse has returned it.
type Config struct {
	Node       string // name of this box in logs, metrics and the cluster; default: host name
	Interfaces []Interface
	Pools      []Pool
	Services   []Service
	Flows      Flows
	IPIP       IPIP
	NAT        NAT
	PathMTU    PathMTU  // default PathMTULearn
	Cluster    *Cluster // nil: this node is alone
	BGP        *BGP     // nil: none
	API        API
	StateDir   string // folder for what is to outlive a restart of the box; clean, not "/"; default /var/lib/weir, or with another API.Socket than the default its folder
	Log        Log

	pos  positions // where each field stands in the file
	snat []span    // nat.addresses and nat.nodes as written; NAT.Addresses has those of this node one by one
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

// Flows sizes the flow tables.
type Flows struct {
	Entries  int // of each worker's table; default 1048576
	NewRate  int // new entries per second and worker, 0..1e9; default 125000; 0: no limit
	Timeouts Timeouts
}

// Timeouts is how long a flow is remembered after its last packet, by state.
// 0 stands for the flow table's own default.
type Timeouts struct {
	UDP            time.Duration
	TCPSyn         time.Duration
	TCPEstablished time.Duration
	TCPFin         time.Duration
	TCPTimeWait    time.Duration // both sides have finished; ModeNAT only
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

// PathMTU says whether messages that a packet was too big (RFC 1191, RFC 8201)
// lower what weir takes for the MTU of the path to a backend.
type PathMTU string

// What is done about such messages.
const (
	PathMTULearn PathMTU = "learn"
	PathMTUFixed PathMTU = "fixed" // nothing
)

// NAT is what packets to backends have as their source in ModeNAT with
// ClientSNAT. There are at most MaxSNAT addresses, Addresses and
// Shared.Addresses together, and none is there twice.
type NAT struct {
	Addresses []netip.Addr // this node's alone, in the order of the file; a prefix counts with all of its addresses
	Ports     PortRange    // of Addresses; default 1024-65535

	// Shared is addresses of the box itself, of which weir has these ports only.
	Shared struct {
		Addresses []netip.Addr
		Ports     PortRange // zero without Addresses
	}
}

// MaxSNAT is how many SNAT addresses there can be.
const MaxSNAT = 4096

// PortRange is a range of ports, both included, 1024 <= Lo <= Hi; the zero
// value is no port at all.
type PortRange struct {
	Lo, Hi uint16
}

// String returns r as the configuration has it.
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return strconv.Itoa(int(r.Lo))
	}
	return strconv.Itoa(int(r.Lo)) + "-" + strconv.Itoa(int(r.Hi))
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
