package ipam

import (
	"math/big"
	"net/netip"
	"slices"
)

// Usage is how full a pool is.
type Usage struct {
	Pool       string
	IPv4, IPv6 Count
	Held       []Held // by address
}

// Count is numbers of addresses of one family. Size is Used + Free, unless
// addresses that AvoidBuggy keeps from being given are in use all the same: they
// count as Used, but not in Size.
type Count struct {
	Size *big.Int // that there are to give
	Used *big.Int // that some service has, or lists
	Free *big.Int
}

// Held is an address in use.
type Held struct {
	Address  netip.Addr
	Services []string // by name
}

// usage says how full each pool is.
func (l *ledger) usage() []Usage {
	out := make([]Usage, 0, len(l.space.pools))
	for _, p := range l.space.pools {
		out = append(out, Usage{Pool: p.Name, IPv4: p.four.count(), IPv6: p.six.count()})
	}
	one := big.NewInt(1)
	for addr, holders := range l.holders {
		h := Held{Address: addr}
		for _, r := range holders {
			h.Services = append(h.Services, r.Service)
		}
		slices.Sort(h.Services)
		for i, p := range l.space.pools {
			if !p.has(addr) {
				continue
			}
			u := &out[i]
			u.Held = append(u.Held, h)
			c := &u.IPv6
			if addr.Is4() {
				c = &u.IPv4
			}
			c.Used.Add(c.Used, one)
		}
	}
	for i := range out {
		slices.SortFunc(out[i].Held, func(a, b Held) int { return a.Address.Compare(b.Address) })
	}
	return out
}

func (b *block) count() Count {
	c := Count{Size: new(big.Int).Set(b.usable), Used: new(big.Int), Free: big.NewInt(b.taken)}
	c.Free.Sub(c.Size, c.Free)
	return c
}
