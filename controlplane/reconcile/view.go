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
	Reason  string        // why it gets no new flows, in words
	Checks  []Check       // none if it is not checked
	Health  health.Result // the worst of them
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

// Check is a health check of a backend.
type Check struct {
	ID     string
	VIP    netip.Addr // that it asks for; not valid if that is the backend's own address
	Result health.Result
}

// sum returns the worst result of checks.
func sum(checks []Check) (worst health.Result) {
	for i, c := range checks {
		r := c.Result
		if r.LastError != "" && c.VIP.IsValid() && len(checks) > 1 {
			r.LastError = c.VIP.String() + ": " + r.LastError
		}
		if i == 0 || badness(r) > badness(worst) {
			worst = r
		}
	}
	return worst
}

func badness(r health.Result) int {
	switch {
	case r.State == health.Down:
		return 3
	case r.Unable:
		return 2
	case r.State == health.Unknown:
		return 1
	}
	return 0
}

// failsAll tells whether a backend is checked, and is down by all of its checks.
func (b *Backend) failsAll() bool {
	return len(b.Checks) > 0 && !slices.ContainsFunc(b.Checks, func(c Check) bool { return c.Result.State != health.Down })
}

// healthFor returns what is known of a backend's health for a VIP; checked is false
// if it is not checked.
func (b *Backend) healthFor(vip netip.Addr) (r health.Result, checked bool) {
	for _, c := range b.Checks {
		if c.VIP == vip || !c.VIP.IsValid() {
			return c.Result, true
		}
	}
	return health.Result{}, false
}

// statusFor returns the status of a backend for one VIP: it may be up, and yet
// down for one that it does not hold.
func (b *Backend) statusFor(vip netip.Addr) Status {
	if r, _ := b.healthFor(vip); r.State == health.Down && (b.Status == StatusUp || b.Status == StatusDraining) {
		return StatusDown
	}
	return b.Status
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
			b.Checks = slices.Clone(b.Checks)
			for n := range b.Checks {
				if result, checked := results[b.Checks[n].ID]; checked {
					b.Checks[n].Result = result
				}
			}
			b.Health = sum(b.Checks)
			if b.Status == StatusDown && b.Health.LastError != "" {
				b.Reason = b.Health.LastError
			}
		}
	}
	return &fresh
}
