package measure

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// edges returns the lowest value of each bucket, made by counting.
func edges() (low []uint64) {
	width, at := uint64(1), uint64(0)
	for at < 1<<(exponentMax+1) {
		for range perPower {
			low = append(low, at)
			at += width
		}
		if at >= 2*perPower {
			width *= 2
		}
	}
	return low
}

func TestBuckets(t *testing.T) {
	low := edges()
	if len(low) != Buckets {
		t.Fatalf("%d buckets, want %d", len(low), Buckets)
	}
	for bucket, from := range low {
		to := uint64(1) << (exponentMax + 1)
		if bucket+1 < Buckets {
			to = low[bucket+1]
		}
		for _, value := range []uint64{from, (from + to) / 2, to - 1} {
			if got := BucketOf(value); got != bucket {
				t.Errorf("%d is in bucket %d, want %d", value, got, bucket)
			}
		}
		if got := highestOf(bucket); got != time.Duration(to-1) {
			t.Errorf("bucket %d ends with %d, want %d", bucket, got, to-1)
		}
		if width := to - from; width > 1 && float64(width)/float64(from) > 1./16 {
			t.Errorf("bucket %d is from %d to %d", bucket, from, to)
		}
	}
	if got := BucketOf(1 << 63); got != Buckets-1 {
		t.Errorf("a great value is in bucket %d, want %d", got, Buckets-1)
	}
}

func TestPercentile(t *testing.T) {
	var none Histogram
	if none.Percentile(50) != 0 || none.Count() != 0 {
		t.Error("there is something in an empty histogram")
	}
	var early Histogram
	if early.Add(-time.Second); early.Buckets[0] != 1 || early.Max != 0 {
		t.Error("a value below zero is not in the first bucket")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, count := range []int{1, 2, 10, 1000, 100_000} {
		var h Histogram
		var values []time.Duration
		for range count {
			v := time.Duration(1) << random.IntN(45) // also beyond the last bucket
			v += time.Duration(random.Int64N(int64(v)))
			values = append(values, v)
			h.Add(v)
		}
		slices.Sort(values)
		if int(h.Count()) != count || h.Max != values[count-1] {
			t.Errorf("%d values up to %v, want %d up to %v", h.Count(), h.Max, count, values[count-1])
		}
		for _, p := range []float64{-1, 0, 1, 10, 50, 90, 99, 99.9, 99.999, 100, 101} {
			below := 0 // the exact one by its definition: the first that p per cent are not above
			for below < count-1 && float64(below+1) < p/100*float64(count) {
				below++
			}
			exact, got := values[below], h.Percentile(p)
			if exact >= 1<<(exponentMax+1) {
				if got != h.Max {
					t.Errorf("%d values, %g %%: %d, want %d", count, p, got, h.Max)
				}
			} else if got < exact || float64(got) > float64(exact)*(1+1./16) {
				t.Errorf("%d values, %g %%: %d, want %d", count, p, got, exact)
			}
		}
	}
}

func TestSince(t *testing.T) {
	var before Histogram
	for _, v := range []time.Duration{3, 100, 1000, 50_000} {
		before.Add(v)
	}
	for _, test := range []struct {
		name  string
		later []time.Duration
		most  time.Duration
	}{
		{"nothing", nil, 0},
		{"a greater one", []time.Duration{7, 60_001}, 60_001},
		{"a smaller one", []time.Duration{7, 1000}, 1023}, // of its bucket
		{"beyond the last bucket", []time.Duration{1 << 50}, 1 << 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, want := before, Histogram{Max: test.most}
			for _, v := range test.later {
				all.Add(v)
				want.Buckets[BucketOf(uint64(v))]++
			}
			if got := all.Since(&before); got != want {
				t.Errorf("%d values up to %v, want %d up to %v", got.Count(), got.Max, want.Count(), want.Max)
			}
		})
	}
}
