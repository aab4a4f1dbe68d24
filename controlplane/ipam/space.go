package ipam

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strings"
)

// space is all pools, prepared for one allocation.
type space struct {
	pools []*pool // by name
	auto  []*pool // those with AutoAssign, in the order in which they are asked
}

// pool is a Pool by families.
type pool struct {
	*Pool
	four, six block
}

// block is the addresses of a pool of one family. Its size may be 2^128, so
// nothing is done for each address but those in use.
type block struct {
	ranges []Range  // ascending, with a gap between any two
	size   *big.Int // all addresses
	usable *big.Int // without those to avoid
	taken  int64    // of the usable ones
}

func (p *pool) block(f Family) *block {
	if f == IPv4 {
		return &p.four
	}
	return &p.six
}

func (p *pool) has(a netip.Addr) bool {
	ranges := p.block(FamilyOf(a)).ranges
	i, found := slices.BinarySearchFunc(ranges, a, func(r Range, a netip.Addr) int { return r.From.Compare(a) })
	return found || i > 0 && ranges[i-1].has(a)
}

// avoids says that the pool has the address but gives it to nobody.
func (p *pool) avoids(a netip.Addr) bool {
	if !p.AvoidBuggy || !a.Is4() {
		return false
	}
	last := a.As4()[3]
	return last == 0 || last == 255
}

// newSpace prepares pools, and says what is wrong with them. What is wrong is left out.
func newSpace(pools []Pool) (*space, []error) {
	s := &space{}
	var errs []error
	for _, each := range slices.SortedStableFunc(slices.Values(pools), func(a, b Pool) int { return cmp.Compare(a.Name, b.Name) }) {
		p := &pool{Pool: &each}
		if n := len(s.pools); n > 0 && s.pools[n-1].Name == p.Name {
			errs = append(errs, fmt.Errorf("two pools are called %q; give one of them another name", p.Name))
			continue
		}
		var four, six []Range
		for _, r := range p.Ranges {
			switch {
			case !plain(r.From) || !plain(r.To) || r.From.Is4() != r.To.Is4() || r.To.Less(r.From):
				errs = append(errs, fmt.Errorf("pool %s: %s is no range; want the first and the last of some addresses of one family", p.Name, r))
			case r.From.Is4():
				four = append(four, r)
			default:
				six = append(six, r)
			}
		}
		p.four, p.six = newBlock(four), newBlock(six)
		if p.AvoidBuggy {
			for _, r := range p.four.ranges {
				p.four.usable.Sub(p.four.usable, big.NewInt(buggy(r)))
			}
		}
		s.pools = append(s.pools, p)
	}
	errs = append(errs, s.overlaps()...)
	for _, p := range s.pools {
		if p.AutoAssign {
			s.auto = append(s.auto, p)
		}
	}
	slices.SortStableFunc(s.auto, func(a, b *pool) int {
		last := func(p *pool) int { return truth(p.Priority == 0) }
		general := func(p *pool) int { return truth(len(p.Selector) == 0) }
		return cmp.Or(cmp.Compare(last(a), last(b)), cmp.Compare(a.Priority, b.Priority), cmp.Compare(general(a), general(b)))
	})
	return s, errs
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// plain says that an address is one that a packet can have.
func plain(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

func newBlock(ranges []Range) block {
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Or(a.From.Compare(b.From), a.To.Compare(b.To)) })
	b := block{size: new(big.Int), usable: new(big.Int)}
	for _, r := range ranges {
		if n := len(b.ranges); n > 0 {
			last := &b.ranges[n-1]
			if next := last.To.Next(); !next.IsValid() || !next.Less(r.From) {
				if last.To.Less(r.To) {
					last.To = r.To
				}
				continue
			}
		}
		b.ranges = append(b.ranges, r)
	}
	for _, r := range b.ranges {
		b.size.Add(b.size, length(r))
	}
	b.usable.Set(b.size)
	return b
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// length is the number of addresses of a range.
func length(r Range) *big.Int {
	n := number(r.To)
	n.Sub(n, number(r.From))
	return n.Add(n, big.NewInt(1))
}

// buggy is how many addresses of an IPv4 range end in .0 or .255.
func buggy(r Range) int64 {
	from, to := number(r.From).Int64(), number(r.To).Int64()
	zeros := to/256 + 1 - (from+255)/256
	ends := (to+1)/256 - from/256
	return zeros + ends
}

// overlaps says which pools have an address in common, one error for two pools.
// It sees each overlap of two pools, but of three that have the same address
// maybe only two overlaps.
func (s *space) overlaps() []error {
	type owned struct {
		Range
		pool *pool
	}
	var all []owned
	for _, p := range s.pools {
		for _, r := range slices.Concat(p.four.ranges, p.six.ranges) {
			all = append(all, owned{r, p})
		}
	}
	slices.SortStableFunc(all, func(a, b owned) int { return a.From.Compare(b.From) })
	var errs []error
	seen := make(map[[2]string]bool)
	for i, furthest := 1, 0; i < len(all); i++ {
		a, b := all[furthest], all[i]
		if a.To.Less(b.To) {
			furthest = i
		}
		names := [2]string{a.pool.Name, b.pool.Name}
		slices.Sort(names[:])
		if !a.has(b.From) || a.pool == b.pool || seen[names] {
			continue
		}
		seen[names] = true
		common := Range{b.From, b.To}
		if a.To.Less(b.To) {
			common.To = a.To
		}
		errs = append(errs, fmt.Errorf("pools %s and %s overlap: both have %s; take it out of one of them", names[0], names[1], common))
	}
	return errs
}

func (s *space) named(name string) *pool {
	i, found := slices.BinarySearchFunc(s.pools, name, func(p *pool, name string) int { return cmp.Compare(p.Name, name) })
	if !found {
		return nil
	}
	return s.pools[i]
}

// offers returns the pools that a service might get an address from, in order.
// Without any there is an error, that says why.
func (s *space) offers(r *Request) ([]*pool, error) {
	if r.Pool != "" {
		if p := s.named(r.Pool); p != nil {
			return []*pool{p}, nil
		}
		if len(s.pools) == 0 {
			return nil, fmt.Errorf("service %s asks for pool %s, but there are no pools; add it, or list addresses for the service", r.Service, r.Pool)
		}
		var names []string
		for _, p := range s.pools {
			names = append(names, p.Name)
		}
		return nil, fmt.Errorf("service %s asks for pool %s, which there is not; there are %s", r.Service, r.Pool, some(names))
	}
	var out []*pool
	for _, p := range s.auto {
		if p.matches(r.Labels) {
			out = append(out, p)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	var why []string
	for _, p := range s.pools {
		if p.AutoAssign {
			why = append(why, fmt.Sprintf("%s wants the labels %s", p.Name, labelText(p.Selector)))
		} else {
			why = append(why, p.Name+" has auto_assign off")
		}
	}
	if len(why) == 0 {
		return nil, fmt.Errorf("service %s has no addresses, and there are no pools; list addresses, or add a pool", r.Service)
	}
	return nil, fmt.Errorf("no pool gives service %s an address by itself: %s; name a pool, or change labels or pools", r.Service, some(why))
}

// matches says whether a service with these labels may get an address of the
// pool by itself.
func (p *pool) matches(labels map[string]string) bool {
	for name, want := range p.Selector {
		if got, found := labels[name]; !found || got != want {
			return false
		}
	}
	return true
}

func labelText(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, name+"="+labels[name])
	}
	return strings.Join(all, ", ")
}

// preferred returns the address that a service, or a share key, would best have
// of a block that has any, and the number of the range it is in. See the package's
// doc comment: this is for ever.
func (p *pool) preferred(b *block, r *Request) (netip.Addr, int) {
	kind, name := "service", r.Service
	if r.Share != "" {
		kind, name = "share", r.Share
	}
	sum := sha256.Sum256([]byte(p.Name + "\x00" + kind + "\x00" + name))
	at := new(big.Int).SetBytes(sum[:16])
	at.Mod(at, b.size)
	for i, r := range b.ranges {
		n := length(r)
		if at.Cmp(n) >= 0 {
			at.Sub(at, n)
			continue
		}
		raw := make([]byte, r.From.BitLen()/8)
		at.Add(at, number(r.From)).FillBytes(raw)
		a, _ := netip.AddrFromSlice(raw)
		return a, i
	}
	panic("the position is below the sum of all lengths")
}
