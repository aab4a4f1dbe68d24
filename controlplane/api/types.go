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
}

// Backend is one backend of one service.
type Backend struct {
	Service string     `json:"service"`
	Address netip.Addr `json:"address"`
	Weight  uint32     `json:"weight"`
	Share   float64    `json:"share"`  // of new flows, 0 to 1
	Admin   string     `json:"admin"`  // active, draining, disabled
	Status  string     `json:"status"` // up, draining, disabled, down, resolving, unreachable
	Reason  string     `json:"reason,omitempty"`
	Health  *Health    `json:"health,omitempty"` // absent without a health check
	Path    *Path      `json:"path,omitempty"`   // absent while no next hop is resolved
	Load
}

// Health is the state of a backend's check.
type Health struct {
	State     string    `json:"state"` // up, down, unknown
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
	MTU       int        `json:"mtu"`
}

// Flow is one entry of a flow table.
type Flow struct {
	Protocol  string         `json:"protocol"`
	Client    netip.AddrPort `json:"client"`
	VIP       netip.AddrPort `json:"vip"`
	Service   string         `json:"service"` // empty if the backend is gone
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
	Dropped       uint64            `json:"dropped"`
	Drops         map[string]uint64 `json:"drops"` // by reason, those that are not zero
	ARPReplies    uint64            `json:"arp_replies"`
	NDPReplies    uint64            `json:"ndp_replies"`
	EchoReplies   uint64            `json:"echo_replies"`
	Flows         int               `json:"flows"`
	FlowCapacity  int               `json:"flow_capacity"`
	FlowsEvicted  uint64            `json:"flows_evicted"`
	FlowsExpired  uint64            `json:"flows_expired"`
	Wakeups       uint64            `json:"wakeups"`
	KernelDropped uint64            `json:"kernel_dropped"` // before the worker: no room to receive into
	KernelInvalid uint64            `json:"kernel_invalid"` // before the worker: did not fit a frame
}

// Interface is one interface of the configuration.
type Interface struct {
	Name    string   `json:"name"`
	Up      bool     `json:"up"`
	Error   string   `json:"error,omitempty"` // why it is not worked
	MAC     string   `json:"mac"`
	MTU     int      `json:"mtu"`
	Driver  string   `json:"driver"`
	Mode    string   `json:"mode,omitempty"`
	Reasons []string `json:"reasons,omitempty"` // why nothing better works
	Workers int      `json:"workers"`
}

// Announcement is one VIP announced on one interface.
type Announcement struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	Protocol  string     `json:"protocol"` // arp, ndp
	Sent      uint64     `json:"sent"`
	Last      time.Time  `json:"last,omitzero"`
	Error     string     `json:"error,omitempty"`
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

// Problem is the body of every answer that is not 200.
type Problem struct {
	Error string `json:"error"`
}
