// Package api lets people and programs ask a running weir what it does, over
// HTTP and JSON on a unix socket, and lets Prometheus scrape it.
//
// The problem it solves: what an engineer needs at three in the morning is
// spread over the configuration, the control plane's judgement and the
// counters of many workers. The api joins them per service and backend, so
// that every reader (weir show, a script, a dashboard) sees the same.
//
// Nouns are read with GET and never change anything; verbs are POSTed.
package api

import (
	"net/netip"
	"strings"
	"time"
)

// Traffic is a count of packets and of bytes, Ethernet headers included.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Load is what was sent to a backend or a service, summed over all workers.
type Load struct {
	Traffic
	NewFlows uint64 `json:"new_flows"` // decided since weir started
	Flows    int64  `json:"flows"`     // in the flow tables now
}

func (l *Load) add(o Load) {
	l.Packets += o.Packets
	l.Bytes += o.Bytes
	l.NewFlows += o.NewFlows
	l.Flows += o.Flows
}

// Service is one configured service.
type Service struct {
	Name      string       `json:"name"`
	Mode      string       `json:"mode"`
	Affinity  string       `json:"affinity"`
	TableSize int          `json:"table_size"`
	Addresses []netip.Addr `json:"addresses"`
	Ports     []string     `json:"ports"`
	Backends  int          `json:"backends"`
	Usable    int          `json:"usable"` // backends that may be sent to
	Load

	ClientAddress   string  `json:"client_address,omitempty"` // what backends see in mode nat: snat, keep
	AffinityPrefix  int     `json:"affinity_prefix,omitempty"`
	AffinityPrefix6 int     `json:"affinity_prefix6,omitempty"`
	Ping            string  `json:"ping"`
	Reject          string  `json:"reject"`
	SlowStartMS     int64   `json:"slow_start_ms"`
	Limits          *Limits `json:"limits,omitempty"` // absent without any
	ACL             *ACL    `json:"acl,omitempty"`    // absent without any
}

// Limits are what a service lets in per second, over all workers; 0 is no limit.
type Limits struct {
	NewFlows       int `json:"new_flows"`
	Packets        int `json:"packets"`
	Prefix         int `json:"prefix"`           // length of the IPv4 prefix that is one source
	Prefix6        int `json:"prefix6"`          // the same of IPv6
	NewFlowsPerSrc int `json:"source_new_flows"` // from each source
	PacketsPerSrc  int `json:"source_packets"`   // likewise
}

// ACL is how many prefixes an access list has.
type ACL struct {
	Allow int `json:"allow"`
	Deny  int `json:"deny"`
}

// Backend is one backend of one service.
type Backend struct {
	Service string     `json:"service"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"` // that NAT sends to; absent for the VIP's
	Weight  uint32     `json:"weight"`         // as configured
	Share   float64    `json:"share"`          // of new flows, 0 to 1
	Admin   string     `json:"admin"`          // active, draining, disabled
	Status  string     `json:"status"`         // up, draining, disabled, down, resolving, unreachable
	Reason  string     `json:"reason,omitempty"`
	Health  *Health    `json:"health,omitempty"` // absent without a health check
	Path    *Path      `json:"path,omitempty"`   // absent while no next hop is resolved
	Load
	Answers Traffic `json:"answers"` // from the backend, under NAT
	TCP     TCP     `json:"tcp"`

	// WeightNow is what counts of the weight at the moment. WeightUntil is when
	// all of it will, or none if it is drained; absent if that is so already.
	WeightNow   float64   `json:"weight_now"`
	WeightUntil time.Time `json:"weight_until,omitzero"`
	Drained     bool      `json:"drained"` // by weir drain
}

// TCP is what became of TCP connections to a backend, as far as they had an entry
// in a flow table.
type TCP struct {
	Opened      uint64 `json:"opened"`      // by a client's SYN
	Established uint64 `json:"established"` // of those, the ones whose client went on: the backend had answered
	Retries     uint64 `json:"retries"`     // SYNs sent again before that
	Resets      uint64 `json:"resets"`      // by the backend; only NAT sees them
}

// Ordered is the answer to a drain or an undrain.
type Ordered struct {
	Backends []Backend `json:"backends"` // those concerned, as they are now
	Warnings []string  `json:"warnings,omitempty"`
}

// Health is the state of a backend's check.
type Health struct {
	Kind      string    `json:"kind"`           // tcp, http, icmp, udp, dns, grpc
	Target    string    `json:"target"`         // vip: each VIP, by the way that traffic takes; backend: its own address
	Port      uint16    `json:"port,omitempty"` // absent if the check has none
	State     string    `json:"state"`          // up, down, unknown
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	LastMS    float64   `json:"last_ms"` // how long the latest probe took
}

// Path is how frames get to a backend.
type Path struct {
	Interface string     `json:"interface"`
	SrcMAC    string     `json:"src_mac"`
	DstMAC    string     `json:"dst_mac"`
	VLAN      uint16     `json:"vlan,omitempty"`
	Gateway   netip.Addr `json:"gateway,omitzero"`
	Source    netip.Addr `json:"source,omitzero"` // the kernel's address towards it
	MTU       int        `json:"mtu"`             // of all the way, in bytes of IP packet
	MTUSource string     `json:"mtu_source"`      // link, configured, learned
}

// Flow is one entry of a flow table.
type Flow struct {
	Protocol  string         `json:"protocol"`
	Client    netip.AddrPort `json:"client"`
	VIP       netip.AddrPort `json:"vip"`
	SNAT      netip.AddrPort `json:"snat,omitzero"` // what the backend sees instead of the client
	Service   string         `json:"service"`       // empty if the backend is gone
	Backend   netip.Addr     `json:"backend,omitzero"`
	State     string         `json:"state"`
	IdleMS    int64          `json:"idle_ms"`
	Interface string         `json:"interface"`
	Worker    int            `json:"worker"` // number of the queue
}

// Flows is a list of flows, and whether it was cut short.
type Flows struct {
	Flows     []Flow `json:"flows"`
	Truncated bool   `json:"truncated"`
}

// Worker is one worker and what it counted since it was started.
type Worker struct {
	Interface     string            `json:"interface"`
	Queue         int               `json:"queue"`
	CPU           int               `json:"cpu"` // -1 if not pinned
	Error         string            `json:"error,omitempty"`
	Received      Traffic           `json:"received"`
	Transmitted   Traffic           `json:"transmitted"`
	HandedOver    Traffic           `json:"handed_over"` // to workers of other interfaces
	Spread        Traffic           `json:"spread"`      // to other nodes
	Dropped       uint64            `json:"dropped"`
	Drops         map[string]uint64 `json:"drops"` // by reason, those that are not zero
	ARPReplies    uint64            `json:"arp_replies"`
	NDPReplies    uint64            `json:"ndp_replies"`
	EchoReplies   uint64            `json:"echo_replies"`
	Flows         int               `json:"flows"`
	FlowCapacity  int               `json:"flow_capacity"`
	FlowsEvicted  uint64            `json:"flows_evicted"` // trusted ones
	FlowsExpired  uint64            `json:"flows_expired"`
	Untrusted     uint64            `json:"flows_untrusted_evicted"`
	Refused       uint64            `json:"flows_refused"`    // new ones that the table had no room for
	Unrecorded    uint64            `json:"flows_unrecorded"` // new ones above flows.new_rate
	NATFlows      int64             `json:"nat_flows"`        // with a SNAT port now
	NATTakenOver  uint64            `json:"nat_taken_over"`   // flows that lost their SNAT port to a new one
	TooBigReplies uint64            `json:"too_big_replies"`  // senders told that a packet is too big
	TooBigLearned uint64            `json:"too_big_learned"`  // messages that a packet of weir's own was too big
	Rejects       uint64            `json:"rejects"`          // senders told that nobody serves them
	Relayed       uint64            `json:"errors_relayed"`   // ICMP errors given to whom they are about
	Fragmented    uint64            `json:"fragmented"`
	FragmentsHeld uint64            `json:"fragments_held"` // that had to wait for the first of their datagram
	Wakeups       uint64            `json:"wakeups"`
	Pauses        uint64            `json:"pauses"`         // batches that took more than a millisecond
	LongestUS     int64             `json:"longest_us"`     // the longest batch, in microseconds
	KernelDropped uint64            `json:"kernel_dropped"` // before the worker: no room to receive into
	KernelInvalid uint64            `json:"kernel_invalid"` // before the worker: did not fit a frame
}

// NAT is what mode nat has to give backends instead of their clients' addresses.
type NAT struct {
	Addresses []SNAT `json:"addresses"`
	Flows     int64  `json:"flows"`      // that have a port now, over all workers
	TakenOver uint64 `json:"taken_over"` // flows that were over, or no more than an opening, and lost their port
	Exhausted uint64 `json:"exhausted"`  // new flows refused because no port was free
}

// SNAT is an address that backends see. Its ports are given to workers in
// blocks of 64; a port serves as many flows as there are backends.
type SNAT struct {
	Address netip.Addr `json:"address"`
	Shared  bool       `json:"shared"` // the box's own address
	Ports   string     `json:"ports"`
	Blocks  int        `json:"blocks"`
	InUse   int        `json:"blocks_in_use"`
}

// Interface is one interface of the configuration.
type Interface struct {
	Name    string   `json:"name"`
	Up      bool     `json:"up"`
	Stuck   bool     `json:"stuck,omitempty"` // a worker does not look for work
	Error   string   `json:"error,omitempty"` // why it is not worked
	MAC     string   `json:"mac"`
	MTU     int      `json:"mtu"`
	Driver  string   `json:"driver"`
	Mode    string   `json:"mode,omitempty"`
	Reasons []string `json:"reasons,omitempty"` // why nothing better works
	Workers int      `json:"workers"`
}

// Drop is a reason for which frames were dropped, over all workers.
type Drop struct {
	Reason  string `json:"reason"`
	Help    string `json:"help"`
	Packets uint64 `json:"packets"`
}

// Info is about the process.
type Info struct {
	Version    string    `json:"version"`
	Node       string    `json:"node"`
	Config     string    `json:"config"` // path of the file
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Generation uint64    `json:"generation"` // of the snapshot in force
}

// Reloaded is the answer to a reload.
type Reloaded struct {
	Generation uint64   `json:"generation"`
	Warnings   []string `json:"warnings,omitempty"`
}

// Problem is the body of every answer that is not 200. Mistakes are those in a
// configuration, all there are, each as Error has it too.
type Problem struct {
	Error    string   `json:"error"`
	Mistakes []string `json:"mistakes,omitempty"`
}

// Mistakes is the error that a Client returns for a Problem that has any.
type Mistakes []string

// Error returns all mistakes, a line each.
func (m Mistakes) Error() string { return strings.Join(m, "\n") }

// Plan is what a configuration would change if it were put in force.
type Plan struct {
	// Restart names the sections that cannot change while weir runs. If there are
	// any, a reload would refuse the file, and a restart lose all flows.
	Restart  []string `json:"needs_restart,omitempty"`
	Warnings []string `json:"warnings,omitempty"`

	Services    []PlannedService `json:"services"`
	VIPsAdded   []netip.Addr     `json:"vips_added,omitempty"`
	VIPsRemoved []netip.Addr     `json:"vips_removed,omitempty"`
	Sections    []string         `json:"sections,omitempty"` // other keys that change
	Flows       int              `json:"flows"`              // alive now
	Breaks      int              `json:"breaks"`             // of them, those that would lose their backend
}

// PlannedService is what would become of a service.
type PlannedService struct {
	Name     string           `json:"name"`
	Change   string           `json:"change"`         // added, removed, changed, unchanged
	Keys     []string         `json:"keys,omitempty"` // that change
	Backends []PlannedBackend `json:"backends,omitempty"`
	Moved    float64          `json:"moved"` // part of new flows that would go to another backend, 0 to 1
	Slots    []SlotMove       `json:"slots,omitempty"`
	Flows    int              `json:"flows"`
	Breaks   int              `json:"breaks"`
}

// PlannedBackend is a backend that the file changes.
type PlannedBackend struct {
	Address netip.Addr `json:"address"`
	Change  string     `json:"change"` // added, removed, changed
	Keys    []string   `json:"keys,omitempty"`
}

// SlotMove is what part of the Maglev slots a backend has and would have, and
// what it loses and gains on the way, each 0 to 1. Without an address it is for
// the slots that nobody has.
type SlotMove struct {
	Backend netip.Addr `json:"backend,omitzero"`
	Before  float64    `json:"before"`
	After   float64    `json:"after"`
	Leaves  float64    `json:"leaves"`
	Comes   float64    `json:"comes"`
}
