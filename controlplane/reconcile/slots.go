package reconcile

import (
	"cmp"
	"net/netip"
	"slices"
)

// slotKey names what a backend slot of the snapshot stands for. A backend of a
// service with VIPs of both families has two, since what is done to packets
// differs by family.
type slotKey struct {
	service string
	ipv6    bool // of the VIPs
	backend netip.Addr
}

// slot is a place in Snapshot.Backends, and how often it had changed hands
// when it was given out.
type slot struct {
	number     uint32
	generation uint32
}

// slots gives out numbers that stay with a backend for as long as it is
// configured: flow tables remember them across snapshots. A number that is
// free again is used again, with another generation, so that the table of
// backends stays about as small as the largest configuration so far.
type slots struct {
	used        map[slotKey]slot
	generations []uint32 // by number: the last given out
	free        []uint32
}

func newSlots() *slots { return &slots{used: make(map[slotKey]slot)} }

func (s *slots) get(key slotKey) slot {
	if got, ok := s.used[key]; ok {
		return got
	}
	var n uint32
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
	} else {
		n = uint32(len(s.generations))
		s.generations = append(s.generations, 0)
	}
	s.generations[n]++
	got := slot{number: n, generation: s.generations[n]}
	s.used[key] = got
	return got
}

// keep frees all slots that are not in wanted. It is called only when what
// wants them has been compiled: had it failed, the backends of before would
// still need theirs.
func (s *slots) keep(wanted map[slotKey]bool) {
	for key, got := range s.used {
		if !wanted[key] {
			delete(s.used, key)
			s.free = append(s.free, got.number)
		}
	}
	slices.SortFunc(s.free, func(a, b uint32) int { return cmp.Compare(b, a) }) // the lowest is last, and goes first
}

// size is the number of slots there have ever been.
func (s *slots) size() int { return len(s.generations) }
