package ipam

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// model gives addresses by the rules of the package's doc comment, by going
// through lists of all addresses. Its pools must be small and must not overlap.
type model struct {
	pools    []Pool
	requests []Request                // by name
	has      map[netip.Addr][]Request // who has it
	given    map[string]Allocation    // by service and family
}

func (m *model) key(service string, f Family) string { return fmt.Sprint(service, " ", f) }

// list is all addresses of a pool and family, ascending.
func list(p Pool, f Family) []netip.Addr {
	var all []netip.Addr
	for _, r := range p.Ranges {
		for a := r.From; a.IsValid() && !r.To.Less(a); a = a.Next() {
			if FamilyOf(a) == f {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

func bad(p Pool, a netip.Addr) bool {
	return p.AvoidBuggy && a.Is4() && (a.As4()[3] == 0 || a.As4()[3] == 255)
}

// offers is the pools that a service may get an address from.
func (m *model) offers(r Request) []Pool {
	var out []Pool
	for _, p := range m.pools {
		fits := p.AutoAssign
		for k, v := range p.Selector {
			if w, ok := r.Labels[k]; !ok || v != w {
				fits = false
			}
		}
		if r.Pool == p.Name || r.Pool == "" && fits {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Pool) int {
		rank := func(p Pool) int {
			if p.Priority == 0 {
				return 1 << 30
			}
			return p.Priority
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(min(len(b.Selector), 1), min(len(a.Selector), 1)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func (m *model) free(a netip.Addr, r Request) bool {
	for _, o := range m.has[a] {
		if o.Share == "" || o.Share != r.Share {
			return false
		}
		for _, p := range o.Ports {
			for _, q := range r.Ports {
				for port := int(p.Lo); port <= int(p.Hi); port++ {
					if p.Proto == q.Proto && int(q.Lo) <= port && port <= int(q.Hi) {
						return false
					}
				}
			}
		}
	}
	return true
}

type found struct {
	pool          string
	addr          netip.Addr
	joined, prime bool
}

// in looks for an address in one pool.
func (m *model) in(p Pool, r Request, f Family) *found {
	all := list(p, f)
	if r.Share != "" {
		for _, a := range all {
			for _, o := range m.has[a] {
				if o.Share == r.Share && m.free(a, r) {
					return &found{p.Name, a, true, false}
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	what := "service\x00" + r.Service
	if r.Share != "" {
		what = "share\x00" + r.Share
	}
	h := sha256.Sum256([]byte(p.Name + "\x00" + what))
	at := int(new(big.Int).Mod(new(big.Int).SetBytes(h[:16]), big.NewInt(int64(len(all)))).Int64())
	for i := range all {
		if a := all[(at+i)%len(all)]; len(m.has[a]) == 0 && !bad(p, a) {
			return &found{p.Name, a, false, i == 0}
		}
	}
	return nil
}

// pick looks for addresses of all families in one pool, or else of each.
func (m *model) pick(r Request, families []Family, home string) []found {
	var best []found
	score := -1
	for _, p := range m.offers(r) {
		var all []found
		n := 0
		for _, f := range families {
			if x := m.in(p, r, f); x != nil {
				all = append(all, *x)
				if x.joined {
					n += 10
				}
			}
		}
		if p.Name == home {
			n++
		}
		if len(all) == len(families) && n > score {
			best, score = all, n
		}
	}
	if best == nil && len(families) > 1 {
		for _, f := range families {
			best = append(best, m.pick(r, []Family{f}, home)...)
		}
	}
	return best
}

func (m *model) give(r Request, pool string, a netip.Addr, since time.Time) {
	m.has[a] = append(m.has[a], r)
	m.given[m.key(r.Service, FamilyOf(a))] = Allocation{r.Service, pool, a, since}
}

func naive(pools []Pool, requests []Request, existing []Allocation, now time.Time) []Allocation {
	m := &model{pools: pools, requests: slices.Clone(requests), has: make(map[netip.Addr][]Request), given: make(map[string]Allocation)}
	slices.SortFunc(m.requests, func(a, b Request) int { return cmp.Compare(a.Service, b.Service) })
	for _, r := range m.requests {
		for _, a := range r.Addresses {
			m.has[a] = append(m.has[a], r)
		}
	}
	old := slices.Clone(existing)
	slices.SortFunc(old, func(a, b Allocation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Service, b.Service), a.Address.Compare(b.Address), cmp.Compare(a.Pool, b.Pool))
	})
	for _, e := range old {
		for _, r := range m.requests {
			_, twice := m.given[m.key(r.Service, FamilyOf(e.Address))]
			if r.Service != e.Service || len(r.Addresses) > 0 || !slices.Contains(r.Families, FamilyOf(e.Address)) || twice || !m.free(e.Address, r) {
				continue
			}
			for _, p := range m.offers(r) {
				if slices.Contains(list(p, FamilyOf(e.Address)), e.Address) {
					m.give(r, p.Name, e.Address, e.Since)
				}
			}
		}
	}
	for _, onlyPrime := range []bool{true, false} {
		for _, r := range m.requests {
			var lacking []Family
			home := ""
			for _, f := range []Family{4, 6} {
				if e, ok := m.given[m.key(r.Service, f)]; ok {
					home = e.Pool
				} else if len(r.Addresses) == 0 && slices.Contains(r.Families, f) {
					lacking = append(lacking, f)
				}
			}
			got := m.pick(r, lacking, home)
			if onlyPrime && (len(got) < len(lacking) || slices.ContainsFunc(got, func(x found) bool { return !x.joined && !x.prime })) {
				continue
			}
			for _, x := range got {
				m.give(r, x.pool, x.addr, now)
			}
		}
	}
	var out []Allocation
	for _, e := range m.given {
		out = append(out, e)
	}
	slices.SortFunc(out, byServiceAndFamily)
	return out
}

// world is random pools, requests and allocations, few enough for collisions.
func world(rng *rand.Rand) ([]Pool, []Request, []Allocation) {
	var pools []Pool
	for i := range 1 + rng.IntN(4) {
		p := Pool{
			Name: string(rune('a' + i)), AutoAssign: rng.IntN(4) > 0, AvoidBuggy: rng.IntN(3) == 0, Priority: rng.IntN(3),
		}
		if rng.IntN(3) == 0 {
			p.Selector = map[string]string{"tier": string(rune('0' + rng.IntN(2)))}
		}
		for range 1 + rng.IntN(3) { // they may overlap within the pool
			from := byte(rng.IntN(12))
			var a, b netip.Addr
			switch rng.IntN(6) {
			case 0, 1:
				a, b = netip.AddrFrom4([4]byte{10, byte(i), 0, 250 + from%6}), netip.AddrFrom4([4]byte{10, byte(i), 1, from % 3})
			case 2, 3:
				a, b = netip.AddrFrom4([4]byte{10, byte(i), 0, 100 + from}), netip.AddrFrom4([4]byte{10, byte(i), 0, 100 + from + byte(rng.IntN(4))})
			default:
				a, b = netip.AddrFrom16([16]byte{0x20, byte(i), 15: from}), netip.AddrFrom16([16]byte{0x20, byte(i), 15: from + byte(rng.IntN(6))})
			}
			p.Ranges = append(p.Ranges, Range{a, b})
		}
		pools = append(pools, p)
	}
	anyAddress := func() netip.Addr {
		p := pools[rng.IntN(len(pools))]
		all := slices.Concat(list(p, IPv4), list(p, IPv6))
		if rng.IntN(8) == 0 {
			return netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(3))})
		}
		return all[rng.IntN(len(all))]
	}
	var requests []Request
	var existing []Allocation
	for i := range rng.IntN(14) {
		r := Request{Service: fmt.Sprintf("s%d", i), Families: [][]Family{{4}, {6}, {4, 6}, {6, 4}}[rng.IntN(4)], Labels: map[string]string{"tier": string(rune('0' + rng.IntN(3)))}}
		if rng.IntN(3) == 0 {
			r.Share = string(rune('k' + rng.IntN(2)))
		}
		if rng.IntN(2) == 0 {
			r.Pool = pools[rng.IntN(len(pools))].Name
		}
		lo := uint16(1 + rng.IntN(12))
		r.Ports = []Port{{[]uint8{6, 17}[rng.IntN(2)], lo, lo + uint16(rng.IntN(3))}}
		if rng.IntN(6) == 0 {
			r.Addresses = []netip.Addr{anyAddress()}
		}
		requests = append(requests, r)
	}
	for range rng.IntN(16) {
		existing = append(existing, Allocation{
			Service: fmt.Sprintf("s%d", rng.IntN(16)), Pool: pools[rng.IntN(len(pools))].Name, Address: anyAddress(),
			Since: noon().Add(-time.Duration(1+rng.IntN(6)) * time.Hour),
		})
	}
	return pools, requests, existing
}

func shuffled[T any](rng *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	rng.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	return all
}

// What Allocate does is what the naive model does, whatever the order of the file
// is; and it stays so.
func TestAgainstTheModel(t *testing.T) {
	given, kept, failed := 0, 0, 0
	for seed := range uint64(1500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		pools, requests, existing := world(rng)
		got, err := Allocate(shuffled(rng, pools), shuffled(rng, requests), shuffled(rng, existing), noon())
		want := naive(pools, requests, existing, noon())
		if !slices.Equal(got.Allocations, want) {
			t.Fatalf("seed %d: got\n%v\nwant\n%v\nof %+v\n%+v\n%+v", seed, got.Allocations, want, pools, requests, existing)
		}
		check(t, pools, requests, existing, got, err)
		for _, a := range want {
			if a.Since.Equal(noon()) {
				given++
			} else {
				kept++
			}
		}
		if err != nil {
			failed++
		}
		again, err2 := Allocate(pools, requests, existing, noon())
		if fmt.Sprint(again, err2) != fmt.Sprint(got, err) {
			t.Fatalf("seed %d: in another order it is\n%v %v\nnot\n%v %v", seed, again, err2, got, err)
		}
	}
	if given < 4000 || kept < 800 || failed < 100 || failed > 1400 {
		t.Errorf("%d given, %d kept, %d failed: these worlds test little", given, kept, failed)
	}
}

// check holds a result against what must be true of any, by itself.
func check(t *testing.T, pools []Pool, requests []Request, existing []Allocation, r Result, err error) {
	t.Helper()
	byName := make(map[string]Request)
	for _, q := range requests {
		byName[q.Service] = q
	}
	poolOf := func(name string) Pool {
		i := slices.IndexFunc(pools, func(p Pool) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("no pool %q", name)
		}
		return pools[i]
	}
	has := make(map[string]netip.Addr)
	holders := make(map[netip.Addr][]string)
	for i, a := range r.Allocations {
		q, p := byName[a.Service], poolOf(a.Pool)
		inside := slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.From.Compare(a.Address) <= 0 && a.Address.Compare(r.To) <= 0 })
		if !inside || !slices.Contains(q.Families, FamilyOf(a.Address)) || len(q.Addresses) > 0 || q.Pool != "" && q.Pool != a.Pool || q.Pool == "" && !p.AutoAssign {
			t.Fatalf("%v for %+v from %+v", a, q, p)
		}
		if i > 0 && byServiceAndFamily(r.Allocations[i-1], a) >= 0 {
			t.Fatalf("%v is not in order", r.Allocations)
		}
		old := slices.ContainsFunc(existing, func(e Allocation) bool { return e.Service == a.Service && e.Address == a.Address })
		if bad(p, a.Address) && !old && q.Share == "" {
			t.Fatalf("%v was to be avoided", a)
		}
		has[fmt.Sprint(a.Service, FamilyOf(a.Address))] = a.Address
		holders[a.Address] = append(holders[a.Address], a.Service)
	}
	for _, q := range requests {
		for _, a := range slices.Compact(slices.SortedFunc(slices.Values(q.Addresses), netip.Addr.Compare)) {
			holders[a] = append(holders[a], q.Service)
		}
		for _, f := range q.Families {
			if a, ok := has[fmt.Sprint(q.Service, f)]; len(q.Addresses) == 0 && ok != slices.Contains(r.Addresses[q.Service], a) {
				t.Fatalf("%s has %v, but for %s %v", q.Service, r.Addresses[q.Service], f, a)
			} else if len(q.Addresses) == 0 && !ok && err == nil {
				t.Fatalf("%s has no %s address, and no error says so", q.Service, f)
			}
		}
	}
	for a, names := range holders {
		for i, one := range names {
			for _, other := range names[:i] {
				x, y := byName[one], byName[other]
				listed := len(x.Addresses) > 0 && len(y.Addresses) > 0
				if _, collide := collision(&x, &y); collide && !listed || !listed && (x.Share == "" || x.Share != y.Share) {
					t.Fatalf("%s and %s have %s", one, other, a)
				}
			}
		}
	}
	for _, m := range r.Moved {
		if slices.Contains(r.Allocations, m.From) || has[fmt.Sprint(m.Service, FamilyOf(m.From.Address))] != m.To && m.To.IsValid() {
			t.Fatalf("moved %+v in %v", m, r.Allocations)
		}
	}
	for _, u := range r.Usage {
		for i, c := range []Count{u.IPv4, u.IPv6} {
			used := int64(0)
			for a := range holders {
				if p := poolOf(u.Pool); FamilyOf(a) == []Family{4, 6}[i] && slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.has(a) }) {
					used++
				}
			}
			if c.Free.Sign() < 0 || c.Used.Int64() != used || new(big.Int).Add(c.Used, c.Free).Cmp(c.Size) < 0 {
				t.Fatalf("usage %+v", u)
			}
		}
	}
}
