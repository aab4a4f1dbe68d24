package ipam

import (
	"cmp"
	"net/netip"
	"slices"
)

// ledger is who has which address, in the course of one allocation.
type ledger struct {
	space   *space
	holders map[netip.Addr][]*Request
	shared  map[string][]netip.Addr // that some service with this share key has, ascending
}

func newLedger(s *space) *ledger {
	return &ledger{space: s, holders: make(map[netip.Addr][]*Request), shared: make(map[string][]netip.Addr)}
}

// hold notes that a service has an address, whoever else has it.
func (l *ledger) hold(a netip.Addr, r *Request) {
	if len(l.holders[a]) == 0 {
		for _, p := range l.space.pools { // one, but for overlaps
			if p.has(a) && !p.avoids(a) {
				p.block(FamilyOf(a)).taken++
			}
		}
	}
	l.holders[a] = append(l.holders[a], r)
	if r.Share == "" {
		return
	}
	of := l.shared[r.Share]
	if i, found := slices.BinarySearchFunc(of, a, netip.Addr.Compare); !found {
		l.shared[r.Share] = slices.Insert(of, i, a)
	}
}

// rival returns a service that has the address and with which r cannot share it;
// nil if there is none. One that lists the address goes before others.
func (l *ledger) rival(a netip.Addr, r *Request) *Request {
	var found *Request
	for _, other := range l.holders[a] {
		if other == r || mayShare(other, r) {
			continue
		}
		if other.explicit() {
			return other
		}
		if found == nil {
			found = other
		}
	}
	return found
}

// mayShare says whether two services may have one address.
func mayShare(a, b *Request) bool {
	if _, collide := collision(a, b); collide {
		return false
	}
	return a.explicit() && b.explicit() || a.Share != "" && a.Share == b.Share
}

// collision returns a port that two services have in common.
func collision(a, b *Request) (Port, bool) {
	for _, p := range a.Ports {
		for _, q := range b.Ports {
			if lo, hi := max(p.Lo, q.Lo), min(p.Hi, q.Hi); p.Proto == q.Proto && lo <= hi {
				return Port{p.Proto, lo, hi}, true
			}
		}
	}
	return Port{}, false
}

// grant is an address that a service might get.
type grant struct {
	pool    *pool
	address netip.Addr
	joined  bool // others with the same share key have it
	best    bool // it is the preferred one
}

// fit returns an address for each family from one pool, or nil if the pool does
// not have them all.
func (l *ledger) fit(p *pool, r *Request, families []Family) []grant {
	var out []grant
	for _, f := range families {
		g, ok := l.join(p, r, f)
		if !ok {
			g, ok = l.fresh(p, r, f)
		}
		if !ok {
			return nil
		}
		out = append(out, g)
	}
	return out
}

// join looks for an address that others with the same share key have.
func (l *ledger) join(p *pool, r *Request, f Family) (grant, bool) {
	if r.Share == "" {
		return grant{}, false
	}
	for _, a := range l.shared[r.Share] {
		if FamilyOf(a) == f && p.has(a) && l.rival(a, r) == nil {
			return grant{pool: p, address: a, joined: true}, true
		}
	}
	return grant{}, false
}

// fresh looks for an address that nobody has: the preferred one, or the next.
func (l *ledger) fresh(p *pool, r *Request, f Family) (grant, bool) {
	b := p.block(f)
	if b.usable.IsInt64() && b.usable.Int64() <= b.taken {
		return grant{}, false
	}
	first, i := p.preferred(b, r)
	// One is free, so this ends.
	for a := first; ; {
		if len(l.holders[a]) == 0 && !p.avoids(a) {
			return grant{pool: p, address: a, best: a == first}, true
		}
		if a != b.ranges[i].To {
			a = a.Next()
			continue
		}
		i = (i + 1) % len(b.ranges)
		a = b.ranges[i].From
	}
}

// choose returns an address for each family, from one of the pools if any has
// them all; those that no pool has are missing. Of several pools it is the first,
// but for one in which the service can join others, or has an address already.
func (l *ledger) choose(pools []*pool, r *Request, families []Family, has *pool) []grant {
	var best []grant
	most := -1
	for _, p := range pools {
		grants := l.fit(p, r, families)
		if grants == nil {
			continue
		}
		rank := truth(p == has)
		for _, g := range grants {
			rank += 2 * truth(g.joined)
		}
		if rank > most {
			best, most = grants, rank
		}
	}
	if best != nil || len(families) == 1 {
		return best
	}
	for _, f := range families {
		best = append(best, l.choose(pools, r, []Family{f}, has)...)
	}
	return best
}

// byAge orders allocations by who has the better claim to an address.
func byAge(a, b Allocation) int {
	return cmp.Or(a.Since.Compare(b.Since), byServiceAndFamily(a, b), a.Address.Compare(b.Address), cmp.Compare(a.Pool, b.Pool))
}
