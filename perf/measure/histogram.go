package measure

import (
	"math"
	"math/bits"
	"time"
)

const (
	perPower    = 16
	exponentMax = 39

	// Buckets is how many a histogram has: 16 for each power of two of nanoseconds
	// up to 2^40, and one for each value below 16 (BUCKETS in sink/bpf/sink.c). So a
	// bucket is at most 1/16 as wide as its lowest value is great.
	Buckets = (exponentMax-3)*perPower + perPower
)

// Histogram is how long things took: frames, or connections. It can be compared.
type Histogram struct {
	Buckets [Buckets]uint64
	Max     time.Duration // exactly
}

// Add adds a value. One below zero is taken for zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.Buckets[BucketOf(uint64(d))]++
	h.Max = max(h.Max, d)
}

// BucketOf returns the bucket of so many nanoseconds, as the sink's program does.
func BucketOf(ns uint64) int {
	exponent := bits.Len64(ns) - 1
	switch {
	case ns < perPower:
		return int(ns)
	case exponent > exponentMax:
		return Buckets - 1
	}
	return (exponent-4)*perPower + int(ns>>(exponent-4))
}

// highestOf returns the greatest value of a bucket. The last one has all above
// it too.
func highestOf(bucket int) time.Duration {
	if bucket < perPower {
		return time.Duration(bucket)
	}
	shift := bucket/perPower - 1
	return time.Duration((perPower+bucket%perPower+1)<<shift - 1)
}

// Count returns how many values there are.
func (h *Histogram) Count() uint64 {
	sum := uint64(0)
	for _, n := range h.Buckets {
		sum += n
	}
	return sum
}

// Percentile returns a value that p per cent of all are not above, by nearest
// rank: the greatest of its bucket, so less than 1/16 above the exact one and
// never below it. It is 0 if there are none.
func (h *Histogram) Percentile(p float64) time.Duration {
	count := h.Count()
	if count == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(p, 0), 100) / 100 * float64(count)))
	rank, sum := min(max(rank, 1), count), uint64(0)
	for bucket, n := range h.Buckets {
		if sum += n; sum >= rank && bucket < Buckets-1 {
			return min(highestOf(bucket), h.Max)
		}
	}
	return h.Max
}

// Since returns the values that have come after before, an earlier reading of
// the same histogram. Its Max is exact unless a greater one had come earlier: then it
// is the greatest of its bucket.
func (h *Histogram) Since(before *Histogram) (after Histogram) {
	for bucket := range h.Buckets {
		if after.Buckets[bucket] = h.Buckets[bucket] - before.Buckets[bucket]; after.Buckets[bucket] > 0 {
			after.Max = highestOf(bucket)
			if bucket == Buckets-1 {
				after.Max = h.Max
			}
		}
	}
	after.Max = min(after.Max, h.Max)
	return after
}
