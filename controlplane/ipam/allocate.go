package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// allocator is one run of Allocate.
type allocator struct {
	*ledger
	requests []*Request          // by service
	byName   map[string]*Request // the same
	kept     []Allocation        // what has been given, old and new
	moved    []Move
	errs     []error
	short    map[string]*Exhausted // by what is exhausted
}

// Allocate gives every service the addresses that it asks for. existing is what
// services have; there may be several for one service and family, of different
// nodes, and the oldest that can be kept is. now is the Since of what is new.
//
// The error joins one for each problem, and each says what to do about it: a
// *Lost for an allocation that its pool has no longer, or that another service
// lists; an *Exhausted for pools that are full; others for pools that overlap, a
// pool that there is not, two services that list one address and have a port in
// common, and whatever else makes no sense.
//
// The result is complete but for what the error is about, and a service with a
// *Lost has got another address if there is one. So a reload is refused on any
// error, and nothing moves. A start has nothing to stay with: it goes on with the
// result, and Tolerate tells what is then to be warned of.
func Allocate(pools []Pool, requests []Request, existing []Allocation, now time.Time) (Result, error) {
	s, errs := newSpace(pools)
	a := &allocator{ledger: newLedger(s), byName: make(map[string]*Request), short: make(map[string]*Exhausted), errs: errs}
	a.take(requests)
	a.takeListed()
	a.keep(existing)
	a.give(now.UTC().Round(0))
	return a.result(), errors.Join(a.errs...)
}

// Valid returns those allocations that Allocate would keep, if no two services
// had the same address. What another node has is to be asked this before it is
// merged with one's own: that node's configuration may be another.
func Valid(pools []Pool, requests []Request, all []Allocation) []Allocation {
	s, _ := newSpace(pools)
	a := &allocator{ledger: newLedger(s), byName: make(map[string]*Request)}
	a.take(requests)
	var out []Allocation
	for _, e := range all {
		if r := a.asks(e); r != nil {
			if _, err := s.source(r, e); err == nil {
				out = append(out, e)
			}
		}
	}
	return out
}

func (a *allocator) take(requests []Request) {
	for i := range requests {
		a.requests = append(a.requests, &requests[i])
	}
	slices.SortStableFunc(a.requests, func(a, b *Request) int { return cmp.Compare(a.Service, b.Service) })
	a.requests = slices.CompactFunc(a.requests, func(x, y *Request) bool {
		if x.Service == y.Service {
			a.errs = append(a.errs, fmt.Errorf("two services are called %q; give one of them another name", x.Service))
		}
		return x.Service == y.Service
	})
	for _, r := range a.requests {
		a.byName[r.Service] = r
	}
}

// takeListed notes the addresses that services list themselves.
func (a *allocator) takeListed() {
	for _, r := range a.requests {
		for i, addr := range r.Addresses {
			if slices.Contains(r.Addresses[:i], addr) {
				continue
			}
			if !plain(addr) {
				a.errs = append(a.errs, fmt.Errorf("service %s lists %s, which no packet can have as its destination; list another address", r.Service, addr))
				continue
			}
			for _, other := range a.holders[addr] {
				if port, collide := collision(other, r); collide {
					a.errs = append(a.errs, fmt.Errorf("services %s and %s both list %s and have %s; give one of them another address or port",
						other.Service, r.Service, addr, port))
				}
			}
			a.hold(addr, r)
		}
	}
}

// asks returns the request that an allocation is for; nil if there is none.
func (a *allocator) asks(e Allocation) *Request {
	r := a.byName[e.Service]
	if r == nil || r.explicit() || !plain(e.Address) || !slices.Contains(r.Families, FamilyOf(e.Address)) {
		return nil
	}
	return r
}

// source returns the pool that an allocation is from now, if the service still
// asks for it. The error is *Lost if it does, but no pool has the address.
func (s *space) source(r *Request, e Allocation) (*pool, error) {
	gives := func(p *pool) bool {
		return p.has(e.Address) && (p.Name == r.Pool || r.Pool == "" && p.AutoAssign && p.matches(r.Labels))
	}
	was := s.named(e.Pool)
	if was != nil && gives(was) {
		return was, nil
	}
	if i := slices.IndexFunc(s.pools, gives); i >= 0 {
		return s.pools[i], nil
	}
	switch {
	case r.Pool != "" && r.Pool != e.Pool:
		return nil, fmt.Errorf("the service asks for pool %s now", r.Pool)
	case was == nil || !was.has(e.Address):
		return nil, &Lost{Allocation: e, gone: was == nil}
	case !was.AutoAssign:
		return nil, fmt.Errorf("pool %s has auto_assign off now", e.Pool)
	}
	return nil, fmt.Errorf("pool %s is not for services with these labels any more", e.Pool)
}

// keep goes through what services have, those with the better claim first. A
// service that cannot keep its oldest may have another: what it got on another
// node, while that address was no longer free there.
func (a *allocator) keep(existing []Allocation) {
	type place struct {
		service string
		family  Family
	}
	existing = slices.Clone(existing)
	for i := range existing {
		existing[i].Since = existing[i].Since.UTC().Round(0)
	}
	slices.SortFunc(existing, byAge)
	has := make(map[place]bool)
	var lost []Allocation // the oldest of each place
	why := make(map[place]error)
	for _, e := range existing {
		r, at := a.asks(e), place{e.Service, FamilyOf(e.Address)}
		if r == nil || has[at] {
			continue
		}
		p, err := a.fate(r, e)
		if err == nil {
			e.Pool = p.Name
			a.kept = append(a.kept, e)
			a.hold(e.Address, r)
			has[at] = true
		} else if why[at] == nil {
			lost, why[at] = append(lost, e), err
		}
	}
	slices.SortFunc(lost, byServiceAndFamily)
	for _, e := range lost {
		at := place{e.Service, FamilyOf(e.Address)}
		if has[at] {
			continue
		}
		err := why[at]
		if l, ok := err.(*Lost); ok {
			a.errs = append(a.errs, l)
		}
		a.moved = append(a.moved, Move{Service: e.Service, From: e, Reason: err.Error()})
	}
}

// fate returns the pool that a service can keep an allocation from. The error is
// *Lost unless the service, or another with a better claim, wants it so.
func (a *allocator) fate(r *Request, e Allocation) (*pool, error) {
	p, err := a.space.source(r, e)
	if err != nil {
		return nil, err
	}
	switch rival := a.rival(e.Address, r); {
	case rival == nil:
		return p, nil
	case rival.explicit():
		return nil, &Lost{Allocation: e, By: rival.Service}
	default:
		return nil, fmt.Errorf("service %s has it, too, and for longer", rival.Service)
	}
}

// wanting is a service that lacks addresses.
type wanting struct {
	request  *Request
	offers   []*pool
	families []Family
	has      *pool // that its other address is from
}

// give finds addresses for those who have none. Nobody is displaced from the
// address that it prefers by somebody who prefers another one.
func (a *allocator) give(now time.Time) {
	var second []wanting
	for _, w := range a.wanting() {
		grants := a.choose(w.offers, w.request, w.families, w.has)
		if len(grants) < len(w.families) || slices.ContainsFunc(grants, func(g grant) bool { return !g.joined && !g.best }) {
			second = append(second, w)
			continue
		}
		a.grant(w.request, grants, now)
	}
	for _, w := range second {
		grants := a.choose(w.offers, w.request, w.families, w.has)
		a.grant(w.request, grants, now)
		for _, f := range w.families {
			if !slices.ContainsFunc(grants, func(g grant) bool { return FamilyOf(g.address) == f }) {
				a.lacks(w, f)
			}
		}
	}
}

// wanting returns the services that lack addresses, by name.
func (a *allocator) wanting() []wanting {
	has := make(map[string][]Allocation)
	for _, e := range a.kept {
		has[e.Service] = append(has[e.Service], e)
	}
	var out []wanting
	for _, r := range a.requests {
		if r.explicit() {
			continue
		}
		w := wanting{request: r}
		for _, f := range []Family{IPv4, IPv6} {
			i := slices.IndexFunc(has[r.Service], func(e Allocation) bool { return FamilyOf(e.Address) == f })
			switch {
			case i >= 0:
				w.has = a.space.named(has[r.Service][i].Pool)
			case slices.Contains(r.Families, f):
				w.families = append(w.families, f)
			}
		}
		if len(w.families) == 0 {
			continue
		}
		var err error
		if w.offers, err = a.space.offers(r); err != nil {
			a.errs = append(a.errs, err)
			continue
		}
		out = append(out, w)
	}
	return out
}

func (a *allocator) grant(r *Request, grants []grant, now time.Time) {
	for _, g := range grants {
		a.hold(g.address, r)
		a.kept = append(a.kept, Allocation{Service: r.Service, Pool: g.pool.Name, Address: g.address, Since: now})
	}
}

func (a *allocator) result() Result {
	r := Result{Allocations: a.kept, Addresses: make(map[string][]netip.Addr), Usage: a.usage(), Moved: a.moved}
	slices.SortFunc(r.Allocations, byServiceAndFamily)
	for _, req := range a.requests {
		if req.explicit() {
			r.Addresses[req.Service] = slices.Clone(req.Addresses)
		}
	}
	for _, e := range r.Allocations {
		r.Addresses[e.Service] = append(r.Addresses[e.Service], e.Address)
	}
	slices.SortFunc(r.Moved, func(a, b Move) int { return byServiceAndFamily(a.From, b.From) })
	for i := range r.Moved {
		m := &r.Moved[i]
		for _, addr := range r.Addresses[m.Service] {
			if FamilyOf(addr) == FamilyOf(m.From.Address) {
				m.To = addr
			}
		}
	}
	return r
}
