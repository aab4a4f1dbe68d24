package limit

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"weir/dataplane/flow"
)

const second = flow.TicksPerSecond

// take asks n times in one tick and returns how often the answer was yes.
func take(b *Bucket, r Rate, now flow.Tick, n int) (allowed int) {
	for range n {
		if b.Allow(r, now) {
			allowed++
		}
	}
	return allowed
}

func TestBurst(t *testing.T) {
	for _, test := range []struct {
		name string
		rate Rate
		want int // at once from a full bucket
	}{
		{"none given: a second's worth", Rate{PerSecond: 100}, 100},
		{"smaller", Rate{PerSecond: 100, Burst: 20}, 20},
		{"larger", Rate{PerSecond: 100, Burst: 1000}, 1000},
		{"too small for the ticks", Rate{PerSecond: 1600, Burst: 1}, 102},
		{"one a second", Rate{PerSecond: 1}, 2},
		{"no limit", Rate{}, 5000},
		{"no limit, whatever the burst", Rate{Burst: 3}, 5000},
	} {
		for _, start := range []flow.Tick{0, 1, 1 << 31, math.MaxUint32} {
			var b Bucket
			if got := take(&b, test.rate, start, 5000); got != test.want {
				t.Errorf("%s, at tick %d: %d, want %d", test.name, start, got, test.want)
			}
			// A long pause fills it again, and no more than that.
			if got := take(&b, test.rate, start+100_000*second, 5000); got != test.want {
				t.Errorf("%s, from tick %d, later: %d, want %d", test.name, start, got, test.want)
			}
		}
	}
}

// Who always asks for more gets the rate to the last token.
func TestLongTerm(t *testing.T) {
	for _, rate := range []Rate{{PerSecond: 1}, {PerSecond: 3}, {PerSecond: 15, Burst: 1}, {PerSecond: 16}, {PerSecond: 17, Burst: 1}, {PerSecond: 999, Burst: 7}, {PerSecond: 65_537}} {
		for _, every := range []int{1, 2, 5} { // ticks; not so rarely that the bucket runs over
			if every > 1 && rate.Burst != 0 {
				continue
			}
			const steps = 800
			var b Bucket
			now := flow.Tick(math.MaxUint32 - 100)
			most := int(rate.PerSecond) + 5
			start := take(&b, rate, now, most)
			allowed := 0
			for range steps {
				now += flow.Tick(every)
				allowed += take(&b, rate, now, most)
			}
			if want := steps * every * int(rate.PerSecond) / second; allowed != want {
				t.Errorf("%+v every %d ticks: %d after the first %d, want %d", rate, every, allowed, start, want)
			}
		}
	}
}

// model is a bucket as the book has it, in fractions of any size.
type model struct {
	level, burst, perTick *big.Rat
	last                  uint64
}

func newModel(r Rate) *model {
	burst := uint64(r.Burst)
	if burst == 0 {
		burst = uint64(r.PerSecond)
	}
	burst = max(burst, uint64(r.PerSecond)/second+2)
	full := new(big.Rat).SetUint64(burst)
	return &model{level: new(big.Rat).Set(full), burst: full, perTick: new(big.Rat).SetFrac64(int64(r.PerSecond), second)}
}

func (m *model) allow(now uint64) bool {
	gain := new(big.Rat).SetUint64(now - m.last)
	m.level.Add(m.level, gain.Mul(gain, m.perTick))
	if m.level.Cmp(m.burst) > 0 {
		m.level.Set(m.burst)
	}
	m.last = now
	one := big.NewRat(1, 1)
	if m.level.Cmp(one) < 0 {
		return false
	}
	m.level.Sub(m.level, one)
	return true
}

// run checks a bucket against the model. Each byte is a pause and how many
// packets come after it.
func run(t *testing.T, r Rate, start uint32, ops []byte) {
	m, b := newModel(r), Bucket{last: flow.Tick(start)}
	now := uint64(0)
	for i, op := range ops {
		now += uint64(op & 7)
		if op&7 == 7 {
			now += uint64(op) << 4
		}
		for range op >> 3 {
			want := m.allow(now)
			if got := b.Allow(r, flow.Tick(start)+flow.Tick(now)); got != want {
				t.Fatalf("%+v, step %d, tick %d: %v, want %v with %v there", r, i, now, got, want, m.level)
			}
		}
	}
}

func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		ops := make([]byte, 200)
		for i := range ops {
			ops[i] = byte(r.Uint32())
		}
		rate := Rate{PerSecond: 1 + uint32(r.IntN(600)), Burst: uint32(r.IntN(100))}
		run(t, rate, r.Uint32(), ops)
	}
}

func FuzzBucket(f *testing.F) {
	f.Add(uint32(17), uint32(0), uint32(math.MaxUint32), []byte{0xf8, 0xf9, 0x0f, 0xff})
	f.Fuzz(func(t *testing.T, perSecond, burst, start uint32, ops []byte) {
		if perSecond == 0 || max(perSecond, burst) > maxBurst {
			return
		}
		run(t, Rate{perSecond, burst}, start, ops[:min(len(ops), 200)])
	})
}

// The largest numbers must not wrap.
func TestExtremes(t *testing.T) {
	for _, r := range []Rate{{math.MaxUint32, 0}, {math.MaxUint32, math.MaxUint32}, {1, math.MaxUint32}, {math.MaxUint32, 1}} {
		var b Bucket
		now := flow.Tick(0)
		for range 100 {
			if got := take(&b, r, now, 1000); got != 1000 {
				t.Errorf("%+v at tick %d: %d of 1000", r, now, got)
			}
			now += math.MaxInt32
		}
		full := Bucket{taken: maxBurst * token, last: now}
		if full.Allow(r, now) {
			t.Errorf("%+v: something from an empty bucket", r)
		}
		if !full.Allow(r, now+second) {
			t.Errorf("%+v: nothing a second later", r)
		}
	}
}

func TestRateChanges(t *testing.T) {
	var b Bucket
	take(&b, Rate{PerSecond: 1000}, 0, 1000)
	if got := take(&b, Rate{PerSecond: 100}, 0, 10); got != 0 {
		t.Errorf("a lower rate lets %d more through", got)
	}
	if got := take(&b, Rate{PerSecond: 2000}, 0, 5000); got != 1000 {
		t.Errorf("a higher rate lets %d more through, want 1000", got)
	}
}

// A new service's bucket may be asked for the first time after years.
func TestYears(t *testing.T) {
	r := Rate{PerSecond: 16}
	for _, start := range []flow.Tick{1 << 30, 1<<31 - 1, 1 << 31, 3 << 30, 1<<32 - 10} {
		var b Bucket
		if got := take(&b, r, start, 100); got != 16 {
			t.Errorf("first asked at tick %d: %d, want 16", start, got)
		}
		if got := take(&b, r, start+20, 100); got != 16 {
			t.Errorf("20 ticks after tick %d: %d, want 16", start, got)
		}
	}
}

func TestShare(t *testing.T) {
	for _, test := range []struct {
		rate    Rate
		workers int
		want    Rate
	}{
		{Rate{1000, 0}, 4, Rate{250, 0}},
		{Rate{1000, 100}, 3, Rate{333, 33}},
		{Rate{3, 2}, 4, Rate{1, 1}},
		{Rate{0, 0}, 4, Rate{0, 0}},
		{Rate{1000, 10}, 1, Rate{1000, 10}},
		{Rate{1000, 10}, 0, Rate{1000, 10}},
		{Rate{math.MaxUint32, 1}, 1 << 40, Rate{1, 1}},
	} {
		if got := test.rate.Share(test.workers); got != test.want {
			t.Errorf("%+v of %d workers: %+v, want %+v", test.rate, test.workers, got, test.want)
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	var bucket Bucket
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		bucket.Allow(Rate{PerSecond: 1 << 20}, flow.Tick(i>>16))
	}
}
