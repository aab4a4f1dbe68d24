package snapshot

import (
	"weir/dataplane/limit"
)

// hands says which slots have changed hands in the latest snapshots that follow one
// another. Snapshots between which none did share one, so that however many of these
// a worker has not seen, it finds out by one comparison.
type hands struct {
	now   *moment
	steps []step // the newest last
}

// moment names a hands by its own address. It is apart from it, so that those of
// long ago are not kept in memory by those that followed.
type moment struct{ _ byte }

// step is what has changed between a moment and the next.
type step struct {
	since *moment
	slots []uint32
}

// maxSteps is for how many changes of the configuration a worker may be away (a
// turn of its loop, or a sleep) and need not look at all slots.
const maxSteps = 16

// Changes returns the slots that have other hands in s than in an earlier snapshot,
// which is to say another Generation, some of them more than once. all says that
// it is not known which these are, so that each may be one: since is nil, or too
// old, or s does not follow it.
func (s *Snapshot) Changes(since *Snapshot) (slots []uint32, all bool) {
	if since == nil {
		return nil, true
	}
	if s.hands == since.hands {
		return nil, false
	}
	for i := range s.hands.steps {
		if s.hands.steps[i].since == since.hands.now {
			for _, step := range s.hands.steps[i:] {
				slots = append(slots, step.slots...)
			}
			return slots, false
		}
	}
	return nil, true
}

// follow works out which slots have changed hands since the snapshot before.
func (s *Snapshot) follow(before *Snapshot, changed []uint32) {
	if before == nil {
		s.hands = &hands{now: new(moment)}
		return
	}
	var slots []uint32
	for _, slot := range changed {
		if int(slot) >= before.Slots() || before.Backend(slot).Generation != s.Backend(slot).Generation {
			slots = append(slots, slot)
		}
	}
	if len(slots) == 0 {
		s.hands = before.hands
		return
	}
	s.hands = &hands{now: new(moment)}
	// Those that are dropped would save nobody from looking at all slots.
	old, sum := before.hands.steps, len(slots)
	first := len(old)
	for first > 0 && len(old)-first < maxSteps-1 && sum+len(old[first-1].slots) <= s.Slots() {
		first--
		sum += len(old[first].slots)
	}
	s.hands.steps = append(s.hands.steps, old[first:]...)
	s.hands.steps = append(s.hands.steps, step{before.hands.now, slots})
}

// Doors says which services share limits: those with one ID.
type Doors struct {
	Of      []uint32 // by index of the service: which of IDs is its
	IDs     []uint32 // each once
	Sources bool     // a service limits its sources
}

// Doors returns the same pointer for two snapshots that follow one another if it
// says the same for both.
func (s *Snapshot) Doors() *Doors { return s.doors }

// addDoors shares the Doors of the snapshot before, if they are still right.
func (s *Snapshot) addDoors(before *Snapshot) {
	sources := false
	for i := range s.Services {
		l := &s.Services[i].Limits
		sources = sources || l.SourcePackets != (limit.Rate{}) || l.SourceNewFlows != (limit.Rate{})
	}
	if before != nil && before.doors.Sources == sources && sameIDs(s.Services, before.Services) {
		s.doors = before.doors
		return
	}
	s.doors = &Doors{Of: make([]uint32, len(s.Services)), Sources: sources}
	index := make(map[uint32]uint32, len(s.Services)) // in IDs
	for i := range s.Services {
		id := s.Services[i].ID
		n, known := index[id]
		if !known {
			n = uint32(len(s.doors.IDs))
			index[id] = n
			s.doors.IDs = append(s.doors.IDs, id)
		}
		s.doors.Of[i] = n
	}
}

func sameIDs(a, b []Service) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID {
			return false
		}
	}
	return true
}
