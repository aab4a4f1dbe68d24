package nexthop

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
)

const (
	// maxLogged is how many changed hops of one pass are logged one by one;
	// when more change at once, they have one cause.
	maxLogged = 16

	// In beats: how often the kernel is asked to look for a neighbour that it
	// does not know or that was silent, and how often to verify one that
	// nobody verifies. For the former, the kernel sends its usual three
	// requests a second apart, and repeating the question while it is at it
	// does nothing: a neighbour that is back is found within two seconds.
	askMissing = 1
	askStale   = 3
)

// target is one backend address and what is known of it.
type target struct {
	addr   netip.Addr
	asked  bool // found and lookup are current
	found  route
	lookup error
	hop    Hop
	key    neighKey // the neighbour the hop depends on, or zero
	solved bool     // hop has been worked out at least once
}

// request is the latest time the kernel was asked to probe a neighbour.
type request struct {
	beat    int
	refused error
}

// state is everything that Run knows. Only its goroutine uses it. It is kept
// when the sockets have to be opened again.
type state struct {
	log *slog.Logger
	tables
	targets  []*target // ascending by address
	requests map[neighKey]request
	sources  map[neighKey]netip.Addr // own address towards a gateway; invalid if there is none
	watch    *watch
	beats    int
	own      []Address // the machine's addresses, ascending
	reread   bool      // the tables have to be read again
	recount  bool      // own has to be read again
	altered  bool      // the set of targets has changed

	moved []netip.Addr // whose hop the latest pass has changed
}

func newState(log *slog.Logger) *state {
	return &state{
		log:      log,
		tables:   tables{links: map[int]link{}, neighbours: map[neighKey]neighbour{}},
		requests: map[neighKey]request{},
		sources:  map[neighKey]netip.Addr{},
		watch:    newWatch(),
	}
}

// setTargets replaces the targets; those that were there before keep all that
// is known of them.
func (s *state) setTargets(wanted []netip.Addr) {
	known := make(map[netip.Addr]*target, len(s.targets))
	for _, t := range s.targets {
		known[t.addr] = t
	}
	addrs := slices.Clone(wanted)
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	s.targets = make([]*target, len(addrs))
	for i, addr := range addrs {
		t := known[addr]
		if t == nil {
			t = &target{addr: addr}
		}
		delete(known, addr)
		s.targets[i] = t
	}
	s.altered = s.altered || len(known) > 0
}

// beat starts a part of the regular refresh: the tables every refreshBeats
// beats, and of the routes an equal share on each beat.
func (s *state) beat() {
	s.beats++
	phase := s.beats % refreshBeats
	for i := phase; i < len(s.targets); i += refreshBeats {
		s.targets[i].asked = false
	}
	if phase == 0 {
		s.reread, s.recount = true, true
		clear(s.sources)
	}
	// An older one makes no difference to what is asked when.
	maps.DeleteFunc(s.requests, func(_ neighKey, r request) bool { return s.beats-r.beat > refreshBeats })
}

// apply works notifications into the tables, and says whether a hop may have
// changed by them. Most notifications are a neighbour's MAC being verified
// once more, which changes none.
func (s *state) apply(events []event) bool {
	changed := false
	for i := range events {
		switch e := &events[i]; e.kind {
		case linkChanged:
			if s.links[e.link.index] != e.link {
				s.links[e.link.index] = e.link
				s.askAll() // IPv4 routes come and go with their link silently
				changed = true
			}
		case linkGone:
			delete(s.links, e.link.index)
			s.askAll()
			changed = true
		case neighbourChanged:
			old := s.neighbours[e.neighbour.neighKey]
			if e.neighbour.fact == unknown {
				delete(s.neighbours, e.neighbour.neighKey)
			} else {
				s.neighbours[e.neighbour.neighKey] = e.neighbour
			}
			changed = changed || old.mac != e.neighbour.mac ||
				old.fact.usable() != e.neighbour.fact.usable() || old.fact == failed != (e.neighbour.fact == failed)
		case routeChanged:
			changed = s.askWithin(e.prefix) || changed
		case anyRouteChanged:
			s.askAll()
			s.recount = true
			changed = true
		}
	}
	return changed
}

// forget makes the next pass ask the kernel for everything. The hops stay.
func (s *state) forget() {
	s.reread = true
	s.recount = true
	s.askAll()
}

// askAll makes the next pass look every target up.
func (s *state) askAll() {
	for _, t := range s.targets {
		t.asked = false
	}
	clear(s.sources)
}

// askWithin makes the next pass look up the targets in a prefix, and says
// whether there are any. It does not look at the others: a routing daemon may
// change very many routes that no backend is behind.
func (s *state) askWithin(prefix netip.Prefix) bool {
	first, _ := slices.BinarySearchFunc(s.targets, prefix.Addr(), func(t *target, addr netip.Addr) int {
		return t.addr.Compare(addr)
	})
	last := first
	for ; last < len(s.targets) && prefix.Contains(s.targets[last].addr.WithZone("")); last++ {
		s.targets[last].asked = false
	}
	return last > first
}

// pass asks the kernel what has to be asked and works every hop out again. It
// says whether one differs from before, or an own address.
func (s *state) pass(k kernel) (changed bool, err error) {
	if s.reread {
		if err := s.readTables(k); err != nil {
			return false, err
		}
		s.reread = false
	}
	changed, s.altered = s.altered, false
	if s.recount {
		renumbered, err := s.readAddresses(k)
		if err != nil {
			return false, err
		}
		s.recount = false
		changed = changed || renumbered
	}
	var moved []*target
	for _, t := range s.targets {
		if !t.asked {
			t.found, t.lookup = k.Route(t.addr)
			t.asked = true
		}
		hop, key := s.resolve(t.addr, t.found, t.lookup, s.requests[t.key].refused, t.hop)
		t.key = key
		if hop != t.hop || !t.solved {
			t.hop, t.solved, changed = hop, true, true
			moved = append(moved, t)
		}
		n := s.neighbours[key]
		s.probe(k, key, n.fact)
		if n.fact == fresh || n.fact == stale {
			s.poll(k, n, t)
		}
	}
	s.watch.sweep()
	s.moved = s.moved[:0]
	for _, t := range moved {
		s.moved = append(s.moved, t.addr)
	}
	s.logMoves(moved)
	return changed, nil
}

// readTables replaces the tables by what the kernel has now. A difference in
// the links was not notified, so its effect on routes may not have been either.
func (s *state) readTables(k kernel) error {
	links, err := k.Links()
	if err != nil {
		return err
	}
	neighbours, err := k.Neighbours()
	if err != nil {
		return err
	}
	before := s.links
	s.links = make(map[int]link, len(links))
	for _, l := range links {
		s.links[l.index] = l
	}
	if !maps.Equal(before, s.links) {
		s.askAll()
	}
	s.neighbours = make(map[neighKey]neighbour, len(neighbours))
	for _, n := range neighbours {
		if n.fact != unknown {
			s.neighbours[n.neighKey] = n
		}
	}
	return nil
}

// readAddresses reads the machine's own addresses, and says whether they differ
// from before.
func (s *state) readAddresses(k kernel) (changed bool, err error) {
	own, err := k.Addresses()
	if err != nil {
		return false, err
	}
	addresses := make([]Address, 0, len(own))
	for _, o := range own {
		l := s.links[o.ifindex]
		if l.vlan != 0 {
			l = s.links[l.parent]
		}
		addresses = append(addresses, Address{o.prefix, l.name})
	}
	slices.SortFunc(addresses, func(a, b Address) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Interface, b.Interface))
	})
	addresses = slices.Compact(addresses)
	changed = !slices.Equal(addresses, s.own)
	s.own = addresses
	return changed, nil
}

// probe asks the kernel to look for a neighbour, or whether it is still there,
// if that is due. weir's own frames do not pass the kernel, so nothing else
// makes it do either.
func (s *state) probe(k kernel, key neighKey, known fact) {
	every := 0
	switch known {
	case unknown, failed:
		every = askMissing
	case stale:
		every = askStale
	}
	last, asked := s.requests[key]
	if key == (neighKey{}) || every == 0 || asked && s.beats-last.beat < every {
		return
	}
	s.requests[key] = request{s.beats, k.Probe(key)}
}

// poll has the neighbour that a target's hop depends on watched. Not every
// route's source address is one that the gateway would answer: it may be on
// another interface or of the other family.
func (s *state) poll(k kernel, n neighbour, t *target) {
	source := t.found.source
	if t.found.gateway.IsValid() {
		var known bool
		if source, known = s.sources[n.neighKey]; !known {
			source, _ = k.Source(n.neighKey)
			s.sources[n.neighKey] = source
		}
	}
	if source.BitLen() == n.addr.BitLen() {
		s.watch.want(question{neighKey: n.neighKey, to: n.mac, from: t.hop.SrcMAC, source: source})
	}
}

// tick works in what has been heard from neighbours, and asks those whose turn
// it is. That a neighbour is gone is for the kernel to say, so that there is one
// opinion about it.
func (s *state) tick(k kernel, w wire) {
	w.Heard(s.watch.heard)
	s.watch.tick(w.Ask, func(key neighKey) {
		if n := s.neighbours[key]; n.fact == fresh || n.fact == stale {
			// The kernel refuses only what is gone by now.
			_ = k.Verify(n)
		}
	})
}

// hops returns a new map of all hops.
func (s *state) hops() map[netip.Addr]Hop {
	hops := make(map[netip.Addr]Hop, len(s.targets))
	for _, t := range s.targets {
		if t.solved {
			hops[t.addr] = t.hop
		}
	}
	return hops
}

func (s *state) logMoves(moved []*target) {
	if len(moved) > maxLogged {
		resolved := 0
		for _, t := range moved {
			if t.hop.State == Resolved {
				resolved++
			}
		}
		s.log.Info("next hops changed", "count", len(moved), "resolved", resolved, "not_resolved", len(moved)-resolved)
		return
	}
	for _, t := range moved {
		switch h := &t.hop; h.State {
		case Resolved:
			attrs := []any{"backend", h.Addr, "interface", h.Interface, "mac", h.DstMAC.String()}
			if h.VLAN != 0 {
				attrs = append(attrs, "vlan", h.VLAN)
			}
			if h.Gateway.IsValid() {
				attrs = append(attrs, "gateway", h.Gateway)
			}
			s.log.Info("next hop", attrs...)
		case Unreachable:
			s.log.Warn("no next hop", "backend", h.Addr, "reason", h.Reason)
		}
	}
}
