package snapshot

import "weir/dataplane/rewrite"

// A snapshot has its backends in pages, and shares with the one before those in
// which nothing has changed. So one change of 100,000 backends copies 36 KiB and not
// 14 MB, which takes milliseconds and keeps the garbage collector busy; and workers
// find the backends that have not changed where their caches have them. It costs the
// look-up of a backend one more load, of a table that is small enough for the nearest
// cache.
const (
	pageBits = 8
	pageSize = 1 << pageBits
)

// Pages are the backends of a snapshot, for a loop that looks up many.
type Pages struct {
	backends []*[pageSize]Backend
	directs  []*[pageSize]rewrite.Direct // of these backends, for packets that need no more
}

// Backend is Snapshot.Backend.
func (p *Pages) Backend(slot uint32) *Backend {
	return &p.backends[slot>>pageBits][slot&(pageSize-1)]
}

// Direct is what a backend's Rewrite is in short.
func (p *Pages) Direct(slot uint32) *rewrite.Direct {
	return &p.directs[slot>>pageBits][slot&(pageSize-1)]
}

// add adds a page that nobody uses.
func (p *Pages) add() {
	unused := new([pageSize]Backend)
	for i := range unused {
		unused[i].Service = None
	}
	p.backends = append(p.backends, unused)
	p.directs = append(p.directs, new([pageSize]rewrite.Direct))
}

// own puts copies in the place of a page.
func (p *Pages) own(n uint32) {
	backends, directs := *p.backends[n], *p.directs[n]
	p.backends[n], p.directs[n] = &backends, &directs
}

// Placed is a backend and the slot that it goes to.
type Placed struct {
	Slot    uint32
	Backend Backend
}

// Slots is the number of slots. Those that nobody uses have State Removed.
func (s *Snapshot) Slots() int { return s.slots }

// Backend returns the backend in a slot, which has to be below Slots.
func (s *Snapshot) Backend(slot uint32) *Backend { return s.pages.Backend(slot) }

// Pages returns all backends.
func (s *Snapshot) Pages() *Pages { return &s.pages }

// setBackends puts the backends of a spec into pages. It returns the slots that are
// others than before.
func (s *Snapshot) setBackends(spec *Spec) (changed []uint32) {
	s.slots = max(spec.Slots, len(spec.Backends))
	shared, old := 0, 0 // pages and slots that there were
	if before := spec.Before; before != nil {
		shared, old = len(before.pages.backends), before.slots
		s.slots = max(s.slots, old)
	}
	pages := (s.slots + pageSize - 1) / pageSize
	s.pages = Pages{make([]*[pageSize]Backend, shared, pages), make([]*[pageSize]rewrite.Direct, shared, pages)}
	if shared > 0 {
		copy(s.pages.backends, spec.Before.pages.backends)
		copy(s.pages.directs, spec.Before.pages.directs)
	}
	for len(s.pages.backends) < pages {
		s.pages.add()
	}
	own := make(map[uint32]bool) // pages that are copies already
	place := func(slot uint32, b *Backend) {
		n := slot >> pageBits
		if int(n) < shared && !own[n] {
			s.pages.own(n)
			own[n] = true
		}
		*s.Backend(slot) = *b
		*s.pages.Direct(slot) = b.Rewrite.Direct()
		if int(slot) < old {
			changed = append(changed, slot)
		}
	}
	for slot := range spec.Backends {
		place(uint32(slot), &spec.Backends[slot])
	}
	for i := range spec.Placed {
		place(spec.Placed[i].Slot, &spec.Placed[i].Backend)
	}
	for slot := old; slot < s.slots; slot++ {
		changed = append(changed, uint32(slot))
	}
	return changed
}
