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
	Backends   []Backend // by slot; a slot nobody uses has State Removed

	vips vipTable
}

// Interface is what a worker needs to know about a NIC.
type Interface struct {
	Name string
	MAC  packet.MAC
}

// Affinity says which part of a tuple picks the backend of a new flow.
type Affinity uint8

const (
	AffinityFlow   Affinity = iota // all of the tuple
	AffinitySource                 // the client's address alone
)

// Service is one address family of a configured service: its VIPs of that
// family share one lookup table.
type Service struct {
	Name     string
	Affinity Affinity

	// Table is a Maglev table over Members; each entry is an index into it.
	// It is empty if no backend may be given a new flow.
	Table []uint16

	// Members are slot numbers in Snapshot.Backends.
	Members []uint32

	// Empty says why Table is empty: stats.NoBackend or stats.Unresolved.
	Empty stats.Reason
}

// Pick returns the slot of the backend that a new flow with this stable hash
// belongs to, or None.
func (s *Service) Pick(hash uint64) uint32 {
	n := uint64(len(s.Table))
	if n == 0 {
		return None
	}
	return s.Members[s.Table[hash%n]]
}

// BackendState says what may be sent to a backend slot.
type BackendState uint8

const (
	Removed BackendState = iota // nothing: the slot is unused, or its backend is down, disabled or unreachable
	Keeps                       // packets of flows it already has: it drains, or its weight is 0
	Active                      // everything
)

// Backend is one slot: a backend of one service and one address family.
type Backend struct {
	Rewrite rewrite.Rewrite
	State   BackendState

	// Generation tells the users of a slot apart over time: a flow entry
	// counts only while its generation is still the slot's.
	Generation uint32

	// Service is the index of the service in this snapshot. A flow whose
	// tuple has come to belong to another service is decided anew.
	Service uint32
}

// Spec is what a snapshot is built from.
type Spec struct {
	Generation uint64
	Interfaces []Interface
	Services   []Service
	Backends   []Backend
	VIPs       []VIPSpec
}

// New builds a snapshot. It takes over the slices of spec. Its error names two
// services that claim the same address, protocol and port, or what refers to
// something that is not in spec and would have workers reach past the end.
// The entries of the Maglev tables are not looked at: there are millions.
func New(spec Spec) (*Snapshot, error) {
	s := &Snapshot{
		Generation: spec.Generation,
		Interfaces: spec.Interfaces,
		Services:   spec.Services,
		Backends:   spec.Backends,
	}
	for i := range s.Services {
		for _, slot := range s.Services[i].Members {
			if uint64(slot) >= uint64(len(s.Backends)) {
				return nil, fmt.Errorf("build snapshot: service %s: there is no backend slot %d", s.Services[i].Name, slot)
			}
		}
	}
	var err error
	if s.vips, err = newVIPTable(spec.VIPs, s.Services); err != nil {
		return nil, err
	}
	return s, nil
}

// VIP returns the VIP with this address (IPv4-mapped for IPv4), or nil.
func (s *Snapshot) VIP(addr *[16]byte) *VIP { return s.vips.find(addr) }
