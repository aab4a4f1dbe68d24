package soak

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestFit(t *testing.T) {
	// By hand: the means are 2 and 11/3; the sums of products are 2 and 5, and what
	// is left is 1/6 of squares, with one degree of freedom.
	slope, at, stderr := fit([]float64{1, 2, 3}, []float64{1, 4, 6})
	if math.Abs(slope-2.5) > 1e-12 || math.Abs(at(2)-11.0/3) > 1e-12 || math.Abs(stderr-math.Sqrt(1.0/6/2)) > 1e-12 {
		t.Errorf("slope %v ± %v, %v in the middle", slope, stderr, at(2))
	}
	for _, x := range [][]float64{{1, 2}, {5, 5, 5}} {
		if slope, at, stderr := fit(x, []float64{1, 3, 5}[:len(x)]); slope != 0 || stderr != 0 || at(7) != []float64{0, 0, 2, 3}[len(x)] {
			t.Errorf("%v: slope %v ± %v, %v", x, slope, stderr, at(7))
		}
	}
}

// Half an hour with a snapshot and a sample each second, of which memory does this.
func TestGrowth(t *testing.T) {
	const n, base = 1800, 100 << 20
	random := rand.New(rand.NewPCG(1, 2))
	noise := func() float64 { return random.NormFloat64() * 200e3 }
	for name, test := range map[string]struct {
		memory func(i int) float64
		grew   bool
	}{
		"level":                {func(int) float64 { return base }, false},
		"noise":                {func(int) float64 { return base + noise() }, false},
		"warm-up":              {func(i int) float64 { return base + math.Min(float64(i)*1e6, 300e6) + noise() }, false},
		"saw":                  {func(i int) float64 { return base + float64(i%60)*100e3 }, false},
		"one step":             {func(i int) float64 { return base + float64(i/1350)*2e6 }, false},
		"a step, in the noise": {func(i int) float64 { return base + float64(i/1500)*2e6 + noise() }, false},
		"500 bytes a second":   {func(i int) float64 { return base + float64(i)*500 }, false},
		"1 KiB a second":       {func(i int) float64 { return base + float64(i)*1024 }, true},
		"1 KiB, in the noise":  {func(i int) float64 { return base + float64(i)*1024 + noise() }, true},
		"1 KiB, by the page":   {func(i int) float64 { return base + float64(i/4)*4096 }, true},
		"1 KiB, of a lot":      {func(i int) float64 { return 100*base + float64(i)*1024 + noise() }, true},
		"2 KiB a second":       {func(i int) float64 { return base + float64(i)*2048 }, true},
		"2 KiB, in the noise":  {func(i int) float64 { return base + float64(i)*2048 + noise() }, true},
		"less and less":        {func(i int) float64 { return base - float64(i)*2048 }, false},
	} {
		var samples []Sample
		for i := range n {
			samples = append(samples, Sample{Seconds: float64(i), Snapshots: i, Memory: uint64(test.memory(i))})
		}
		if g := growthOf(samples, quantities()[0]); g.Grew != test.grew {
			t.Errorf("%s: %+v, want grew %v", name, g, test.grew)
		}
	}
}
