// Package limit says whether one more packet, or one more flow, is within a
// rate.
//
// The problem it solves: under a flood, what is too much has to be told from
// what is not at the cost of a few nanoseconds, by each worker for itself, with
// no clock, no lock and no memory that grows. So a Bucket is eight bytes that
// one worker owns, time comes from outside in the ticks the worker has anyway,
// and the buckets of many sources are in a table of fixed size (Sources).
//
// The rate is exact in the long run: nothing is rounded, not even where a tick
// brings a fraction of a token. In the short run, all that a tick brings comes
// at once.
package limit

import "weir/dataplane/flow"

// A token is what one packet or flow costs. Buckets count in parts of one:
// each tick brings as many parts as a second brings tokens.
const (
	token    = flow.TicksPerSecond
	maxBurst = (1<<32 - 1) / token // so that the parts fit 32 bits
)

// Rate is how much is allowed. The zero Rate does not limit.
type Rate struct {
	// PerSecond is how many may pass per second in the long run; 0 is no limit.
	PerSecond uint32
	// Burst is how many may pass at once after a pause. If it is 0, it is one
	// second's worth. It is at least two more than a tick's worth, or the ticks
	// could not bring the rate, and at most 268 million.
	Burst uint32
}

// Share returns the part of the rate that each of so many workers may let pass,
// rounded down, but at least 1 where there is a limit.
func (r Rate) Share(workers int) Rate {
	share := func(n uint32) uint32 {
		if n == 0 || workers <= 1 {
			return n
		}
		return uint32(max(1, uint64(n)/uint64(workers)))
	}
	return Rate{PerSecond: share(r.PerSecond), Burst: share(r.Burst)}
}

// room returns how many parts of a token a bucket holds.
func (r Rate) room() uint64 {
	burst := r.Burst
	if burst == 0 {
		burst = r.PerSecond
	}
	return uint64(min(max(burst, r.PerSecond/token+2), maxBurst)) * token
}

// Bucket is a token bucket. The zero Bucket is a full one. It belongs to one
// goroutine. The Rate may be another one each time: what was taken stays taken.
type Bucket struct {
	taken uint32 // parts of a token that are missing
	last  flow.Tick
}

// Allow takes a token, if there is one, and reports whether there was. The clock
// must not go back; if it did, the bucket would be full.
func (b *Bucket) Allow(r Rate, now flow.Tick) bool {
	if r.PerSecond == 0 {
		return true
	}
	taken := uint64(b.taken)
	taken -= min(taken, uint64(now-b.last)*uint64(r.PerSecond))
	ok := taken+token <= r.room()
	if ok {
		taken += token
	}
	b.taken, b.last = uint32(taken), now
	return ok
}
