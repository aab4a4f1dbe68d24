package reconcile

import (
	"net/netip"
	"time"

	"weir/dataplane/engine"
)

const (
	// mtuLife is for how long a learned path MTU counts after the latest message
	// about it: a larger one may be tried no earlier than that (RFC 1191 section
	// 6.3, RFC 8201 section 4).
	mtuLife = 10 * time.Minute

	// minMTU4 and minMTU6 are what no path has less of: what every host takes in
	// (RFC 1122 section 3.3.3), and the least that a link may have (RFC 8200
	// section 5). A message that says less is somebody's attack, or a mistake.
	minMTU4 = 576
	minMTU6 = 1280
)

// pathMTUs is what has been learned about paths, by backend.
type pathMTUs map[netip.Addr]learnedMTU

type learnedMTU struct {
	mtu   int
	until time.Time
}

// learn works in what a worker was told. It reports whether the path MTU is
// another one now. One that says more than is known already is old, or false.
func (p pathMTUs) learn(m engine.PathMTU, now time.Time) bool {
	mtu := max(m.MTU, minMTU4)
	if m.Backend.Is6() {
		mtu = max(m.MTU, minMTU6)
	}
	known, ok := p[m.Backend]
	if ok && mtu > known.mtu {
		return false
	}
	p[m.Backend] = learnedMTU{mtu, now.Add(mtuLife)}
	return !ok || mtu < known.mtu
}

// current forgets what is too old, and what is about nobody that is wanted. It
// returns what is left, and when the next will be too old; zero for never.
func (p pathMTUs) current(wanted func(netip.Addr) bool, now time.Time) (mtus map[netip.Addr]int, next time.Time) {
	mtus = make(map[netip.Addr]int)
	for backend, known := range p {
		if !wanted(backend) || !now.Before(known.until) {
			delete(p, backend)
			continue
		}
		mtus[backend] = known.mtu
		next = sooner(next, known.until)
	}
	return mtus, next
}

// sooner returns the earlier of two moments, of which a zero one is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
