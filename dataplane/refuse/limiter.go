package refuse

import (
	"weir/dataplane/flow"
	"weir/dataplane/limit"
)

// Limits says how many answers a Limiter allows.
type Limits struct {
	All    limit.Rate // to all together
	Source limit.Rate // to one source
}

// DefaultLimits returns the limits to use when nothing else is wanted.
func DefaultLimits() Limits {
	return Limits{
		// Linux's net.ipv4.icmp_msgs_per_sec. Its burst of 50 is less than comes
		// together between two ticks of weir's clock.
		All: limit.Rate{PerSecond: 1000, Burst: 250},
		// Between Linux's one a second for IPv4 (net.ipv4.icmp_ratelimit), from
		// which path MTU discovery is exempt there, and none at all: a source may
		// be a site's many hosts behind one address.
		Source: limit.Rate{PerSecond: 10, Burst: 20},
	}
}

// sources is how many sources a Limiter tells apart: 64 KiB.
const sources = 4096

// Limiter limits how many answers one worker gives, to each source and in all
// (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): strangers are not to
// have weir send at a rate of their choosing, to addresses of their choosing.
// A source is an IPv4 address or an IPv6 /64. It belongs to one goroutine.
type Limiter struct {
	limits  Limits
	all     limit.Bucket
	sources *limit.Sources
}

// NewLimiter returns a Limiter that has not been asked for anything yet.
func NewLimiter(l Limits) *Limiter {
	return &Limiter{limits: l, sources: limit.New(sources)}
}

// Allow reports whether src, the source of the packet at fault, may be answered
// now, and counts it if so. A source that asks too often takes nothing from
// the others.
func (l *Limiter) Allow(src *[16]byte, now flow.Tick) bool {
	network := limit.Mask(src, 32, 64)
	return l.sources.Allow(0, &network, l.limits.Source, now) && l.all.Allow(l.limits.All, now)
}
