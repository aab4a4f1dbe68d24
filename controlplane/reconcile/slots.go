package reconcile

import (
	"cmp"
	"net/netip"
	"slices"

	"weir/dataplane/snapshot"
)

// slotKey names what a backend slot of the snapshot stands for. A backend of a
// service with VIPs of both families has two, since what is done to packets
// differs by family, and one for each VIP where these are checked. With another mode or port it is another slot: what a flow
// was given before is of no use there.
type slotKey struct {
	service string
	ipv6    bool       // of the VIPs
	vip     netip.Addr // the only one, if each is judged by itself
	backend netip.Addr
	mode    snapshot.Mode
	tunnel  bool
	port    uint16 // in mode nat only
}

// serviceKey names one address family of a service.
type serviceKey struct {
	service string
	ipv6    bool
}

// slot is a place in Snapshot.Backends, and how often it had changed hands
// when it was given out.
type slot struct {
	number     uint32
	generation uint32
}

// slots gives out numbers that stay with a backend, or whatever else K names,
// for as long as it is configured: flow tables remember them across snapshots. A
// number that is free again is used again, with another generation, so that the
// table of backends stays about as small as the largest configuration so far.
type slots[K comparable] struct {
	used        map[K]*use
	generations []uint32 // by number: the last given out
	free        []uint32 // the lowest is last, and goes first
	round       uint64   // of compiling
	taken       []K      // in this round
	going       []K      // at the end of this round
}

// use is a slot, and the rounds in which it was last asked for and given up.
type use struct {
	slot
	round, going uint64
}

func newSlots[K comparable]() *slots[K] { return &slots[K]{used: make(map[K]*use)} }

// begin starts a round. keep ends it and frees all slots that were given up. If the
// round was no success, drop ends it instead: the backends of before still need
// theirs, and nobody has seen the new ones.
func (s *slots[K]) begin() {
	s.round++
	s.taken, s.going = s.taken[:0], s.going[:0]
}

func (s *slots[K]) keep() {
	for _, key := range s.going {
		s.free = append(s.free, s.used[key].number)
		delete(s.used, key)
	}
	if len(s.going) > 0 {
		slices.SortFunc(s.free, func(a, b uint32) int { return cmp.Compare(b, a) })
	}
}

func (s *slots[K]) drop() {
	for _, key := range s.taken {
		n := s.used[key].number
		delete(s.used, key)
		s.generations[n]--
		s.free = append(s.free, n)
	}
	if len(s.taken) > 0 {
		slices.SortFunc(s.free, func(a, b uint32) int { return cmp.Compare(b, a) })
	}
}

func (s *slots[K]) get(key K) slot {
	u := s.used[key]
	if u == nil {
		u = &use{slot: s.take()}
		s.used[key] = u
		s.taken = append(s.taken, key)
	}
	u.round = s.round
	return u.slot
}

// goes gives a slot up, unless it was asked for in this round. It reports whether it
// will be free.
func (s *slots[K]) goes(key K) (number uint32, goes bool) {
	u := s.used[key]
	if u == nil || u.round == s.round || u.going == s.round {
		return 0, false
	}
	u.going = s.round
	s.going = append(s.going, key)
	return u.number, true
}

func (s *slots[K]) take() slot {
	var n uint32
	if last := len(s.free) - 1; last >= 0 {
		n, s.free = s.free[last], s.free[:last]
	} else {
		n = uint32(len(s.generations))
		s.generations = append(s.generations, 0)
	}
	s.generations[n]++
	return slot{number: n, generation: s.generations[n]}
}

// size is the number of slots there have ever been.
func (s *slots[K]) size() int { return len(s.generations) }

// clone returns a copy that goes its own way.
func (s *slots[K]) clone() *slots[K] {
	c := &slots[K]{
		used:        make(map[K]*use, len(s.used)),
		generations: slices.Clone(s.generations),
		free:        slices.Clone(s.free),
		round:       s.round,
	}
	for key, u := range s.used {
		copied := *u
		c.used[key] = &copied
	}
	return c
}
