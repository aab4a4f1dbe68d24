package ipam

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func randomAllocations(rng *rand.Rand) []Allocation {
	zones := []*time.Location{time.UTC, time.FixedZone("x", 3600), time.Local}
	var all []Allocation
	for range rng.IntN(10) {
		since := noon().Add(time.Duration(rng.IntN(4)) * time.Minute)
		if rng.IntN(2) == 0 {
			since = since.In(zones[rng.IntN(len(zones))])
		}
		a := has(string(rune('a'+rng.IntN(4))), []string{"203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8::2"}[rng.IntN(4)], 0)
		a.Since, a.Pool = since, string(rune('p'+rng.IntN(2)))
		all = append(all, a)
	}
	return all
}

func TestMergeIsASemilattice(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 4))
		a, b, c := randomAllocations(rng), randomAllocations(rng), randomAllocations(rng)
		ab := Merge(a, b)
		if !slices.Equal(ab, Merge(b, a)) {
			t.Fatalf("seed %d: a+b is %v, b+a is %v", seed, ab, Merge(b, a))
		}
		if l, r := Merge(ab, c), Merge(a, Merge(b, c)); !slices.Equal(l, r) {
			t.Fatalf("seed %d: (a+b)+c is %v, a+(b+c) is %v", seed, l, r)
		}
		if !slices.Equal(ab, Merge(ab, a)) || !slices.Equal(ab, Merge(ab, ab)) || !slices.Equal(ab, Merge(ab, nil)) {
			t.Fatalf("seed %d: %v is another when merged again", seed, ab)
		}
		for _, x := range slices.Concat(a, b) {
			i := slices.IndexFunc(ab, func(y Allocation) bool { return byServiceAndFamily(x, y) == 0 })
			if i < 0 || ab[i].Since.After(x.Since) || !slices.IsSortedFunc(ab, byServiceAndFamily) {
				t.Fatalf("seed %d: %v of %v", seed, ab, x)
			}
		}
	}
}

func TestMergeLeavesItsArgumentsAlone(t *testing.T) {
	a := []Allocation{has("b", "203.0.113.1", 1), has("a", "203.0.113.2", 1)}
	a[0].Since = a[0].Since.In(time.FixedZone("x", 3600))
	before := slices.Clone(a)
	if got := Merge(a[:1], a[1:]); len(got) != 2 || got[0].Service != "a" || !slices.Equal(a, before) {
		t.Errorf("got %v, argument is %v now", got, a)
	}
}
