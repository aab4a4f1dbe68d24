// Package snapshot is the compiled state that workers read: which VIPs there
// are, which service owns each of their ports, which backend a flow goes to and
// what is done to its packets.
//
// The problem it solves: configuration, health and next hops change at any
// time, while a worker must see one consistent picture per batch and may not
// take a lock. So a snapshot is built whole, never changed afterwards, and put
// in place by swapping one atomic pointer.
package snapshot

import (
	"fmt"
	"slices"

	"weir/dataplane/acl"
	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// None is the index of no service and no backend.
const None = ^uint32(0)

// Snapshot is immutable once New has returned it.
type Snapshot struct {
	Generation uint64      // grows with every snapshot
	Interfaces []Interface // by the number that Rewrite.Egress uses
	Services   []Service
	SNAT4      []SNAT     // addresses that IPv4 backends may see clients as
	SNAT6      []SNAT     // the same for IPv6
	NewFlows   limit.Rate // entries a worker may make per second; beyond it, Maglev alone decides where that is possible

	pages   pages // of backends, by slot
	slots   int
	nodes   [][16]byte
	vips    vipTable
	snat    []nat.Range // by slot of nat.Space; one that is not in use has no port
	nat     bool        // a service has a mode other than Direct
	keepers *ends       // backends of modes that leave the client's address, by theirs
	tunnels *ends       // backends behind tunnels, by the outer destination
	answers [][]VIPSpec // by service: what its backends answer as keepers
	hands   *hands
	doors   *Doors

	backward *backward // where answers go; nil without NAT
}

// Interface is what a worker needs to know about a NIC.
type Interface struct {
	Name string
	MAC  packet.MAC
	MTU  uint32 // largest IP packet in bytes
}

// SNAT is an address that backends see instead of the client's, and the ports
// of it that are weir's.
type SNAT struct {
	Addr  [16]byte // IPv4-mapped for IPv4
	Range nat.Range

	// Shared says that the address is the box's own: the kernel answers for
	// it, and all but the ports of Range is the kernel's.
	Shared bool

	// Silent is what VIPPolicy.Silent is for a VIP. New flows get no port of it.
	Silent bool
}

// Affinity says which part of a tuple picks the backend of a new flow.
type Affinity uint8

const (
	AffinityFlow   Affinity = iota // all of the tuple
	AffinitySource                 // the client's address alone
)

// Mode says how the packets of a service reach its backends.
type Mode uint8

const (
	Direct  Mode = iota // as Backend.Rewrite says, answers do not come by here
	NAT                 // from a SNAT address to the backend's address
	NATKeep             // to the backend's address, from the client's
)

// Limits are rates per worker. A zero Rate does not limit.
type Limits struct {
	NewFlows limit.Rate
	Packets  limit.Rate

	// PerSource limits each prefix of clients, of SourceBits bits.
	SourceNewFlows limit.Rate
	SourcePackets  limit.Rate
	SourceBits     int
}

// Service is a part of a configured service: VIPs of one family that share one
// lookup table. What every packet needs comes first.
type Service struct {
	// Table is a Maglev table over Members; each entry is an index into it.
	// It is empty if no backend may be given a new flow.
	Table []uint16

	// Members are slots: see Snapshot.Backend.
	Members []uint32

	Mode     Mode
	guarded  bool // it has an access list or limits
	spread   bool // other nodes take their share of it, by one of its VIPs at least
	Affinity Affinity

	// Empty says why Table is empty: stats.NoBackend or stats.Unresolved.
	Empty stats.Reason

	// AffinityBits is how many leading bits of the client's address pick the
	// backend with AffinitySource, in the family of the service.
	AffinityBits int

	// ID is the configured service's and family's for as long as it exists, whatever
	// the index; parts with the same ID share limits.
	ID     uint32
	Name   string
	ACL    *acl.List // nil lets everybody in
	Limits Limits
}

// Guarded tells whether the service has an access list or limits.
func (s *Service) Guarded() bool { return s.guarded }

// Spread tells whether one of the service's VIPs has a Spread that is for it.
func (s *Service) Spread() bool { return s.spread }

// Pick returns the slot of the backend that a new flow with this stable hash
// belongs to, or None.
func (s *Service) Pick(hash uint64) uint32 {
	n := uint64(len(s.Table))
	if n == 0 {
		return None
	}
	return s.Members[s.Table[hash%n]]
}

// Choose returns the slot of the backend that a new flow belongs to, or None. It
// is the same on every node, so that nodes agree on a flow's backend without
// talking to each other.
func (s *Service) Choose(t *packet.Tuple) uint32 { return s.Pick(s.hash(t)) }

// hash returns the stable hash of what stays together: a flow, or all flows of
// a prefix of clients.
func (s *Service) hash(t *packet.Tuple) uint64 {
	if s.Affinity == AffinitySource {
		source := limit.Mask(&t.Src, s.AffinityBits, s.AffinityBits)
		return flow.HashStableSource(&source)
	}
	return flow.HashStable(t)
}

// BackendState says what may be sent to a backend slot.
type BackendState uint8

const (
	Removed BackendState = iota // nothing: the slot is unused, or its backend is down, disabled or unreachable
	Keeps                       // packets of flows it already has: it drains, or its weight is 0
	Active                      // everything
)

// Backend is one slot: a backend of one service and one address family. It is two
// cache lines long, the first of which is all that a packet of a known flow needs
// if there is no NAT.
type Backend struct {
	Rewrite rewrite.Rewrite
	State   BackendState

	// Generation tells the users of a slot apart over time: a flow entry
	// counts only while its generation is still the slot's.
	Generation uint32

	// Service is the index of the service in this snapshot. A flow whose
	// tuple has come to belong to another service is decided anew.
	Service uint32

	// Addr is the backend's address, IPv4-mapped for IPv4, and Port the one
	// that NAT sends to, 0 for the VIP's.
	Addr [16]byte
	Port uint16

	_ [128 - 64 - 26]byte
}

// Spec is what a snapshot is built from.
type Spec struct {
	Generation uint64
	Interfaces []Interface
	Services   []Service
	Backends   []Backend // by slot; a slot nobody uses has State Removed
	VIPs       []VIPSpec
	Policies   []VIPPolicy // a VIP without one answers ping and nothing else
	Spreads    []Spread    // one of an address that is no VIP means nothing
	SNAT       []SNAT
	NewFlows   limit.Rate

	// Nodes are the own addresses of weir's nodes, IPv4-mapped for IPv4: where
	// health checks come from. There are few.
	Nodes [][16]byte

	// Placed are backends too, each with its slot, and Slots is how many slots there
	// are at least. One that nothing is said of is used by nobody.
	Placed []Placed
	Slots  int

	// Before is the snapshot that this one follows. Its backends and slots are there
	// as well then, but for those that Backends and Placed say otherwise of. What has
	// not changed is shared, and what hangs on VIPs and SNAT too if they are the
	// slices that Before was built from.
	Before *Snapshot
}

// New builds a snapshot. It takes over the slices of spec. Its error names two
// services that claim the same address, protocol and port, or what refers to
// something that is not in spec and would have workers reach past the end.
// The entries of the Maglev tables, a Spread's too, are not looked at: there are
// millions.
func New(spec Spec) (*Snapshot, error) {
	s := &Snapshot{
		Generation: spec.Generation,
		Interfaces: spec.Interfaces,
		Services:   spec.Services,
		NewFlows:   spec.NewFlows,
		nodes:      spec.Nodes,
	}
	for i := range spec.Placed {
		spec.Slots = max(spec.Slots, int(spec.Placed[i].Slot)+1)
	}
	before, changed := spec.Before, s.setBackends(&spec)
	for i := range s.Services {
		svc := &s.Services[i]
		svc.guarded, svc.spread = svc.ACL != nil || svc.Limits != (Limits{}), false
		s.nat = s.nat || svc.Mode != Direct
		for _, slot := range svc.Members {
			if uint64(slot) >= uint64(s.slots) {
				return nil, fmt.Errorf("build snapshot: service %s: there is no backend slot %d", svc.Name, slot)
			}
		}
	}
	var err error
	if before != nil && before.vips.isOf(&spec) {
		s.vips = before.vips.with(spec.Policies)
	} else if s.vips, err = newVIPTable(&spec); err != nil {
		return nil, err
	}
	if err = s.addSpreads(spec.Spreads); err != nil {
		return nil, err
	}
	for _, a := range spec.SNAT {
		s.addSNAT(a)
	}
	s.follow(before, changed)
	s.addEnds(before, changed)
	s.addAnswers(spec.VIPs)
	s.addDoors(before)
	s.addBackward(before)
	return s, nil
}

func (s *Snapshot) addSNAT(a SNAT) {
	if packet.IsMapped(a.Addr) {
		s.SNAT4 = append(s.SNAT4, a)
	} else {
		s.SNAT6 = append(s.SNAT6, a)
	}
	if n := int(a.Range.Slot) + 1 - len(s.snat); n > 0 {
		s.snat = append(s.snat, slices.Repeat([]nat.Range{{Lo: 1}}, n)...)
	}
	s.snat[a.Range.Slot] = a.Range
}

// VIP returns the VIP or SNAT address with this address (IPv4-mapped for IPv4),
// or nil.
func (s *Snapshot) VIP(addr *[16]byte) *VIP { return s.vips.find(addr) }

// SNAT returns the addresses that a backend with this address may see clients
// as.
func (s *Snapshot) SNAT(backend *[16]byte) []SNAT {
	if packet.IsMapped(*backend) {
		return s.SNAT4
	}
	return s.SNAT6
}

// SNATInUse tells whether flows may have a port of a slot of nat.Space.
func (s *Snapshot) SNATInUse(slot, port uint16) bool {
	return int(slot) < len(s.snat) && s.snat[slot].Lo <= port && port <= s.snat[slot].Hi
}

// NAT tells whether a service has a mode other than Direct.
func (s *Snapshot) NAT() bool { return s.nat }

// ProbeTTL is the TTL or hop limit that health checks to VIPs start with, and
// lowest is above what anything else starts with.
const (
	ProbeTTL = 255
	lowest   = 129
)

// IsStrayProbe tells whether a packet is a health check that one of weir's nodes
// has sent to one backend, and that this has forwarded instead of taking it,
// because it does not hold the VIP. Were it served, another backend would answer
// for that one.
func (s *Snapshot) IsStrayProbe(src *[16]byte, ttl uint8) bool {
	return lowest <= ttl && ttl < ProbeTTL && slices.Contains(s.nodes, *src)
}

// MayBeAnswer is false for a packet that is surely none of a backend under NAT.
func (s *Snapshot) MayBeAnswer(src, dst *[16]byte) bool {
	return s.backward != nil && s.backward.may(src, dst)
}
