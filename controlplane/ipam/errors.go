package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
)

// Lost is the error for an allocation that a service has and still wants, but
// that the pools, or another service, do not leave to it.
type Lost struct {
	Allocation
	By   string // the service that lists the address now; empty: the pool has no longer got it
	gone bool   // the whole pool
}

// Error says what is lost, and what to do about it.
func (e *Lost) Error() string {
	switch {
	case e.By != "":
		return fmt.Sprintf("service %s lists %s, which service %s has from pool %s; list another address, or give both one share key and ports of their own",
			e.By, e.Address, e.Service, e.Pool)
	case e.gone:
		return fmt.Sprintf("there is no pool %s any more, from which service %s has %s; put the pool back, or give %s another pool",
			e.Pool, e.Service, e.Address, e.Service)
	}
	return fmt.Sprintf("pool %s no longer has %s, which service %s has; give %s another pool, or put the address back",
		e.Pool, e.Address, e.Service, e.Service)
}

// Exhausted is the error for services that got no address of a family because the
// pools that they might get one from have none left, or never had any.
type Exhausted struct {
	Family   Family
	Pools    []string
	Services []string // without an address
	text     string   // how full each pool is, and with whose
	empty    bool     // no pool has the family at all
}

// Error says what is full, by whom, and what to do about it.
func (e *Exhausted) Error() string {
	who, pools := "service "+e.Services[0], "pool "+e.Pools[0]
	if len(e.Services) > 1 {
		who = "services " + some(e.Services)
	}
	if len(e.Pools) > 1 {
		pools = "any of the pools " + some(e.Pools)
	}
	if e.empty {
		return fmt.Sprintf("no %s address for %s in %s, as there are none there; add some, name another pool, or leave %s out of ip_families",
			e.Family, who, pools, strings.ToLower(e.Family.String()))
	}
	return fmt.Sprintf("no %s address is left for %s: %s; add addresses, name another pool, or take a service out", e.Family, who, e.text)
}

// lacks notes that a service got no address of a family.
func (a *allocator) lacks(w wanting, f Family) {
	var names []string
	for _, p := range w.offers {
		names = append(names, p.Name)
	}
	key := f.String() + "\x00" + strings.Join(names, "\x00")
	e := a.short[key]
	if e == nil {
		e = &Exhausted{Family: f, Pools: names, empty: true}
		var parts []string
		for _, p := range w.offers {
			if b := p.block(f); len(b.ranges) > 0 {
				e.empty = false
				parts = append(parts, fmt.Sprintf("pool %s has %s, all in use: %s", p.Name, addresses(b.usable), a.users(p, f)))
			}
		}
		e.text = some(parts)
		a.short[key] = e
		a.errs = append(a.errs, e)
	}
	e.Services = append(e.Services, w.request.Service)
}

// users says which services have how many addresses of a pool and family, those
// with the most first.
func (a *allocator) users(p *pool, f Family) string {
	count := make(map[string]int)
	for addr, holders := range a.holders {
		if FamilyOf(addr) == f && p.has(addr) {
			for _, r := range holders {
				count[r.Service]++
			}
		}
	}
	names := slices.Sorted(maps.Keys(count))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(count[b], count[a]) })
	var parts []string
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, count[name]))
	}
	return some(parts)
}

func addresses(n *big.Int) string {
	if n.IsInt64() && n.Int64() == 1 {
		return "1 address"
	}
	return n.String() + " addresses"
}

// mostNamed is how many things an error names at most.
const mostNamed = 8

func some(all []string) string {
	if len(all) > mostNamed+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:mostNamed], ", "), len(all)-mostNamed)
	}
	return strings.Join(all, ", ")
}

// Tolerate divides an error of Allocate: what a start may go on with, as those
// services have got other addresses where there were any, and the rest, which is
// nil if there is nothing else.
func Tolerate(err error) (lost []*Lost, rest error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var others []error
	for _, each := range all {
		if l, ok := each.(*Lost); ok {
			lost = append(lost, l)
		} else if each != nil {
			others = append(others, each)
		}
	}
	if len(others) == 0 {
		return lost, nil
	}
	return lost, errors.Join(others...)
}
