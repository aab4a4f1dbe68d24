package connections

import (
	"math/bits"
	"time"
)

// A histogram counts durations from a microsecond on, each in a bucket no wider
// than a sixteenth of what is in it: 32 buckets of a microsecond, and then 16
// for each doubling. Histograms can be subtracted.
type histogram [buckets]uint64

const buckets = 32 + 16*22 // up to two minutes

// bucket returns which bucket a duration is in.
func bucket(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	shift := max(bits.Len64(us)-5, 0)
	return min(16*shift+int(us>>shift), buckets-1)
}

// upper returns the largest duration in a bucket.
func upper(bucket int) time.Duration {
	if bucket < 32 {
		return time.Duration(bucket) * time.Microsecond
	}
	shift := bucket/16 - 1
	return time.Duration((bucket%16+17)<<shift-1) * time.Microsecond
}

// since returns what was added since before.
func (h *histogram) since(before *histogram) (d histogram) {
	for i := range h {
		d[i] = h[i] - before[i]
	}
	return d
}

// quantile returns what that share of all durations is not above, zero if there
// are none.
func (h *histogram) quantile(share float64) time.Duration {
	all := uint64(0)
	for _, n := range h {
		all += n
	}
	sum := uint64(0)
	for i, n := range h {
		if sum += n; n > 0 && float64(sum) >= share*float64(all) {
			return upper(i)
		}
	}
	return 0
}
