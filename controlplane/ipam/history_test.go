package ipam

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func crowd(n int) []Request {
	var all []Request
	for i := range n {
		r := Request{Service: fmt.Sprintf("service-%d", i), Families: []Family{IPv4, IPv6}, Ports: tcp(uint16(1 + i))}
		if i%5 == 0 {
			r.Share = fmt.Sprintf("share-%d", i/10)
		}
		all = append(all, r)
	}
	return all
}

// moves is how many addresses of services that are in both are others now.
func moves(before, after Result) (n, all int) {
	for service, old := range before.Addresses {
		fresh, there := after.Addresses[service]
		if !there {
			continue
		}
		for i := range old {
			all++
			if fresh[i] != old[i] {
				n++
			}
		}
	}
	return n, all
}

// A service that comes or goes moves next to no other, even if nobody remembers
// what was: with a pool half full, less than one in a hundred.
func TestServicesComeAndGoWithoutMemory(t *testing.T) {
	pools := []Pool{public("203.0.113.0/24", "2001:db8::/64")}
	rng := rand.New(rand.NewPCG(7, 7))
	all := crowd(256)
	on := make(map[int]bool)
	for len(on) < 128 {
		on[rng.IntN(len(all))] = true
	}
	asking := func() []Request {
		var out []Request
		for i, r := range all {
			if on[i] {
				out = append(out, r)
			}
		}
		return out
	}
	before, err := Allocate(pools, asking(), nil, noon())
	if err != nil {
		t.Fatal(err)
	}
	moved, total := 0, 0
	for range 150 {
		var in, out int // one goes, another comes
		for in = rng.IntN(len(all)); !on[in]; in = rng.IntN(len(all)) {
		}
		for out = rng.IntN(len(all)); on[out]; out = rng.IntN(len(all)) {
		}
		for _, i := range []int{in, out} {
			on[i] = !on[i]
			after, err := Allocate(pools, asking(), nil, noon())
			if err != nil {
				t.Fatal(err)
			}
			n, of := moves(before, after)
			moved, total = moved+n, total+of
			before = after
		}
	}
	t.Logf("of %d addresses that could have moved %d did", total, moved)
	if moved*100 > total {
		t.Errorf("of %d addresses that could have moved %d did", total, moved)
	}
}

// With a memory nothing moves at all, whatever happens to services, and to pools
// in so far as they keep what is in use.
func TestWhatIsInUseNeverMoves(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		all := crowd(60)
		pools := []Pool{public("203.0.113.0/25", "2001:db8::/64"), {Name: "more", AutoAssign: true, Priority: 9, Ranges: ranges("198.51.100.0/28", "2001:db8:5::/125")}}
		var before Result
		for step := range 60 {
			var asking []Request
			for _, r := range all {
				if rng.IntN(4) > 0 {
					asking = append(asking, r)
				}
			}
			switch rng.IntN(4) {
			case 0: // a pool grows
				extra := Range{addr("203.0.113.128"), addr("203.0.113.255")}
				if i := slices.Index(pools[0].Ranges, extra); i < 0 {
					pools[0].Ranges = append(pools[0].Ranges, extra)
				}
			case 1:
				pools[0].AvoidBuggy, pools[1].Priority = rng.IntN(2) == 0, rng.IntN(3)
			case 2:
				pools[0].Name = fmt.Sprintf("public-%d", step)
			}
			after, err := Allocate(shuffled(rng, pools), shuffled(rng, asking), shuffled(rng, before.Allocations), noon().Add(time.Duration(step)*time.Minute))
			if err != nil || len(after.Moved) > 0 {
				t.Fatalf("seed %d, step %d: %v, moved %+v", seed, step, err, after.Moved)
			}
			if n, _ := moves(before, after); n > 0 {
				t.Fatalf("seed %d, step %d: %d addresses moved", seed, step, n)
			}
			check(t, pools, asking, before.Allocations, after, err)
			before = after
		}
	}
}

// Nodes that have heard of each other have the same, whatever each had before.
func TestNodesAgree(t *testing.T) {
	heals := 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		pools := []Pool{public("203.0.113.0/27", "2001:db8::/124")}
		all := crowd(16)
		nodes := make([][]Allocation, 3)
		step := 0
		allocate := func(node int, asking []Request, existing []Allocation) {
			step++
			r, err := Allocate(pools, asking, Valid(pools, asking, existing), noon().Add(time.Duration(step)*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			check(t, pools, asking, existing, r, err)
			nodes[node] = r.Allocations
		}
		for range 6 { // apart, with files of their own
			node := rng.IntN(len(nodes))
			allocate(node, shuffled(rng, all)[:1+rng.IntN(len(all))], nodes[node])
		}
		merged := rng.IntN(2) == 0
		exchange := func(node int) { // hears one other
			theirs := nodes[rng.IntN(len(nodes))]
			if merged {
				allocate(node, all, Merge(nodes[node], theirs))
			} else {
				allocate(node, all, slices.Concat(nodes[node], theirs))
			}
		}
		equal := func() bool {
			return slices.Equal(nodes[0], nodes[1]) && slices.Equal(nodes[1], nodes[2]) && len(nodes[0]) == 32
		}
		if !equal() {
			heals++
		}
		for range 100 {
			exchange(rng.IntN(len(nodes)))
		}
		if !equal() {
			t.Fatalf("seed %d: %v\n%v\n%v", seed, nodes[0], nodes[1], nodes[2])
		}
	}
	if heals < 25 {
		t.Errorf("only %d clusters had something to agree on", heals)
	}
}
