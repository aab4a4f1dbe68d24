package snapshot

// A snapshot has its backends in pages, and shares with the one before those in
// which nothing has changed. So one change of 100,000 backends copies 32 KiB and not
// 13 MB, which takes milliseconds and keeps the garbage collector busy; and workers
// find the backends that have not changed where their caches have them. It costs the
// look-up of a backend one more load, of a table that is small enough for the nearest
// cache.
const (
	pageBits = 8
	pageSize = 1 << pageBits
)

// pages are the backends of a snapshot.
type pages []*[pageSize]Backend

func (p pages) backend(slot uint32) *Backend {
	return &p[slot>>pageBits][slot&(pageSize-1)]
}

// add adds a page that nobody uses.
func (p *pages) add() {
	unused := new([pageSize]Backend)
	for i := range unused {
		unused[i].Service = None
	}
	*p = append(*p, unused)
}

// own puts a copy in the place of a page.
func (p pages) own(n uint32) {
	backends := *p[n]
	p[n] = &backends
}

// Placed is a backend and the slot that it goes to.
type Placed struct {
	Slot    uint32
	Backend Backend
}

// Slots is the number of slots. Those that nobody uses have State Removed.
func (s *Snapshot) Slots() int { return s.slots }

// Backend returns the backend in a slot, which has to be below Slots.
func (s *Snapshot) Backend(slot uint32) *Backend { return s.pages.backend(slot) }

// setBackends puts the backends of a spec into pages. It returns the slots that are
// others than before.
func (s *Snapshot) setBackends(spec *Spec) (changed []uint32) {
	s.slots = max(spec.Slots, len(spec.Backends))
	shared, old := 0, 0 // pages and slots that there were
	if before := spec.Before; before != nil {
		shared, old = len(before.pages), before.slots
		s.slots = max(s.slots, old)
	}
	count := (s.slots + pageSize - 1) / pageSize
	s.pages = make(pages, shared, count)
	if shared > 0 {
		copy(s.pages, spec.Before.pages)
	}
	for len(s.pages) < count {
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
