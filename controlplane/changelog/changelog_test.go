package changelog

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSince(t *testing.T) {
	var l Log[string]
	_, start, all := l.Since(Never)
	if !all {
		t.Error("who has seen nothing is not told of all")
	}
	l.Add("a")
	keys, middle, all := l.Since(start)
	if all || !slices.Equal(keys, []string{"a"}) {
		t.Errorf("%v, all %t", keys, all)
	}
	l.Add("b", "a")
	for _, tc := range []struct {
		since uint64
		want  []string
	}{{start, []string{"a", "b", "a"}}, {middle, []string{"b", "a"}}, {middle + 2, nil}} {
		if keys, _, all := l.Since(tc.since); all || !slices.Equal(keys, tc.want) {
			t.Errorf("since %d: %v, all %t; want %v", tc.since, keys, all, tc.want)
		}
	}
	l.AddAll()
	if keys, now, all := l.Since(middle + 2); !all || keys != nil {
		t.Errorf("after a change of all: %v", keys)
	} else if keys, _, all := l.Since(now); all || len(keys) > 0 {
		t.Errorf("and then: %v, all %t", keys, all)
	}
}

// However far a reader is behind, it is told of every change or of all.
func TestNothingIsMissed(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var l Log[int]
		truth, seen, since, alls := make([]int, 64), make([]int, 64), uint64(0), 0
		for range 400 {
			for range rng.IntN(1 << rng.IntN(10)) {
				n := rng.IntN(len(truth))
				truth[n]++
				l.Add(n)
			}
			if rng.IntN(50) == 0 {
				truth[rng.IntN(len(truth))]++
				l.AddAll()
			}
			if rng.IntN(1+int(seed)) > 0 {
				continue
			}
			keys, now, all := l.Since(since)
			if since = now; all {
				copy(seen, truth)
				alls++
			}
			for _, n := range keys {
				seen[n] = truth[n]
			}
			if !slices.Equal(seen, truth) {
				t.Fatalf("seed %d: seen %v, want %v", seed, seen, truth)
			}
		}
		if len(l.latest) > 2*kept {
			t.Fatalf("%d changes are remembered", len(l.latest))
		}
	}
}
