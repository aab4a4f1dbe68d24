package refuse

import (
	"hash/maphash"
	"math/bits"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
)

// Limits says how many answers a Limiter allows. What is 0 is taken from the
// defaults.
type Limits struct {
	PerSecond, Burst             int // to all together
	SourcePerSecond, SourceBurst int // to one source
	Sources                      int // buckets for sources; rounded up to a power of two
}

// Defaults of Limits.
const (
	// DefaultPerSecond is Linux's net.ipv4.icmp_msgs_per_sec. Its burst of 50
	// is less than comes together between two ticks of weir's clock.
	DefaultPerSecond = 1000
	DefaultBurst     = 250

	// DefaultSourcePerSecond is between Linux's one a second for IPv4
	// (net.ipv4.icmp_ratelimit), from which path MTU discovery is exempt there,
	// and none at all: a source may be a site's many hosts behind one address.
	DefaultSourcePerSecond = 10
	DefaultSourceBurst     = 20

	DefaultSources = 4096 // 32 KiB
)

// bucket is a token bucket. Its tokens are in parts of which a tick brings as
// many as the bucket gets tokens in a second, so that there is no fraction.
type bucket struct {
	parts uint32
	last  flow.Tick // when parts were last brought up to date
}

const partsPerToken = flow.TicksPerSecond

// rate is what buckets are filled by.
type rate struct {
	perTick uint64 // in parts
	full    uint32 // in parts
}

func newRate(perSecond, burst int) rate {
	const most = 1 << 24 // far from where parts overflow
	return rate{uint64(min(perSecond, most)), uint32(min(burst, most)) * partsPerToken}
}

func (b *bucket) take(r rate, now flow.Tick) bool {
	if ticks := int32(now - b.last); ticks > 0 {
		b.parts = uint32(min(uint64(b.parts)+uint64(ticks)*r.perTick, uint64(r.full)))
	}
	b.last = now
	if b.parts < partsPerToken {
		return false
	}
	b.parts -= partsPerToken
	return true
}

// Limiter limits how many answers one worker gives, to each source and in all
// (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): strangers are not to
// have weir send at a rate of their choosing, to addresses of their choosing.
// A source is an IPv4 address or an IPv6 /64.
//
// Sources share the buckets that a hash spreads them over, with a secret of the
// limiter, so that nobody can aim at the bucket of another one. It belongs to
// one goroutine.
type Limiter struct {
	source, total rate
	all           bucket
	sources       []bucket
	mask          uint64 // number of sources - 1
	seed          maphash.Seed
}

// NewLimiter returns a Limiter that has not been asked for anything yet.
func NewLimiter(l Limits) *Limiter {
	for v, otherwise := range map[*int]int{
		&l.PerSecond: DefaultPerSecond, &l.Burst: DefaultBurst,
		&l.SourcePerSecond: DefaultSourcePerSecond, &l.SourceBurst: DefaultSourceBurst,
		&l.Sources: DefaultSources,
	} {
		if *v <= 0 {
			*v = otherwise
		}
	}
	n := 1 << bits.Len(uint(l.Sources-1))
	limiter := &Limiter{
		source:  newRate(l.SourcePerSecond, l.SourceBurst),
		total:   newRate(l.PerSecond, l.Burst),
		sources: make([]bucket, n),
		mask:    uint64(n - 1),
		seed:    maphash.MakeSeed(),
	}
	limiter.all.parts = limiter.total.full
	for i := range limiter.sources {
		limiter.sources[i].parts = limiter.source.full
	}
	return limiter
}

// Allow reports whether src, the source of the packet at fault, may be answered
// now, and counts it if so. A source that asks too often takes nothing from
// the others.
func (l *Limiter) Allow(src *[16]byte, now flow.Tick) bool {
	network := *src
	if !packet.IsMapped(network) {
		clear(network[8:])
	}
	b := &l.sources[maphash.Comparable(l.seed, network)&l.mask]
	return b.take(l.source, now) && l.all.take(l.total, now)
}
