package maglev

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// equal returns n backends of the same weight.
func equal(n int) []Backend {
	backends := make([]Backend, n)
	for i := range backends {
		backends[i] = Backend{Name: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Weight: 100}
	}
	return backends
}

func build(t testing.TB, size int, backends []Backend) []uint16 {
	t.Helper()
	table, err := Build(size, backends)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// count returns how many slots each backend has, and fails on a slot with no
// such backend in it.
func count(t testing.TB, table []uint16, backends []Backend) []int {
	t.Helper()
	slots := make([]int, len(backends))
	for slot, b := range table {
		if int(b) >= len(backends) {
			t.Fatalf("slot %d: backend %d of %d", slot, b, len(backends))
		}
		slots[b]++
	}
	return slots
}

// checkShares fails if a backend's part of the table is further than tolerance
// from its part of the weights.
func checkShares(t testing.TB, size int, backends []Backend, tolerance float64) {
	t.Helper()
	var sum float64
	for _, b := range backends {
		sum += float64(b.Weight)
	}
	for i, n := range count(t, build(t, size, backends), backends) {
		got, want := float64(n)/float64(size), float64(backends[i].Weight)/sum
		if math.Abs(got-want) > tolerance {
			t.Errorf("%s, weight %d: %.4f %% of the slots, want %.4f %%", backends[i].Name, backends[i].Weight, got*100, want*100)
		}
		if backends[i].Weight == 0 && n > 0 {
			t.Errorf("%s: %d slots without a weight", backends[i].Name, n)
		}
	}
}

// NSDI'16, table 1: the permutations are (3,0,4,1,5,2,6), (0,2,4,6,1,3,5) and
// (3,4,5,6,0,1,2).
func TestPaperTable(t *testing.T) {
	of := func(backend uint16, offset, skip uint32) walk {
		w := walk{next: offset, weight: 1, backend: backend}
		w.setSkip(skip, 7)
		return w
	}
	b0, b1, b2 := of(0, 3, 4), of(1, 0, 2), of(2, 3, 1)
	for _, test := range []struct {
		name  string
		walks []walk
		want  []uint16
	}{
		{"before", []walk{b0, b1, b2}, []uint16{1, 0, 1, 0, 2, 2, 0}},
		{"after backend 1 left", []walk{b0, b2}, []uint16{0, 0, 0, 0, 2, 2, 2}},
	} {
		got := make([]uint16, 7)
		populate(got, test.walks)
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// naive is the paper's pseudocode, word for word, with a permutation written
// out for every backend.
func naive(size int, backends []Backend) []int {
	type candidate struct {
		permutation []int
		next, index int
	}
	var candidates []candidate
	for i, b := range backends {
		digest := sha256.Sum256([]byte(b.Name))
		offset := int(binary.BigEndian.Uint64(digest[:8]) % uint64(size))
		skip := int(binary.BigEndian.Uint64(digest[8:16])%uint64(size-1) + 1)
		c := candidate{index: i}
		for j := range size {
			c.permutation = append(c.permutation, (offset+j*skip)%size)
		}
		candidates = append(candidates, c)
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Compare(backends[a.index].Name, backends[b.index].Name)
	})
	entry := make([]int, size)
	for i := range entry {
		entry[i] = -1
	}
	for n := 0; ; {
		for i := range candidates {
			c := &candidates[i]
			slot := c.permutation[c.next]
			for entry[slot] >= 0 {
				c.next++
				slot = c.permutation[c.next]
			}
			entry[slot] = c.index
			c.next++
			if n++; n == size {
				return entry
			}
		}
	}
}

// plain is populate without its haste: a walk looks at one slot after the other.
func plain(size int, walks []walk) []uint16 {
	var price uint64
	for i := range walks {
		price = max(price, walks[i].weight)
	}
	table, free := make([]uint16, size), slices.Repeat([]bool{true}, size)
	for left := size; ; {
		for i := range walks {
			w := &walks[i]
			if w.credit += w.weight; w.credit < price {
				continue
			}
			w.credit -= price
			at := int(w.next)
			for !free[at] {
				at = (at + int(w.skips[1])) % size
			}
			free[at], table[at] = false, w.backend
			w.next = uint32((at + int(w.skips[1])) % size)
			if left--; left == 0 {
				return table
			}
		}
	}
}

func TestAgainstPlainWalks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{2, 3, 5, 7, 11, 13, 61, 67, 127, 251, 1021, 10007, 65537} {
		for range 30 {
			backends := equal(1 + rng.IntN(min(size, 400)))
			most := []int{1, 3, 100, 1_000_000}[rng.IntN(4)]
			for i := range backends {
				backends[i].Name = strconv.Itoa(rng.Int())
				backends[i].Weight = uint32(1 + rng.IntN(most))
			}
			walks, err := walksOf(uint32(size), backends)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := build(t, size, backends), plain(size, walks); !slices.Equal(got, want) {
				t.Fatalf("size %d, weights %v: another table than by plain walks", size, backends)
			}
		}
	}
}

func TestInverse(t *testing.T) {
	for _, size := range []uint32{2, 3, 7, 65537, math.MaxInt32} {
		for range 1000 {
			skip, steps := 1+rand.N(size-1), rand.N(size)
			distance := uint32(uint64(skip) * uint64(steps) % uint64(size))
			for _, d := range []uint32{distance, distance + size} {
				if got := inverseOf(skip, size).times(d, size); got != steps {
					t.Fatalf("size %d: %d is %d steps of %d, want %d", size, d, got, skip, steps)
				}
			}
		}
	}
}

func TestEqualWeightsAgainstNaive(t *testing.T) {
	for _, size := range []int{2, 3, 7, 67, 251, 4099} {
		for _, n := range []int{1, 2, 3, 7, 50, 251} {
			if n > size {
				continue
			}
			backends := equal(n)
			table := build(t, size, backends)
			for i, want := range naive(size, backends) {
				if int(table[i]) != want {
					t.Fatalf("size %d, %d backends: slot %d has %d, want %d", size, n, i, table[i], want)
				}
			}
		}
	}
	backends := equal(20)
	table := build(t, DefaultSize, backends)
	for i, want := range naive(DefaultSize, backends) {
		if int(table[i]) != want {
			t.Fatalf("size %d: slot %d has %d, want %d", DefaultSize, i, table[i], want)
		}
	}
}

func TestEqualWeightsAreExact(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 650, 1000, 65535} {
		backends := equal(n)
		slots := count(t, build(t, DefaultSize, backends), backends)
		if d := slices.Max(slots) - slices.Min(slots); d > 1 {
			t.Errorf("%d backends: slots differ by %d", n, d)
		}
	}
}

// moved returns the part of the slots that went from one backend to another
// although both are in both tables.
func moved(before []uint16, from []Backend, after []uint16, to []Backend) float64 {
	here, there := map[string]bool{}, map[string]bool{}
	for _, b := range from {
		here[b.Name] = b.Weight > 0
	}
	for _, b := range to {
		there[b.Name] = b.Weight > 0
	}
	n := 0
	for i := range before {
		a, b := from[before[i]].Name, to[after[i]].Name
		if a != b && there[a] && here[b] {
			n++
		}
	}
	return float64(n) / float64(len(before))
}

// The ceilings are what the plain algorithm moves, and a margin for the names.
func TestOneBackendRemoved(t *testing.T) {
	for _, test := range []struct {
		size, backends int
		ceiling        float64
	}{
		{65537, 3, 0.001},
		{65537, 10, 0.004},
		{65537, 50, 0.008},
		{65537, 100, 0.009},
		{65537, 250, 0.010},
		{65537, 650, 0.011},
		{65537, 1000, 0.009},
		{655373, 1000, 0.006},
		{16381, 160, 0.025},
	} {
		all := equal(test.backends)
		before := build(t, test.size, all)
		var worst, sum float64
		const removals = 5
		for i := range removals {
			gone := i * (test.backends - 1) / (removals - 1)
			rest := slices.Delete(slices.Clone(all), gone, gone+1)
			m := moved(before, all, build(t, test.size, rest), rest)
			worst, sum = max(worst, m), sum+m
		}
		t.Logf("M=%d N=%d: %.3f %% move, %.3f %% at worst", test.size, test.backends, sum/removals*100, worst*100)
		if worst > test.ceiling {
			t.Errorf("M=%d N=%d: %.3f %% of the slots moved, ceiling %.3f %%", test.size, test.backends, worst*100, test.ceiling*100)
		}
	}
}

func TestShares(t *testing.T) {
	weights := func(w ...uint32) []Backend {
		backends := equal(len(w))
		for i := range w {
			backends[i].Weight = w[i]
		}
		return backends
	}
	many := func(n int, light, heavy uint32) []Backend {
		backends := equal(n)
		for i := range backends {
			backends[i].Weight = light
		}
		backends[n/2].Weight = heavy
		return backends
	}
	spread := equal(300)
	for i := range spread {
		spread[i].Weight = uint32(i)
	}
	for _, test := range []struct {
		name     string
		backends []Backend
	}{
		{"one", weights(7)},
		{"1 vs 1000", weights(1, 1000)},
		{"1000 vs 1", weights(1000, 1)},
		{"1 vs 2", weights(1, 2)},
		{"primes", weights(2, 3, 5, 7, 11, 13)},
		{"with zeros", weights(0, 3, 0, 5, 0)},
		{"largest weights", weights(math.MaxUint32, math.MaxUint32-1, math.MaxUint32/2, 1)},
		{"one heavy, ten light", many(11, 1, 1000)},
		{"one heavy, a thousand light", many(1001, 1, 1000)},
		{"one light, a thousand heavy", many(1001, 1000, 1)},
		{"0 to 299", spread},
	} {
		t.Run(test.name, func(t *testing.T) { checkShares(t, DefaultSize, test.backends, 0.001) })
	}
}

// A change of one weight takes slots from, or gives slots to, that backend; the
// other backends should hardly notice.
func TestOneWeightChanged(t *testing.T) {
	for _, weight := range []uint32{0, 1, 5, 20, 50, 99, 101, 200, 1000} {
		before, after := equal(50), equal(50)
		after[17].Weight = weight
		checkShares(t, DefaultSize, after, 0.001)
		from, to := build(t, DefaultSize, before), build(t, DefaultSize, after)
		others := 0
		for i := range from {
			if from[i] != to[i] && from[i] != 17 && to[i] != 17 {
				others++
			}
		}
		part := float64(others) / DefaultSize
		t.Logf("weight 100 to %d: %.3f %% move between the others", weight, part*100)
		// Where the slots of nearly everyone change hands, so do some between
		// the others; 1000 of 5900 is the largest change here.
		if part > 0.02 {
			t.Errorf("weight 100 to %d: %.3f %% of the slots moved between the others", weight, part*100)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	backends := equal(40)
	for i := range backends {
		backends[i].Weight = r.Uint32N(100)
	}
	want := build(t, DefaultSize, backends)
	for range 5 {
		shuffled := slices.Clone(backends)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i, b := range build(t, DefaultSize, shuffled) {
			if shuffled[b].Name != backends[want[i]].Name {
				t.Fatalf("slot %d: %s, want %s", i, shuffled[b].Name, backends[want[i]].Name)
			}
		}
	}
}

func TestNoTable(t *testing.T) {
	for name, backends := range map[string][]Backend{
		"none":             nil,
		"all weights zero": {{Name: "a"}, {Name: "b"}},
	} {
		if table, err := Build(7, backends); table != nil || err != nil {
			t.Errorf("%s: %v, %v, want no table and no error", name, table, err)
		}
	}
	if table := build(t, 7, []Backend{{Name: "a"}, {Name: "b", Weight: 1}}); !slices.Equal(table, []uint16{1, 1, 1, 1, 1, 1, 1}) {
		t.Errorf("one backend: %v", table)
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		size     int
		backends []Backend
		want     string
	}{
		{"not a prime", 65536, equal(1), "not a prime"},
		{"negative", -7, equal(1), "not a prime"},
		{"zero", 0, nil, "not a prime"},
		{"one", 1, equal(1), "not a prime"},
		{"prime, but too large", 2147483659, equal(1), "not a prime"},
		{"too few slots", 7, equal(8), "too few"},
		{"too many backends", DefaultSize, equal(65536), "65536 backends"},
		{"name twice", 7, []Backend{{"a", 1}, {"b", 1}, {"a", 2}}, "a is there twice"},
		{"name twice, without weight", 7, []Backend{{"a", 0}, {"a", 0}}, "a is there twice"},
	} {
		if table, err := Build(test.size, test.backends); err == nil || !strings.Contains(err.Error(), test.want) || table != nil {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := Build(7, append(equal(7), Backend{Name: "unused"})); err != nil {
		t.Errorf("a backend without weight needs no slot: %v", err)
	}
}

// A node of another version must build this very table, or flows move while an
// upgrade is under way. If this fails, it is the code that is wrong.
func TestGolden(t *testing.T) {
	weighted := equal(100)
	for i := range weighted {
		weighted[i].Weight = uint32(i*i) % 101
	}
	for _, test := range []struct {
		name     string
		backends []Backend
		want     string
	}{
		{"equal", equal(100), "14d2b2298e757268c0f215559b3d540704b8900812c685589b1d2dba177dd462"},
		{"weighted", weighted, "0558a3d5123f60d0bcc7de521f3f9c2dbe51685bc2c57520a7a913057a3371fa"},
	} {
		digest := sha256.New()
		for _, b := range build(t, DefaultSize, test.backends) {
			digest.Write([]byte{byte(b >> 8), byte(b)})
		}
		if got := hex.EncodeToString(digest.Sum(nil)); got != test.want {
			t.Errorf("%s: table %s, want %s", test.name, got, test.want)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, size := range []int{16381, 65537, 655373} {
		for _, n := range []int{3, 10, 100, 1000} {
			b.Run(fmt.Sprintf("size=%d/backends=%d", size, n), func(b *testing.B) {
				backends := equal(n)
				b.ReportAllocs()
				for b.Loop() {
					build(b, size, backends)
				}
			})
		}
	}
	b.Run("size=65537/backends=1000/one-heavy", func(b *testing.B) {
		backends := equal(1000)
		backends[500].Weight = 100_000
		for b.Loop() {
			build(b, 65537, backends)
		}
	})
}
