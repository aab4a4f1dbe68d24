package reconcile

import (
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/nat"
)

// View is what the latest compilation made of things, for people and metrics.
// It is never changed once published.
type View struct {
	Generation uint64 // of the snapshot that was compiled with it
	Services   []Service
	Slots      []SlotUse // by slot of the snapshot
	SNAT       []SNAT
	Addresses  []Address // VIPs
}

// Service is a configured service.
type Service struct {
	*config.Service
	Backends []Backend
}

// Usable is the number of backends that may be sent to.
func (s *Service) Usable() int {
	n := 0
	for i := range s.Backends {
		if s.Backends[i].Status == StatusUp || s.Backends[i].Status == StatusDraining {
			n++
		}
	}
	return n
}

// Status sums up what weir does with a backend.
type Status string

// The statuses.
const (
	StatusUp          Status = "up"          // gets new flows
	StatusDraining    Status = "draining"    // keeps the flows it has
	StatusDisabled    Status = "disabled"    // switched off by the configuration
	StatusDown        Status = "down"        // fails its health check
	StatusResolving   Status = "resolving"   // its next hop is being looked up
	StatusUnreachable Status = "unreachable" // there is no way to send to it
)

// Backend is a backend of a service.
type Backend struct {
	Address netip.Addr
	Port    uint16 // that NAT sends to; 0 for the VIP's
	Weight  uint32 // as configured
	Admin   config.State
	Status  Status
	Reason  string // why it gets no new flows, in words
	Check   string // ID of its health check; empty without one
	Health  health.Result
	Hop     nexthop.Hop
	Share   float64 // of the service's new flows, 0 to 1; by far the larger family's, if both have backends
	Slots   []SlotRef

	// Level is how many tenths of its weight it has at the moment, while it would
	// be usable. Until is when it will have all of it, or none if it is Drained;
	// zero if that is so already.
	Level   int
	Until   time.Time
	Drained bool // by Reconciler.Drain

	MTU       int       // of the path to it, in bytes of IP packet
	MTUSource MTUSource // of MTU
}

// MTUSource says where a path MTU is known from.
type MTUSource string

// The sources. With equal values the first counts.
const (
	MTULink       MTUSource = "link"       // the route or the interface
	MTUConfigured MTUSource = "configured" // the backend's mtu
	MTULearned    MTUSource = "learned"    // a router on the way
)

// WeightNow is the part of its weight that counts at the moment.
func (b *Backend) WeightNow() float64 {
	if b.Status != StatusUp {
		return 0
	}
	return float64(b.Weight) * float64(b.Level) / steps
}

// SlotRef is one slot of a backend: one per family of VIP it serves.
type SlotRef struct {
	Number     uint32
	Generation uint32
}

// SNAT is an address that backends may see their clients as.
type SNAT struct {
	Address netip.Addr
	Range   nat.Range
	Shared  bool // it is the box's own
}

// Slot returns what the flows and counters of a slot are of. ok is false if the
// slot has changed hands since, or is nobody's now.
func (v *View) Slot(number, generation uint32) (use SlotUse, ok bool) {
	if uint64(number) >= uint64(len(v.Slots)) || v.Slots[number].Generation != generation || generation == 0 {
		return SlotUse{}, false
	}
	return v.Slots[number], true
}

// SlotUse says who uses a slot: nobody, if Generation is zero.
type SlotUse struct {
	Service    string
	Backend    netip.Addr
	Generation uint32
}

// withHealth returns the view with what health checks have found since it was
// made: which error a backend that is down fails with changes more often than
// that it is down.
func (v *View) withHealth(results map[string]health.Result) *View {
	fresh := *v
	fresh.Services = slices.Clone(v.Services)
	for i := range fresh.Services {
		s := &fresh.Services[i]
		s.Backends = slices.Clone(s.Backends)
		for k := range s.Backends {
			b := &s.Backends[k]
			result, checked := results[b.Check]
			if b.Check == "" || !checked {
				continue
			}
			b.Health = result
			if b.Status == StatusDown && result.LastError != "" {
				b.Reason = result.LastError
			}
		}
	}
	return &fresh
}
