package l2

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

// How much is said at once. A node can be asked to take a thousand addresses in one
// moment, and neither those who answer nor those who listen keep up with that: the
// workers tell the control plane of so many answers a second (package forward), and
// what is not told would count as silence; and switches that limit broadcasts drop
// what is too much, the same addresses each time. So addresses wait in line.
const (
	// probeBatch addresses begin to be asked for in each probeWindow: 640 a second,
	// of which as many answers can come, and the workers tell of 1024.
	probeBatch  = 64
	probeWindow = 100 * time.Millisecond

	// announceBatch frames are sent in each announceWindow to announce.
	announceBatch  = 100
	announceWindow = 20 * time.Millisecond

	// refreshGrid is the grain of the times at which addresses are announced that
	// have not moved.
	refreshGrid = 250 * time.Millisecond
)

// pacer lets so many things happen in each window of time. The first window begins
// with the first of them.
type pacer struct {
	window time.Duration
	most   int
	begin  time.Time
	used   int
}

// allow reports whether n things may happen now, and counts them. An empty window
// takes any number.
func (p *pacer) allow(n int, now time.Time) bool {
	if now.Sub(p.begin) >= p.window {
		p.begin, p.used = now, 0
	}
	if p.used > 0 && p.used+n > p.most {
		return false
	}
	p.used += n
	return true
}

// next is when the current window ends.
func (p *pacer) next() time.Time { return p.begin.Add(p.window) }

// urgency orders addresses that wait to be asked for.
type urgency uint8

const (
	orphaned urgency = iota // its owner has died or given it up
	unowned
	contested // somebody answered when it was asked for last
)

// line has an address wait until it may be asked for, not before a time.
func (m *machine) line(v *vip, u urgency, now, notBefore time.Time) {
	if v.phase != probing {
		m.become(v, probing)
		v.answered = 0
		v.interval = probeSlow
		if m.seen[v.addr] {
			v.interval = probeQuick
		}
	}
	v.queued, v.urgency, v.lined, v.probes, v.next = true, u, now, 0, notBefore
}

// ask begins to ask for addresses that are in line, as many as may be: first those
// whose clients wait, then those that have waited longest.
func (m *machine) ask(now time.Time) {
	var all []*vip
	for _, v := range m.sorted() {
		if v.phase == probing && v.queued && !now.Before(v.next) && !m.speechless(v) {
			all = append(all, v)
		}
	}
	slices.SortStableFunc(all, func(a, b *vip) int {
		return cmp.Or(cmp.Compare(a.urgency, b.urgency), a.lined.Compare(b.lined))
	})
	for _, v := range all {
		if !m.asking.allow(1, now) {
			return
		}
		v.queued = false
		m.probe(v, now)
	}
}

// probe asks for an address once more.
func (m *machine) probe(v *vip, now time.Time) {
	v.probes++
	m.send(v, true)
	v.next = now.Add(v.interval)
}

// speak announces addresses whose time has come, as many as may be, and those first
// that have waited longest.
func (m *machine) speak(now time.Time) {
	var all []*vip
	for _, v := range m.sorted() {
		if v.phase == held && !now.Before(v.next) {
			all = append(all, v)
		}
	}
	slices.SortStableFunc(all, func(a, b *vip) int { return a.next.Compare(b.next) })
	for _, v := range all {
		if !m.speaking.allow(len(v.links), now) {
			return
		}
		m.announce(v, now)
	}
}

// announce announces an address that is held, and plans the next time.
func (m *machine) announce(v *vip, now time.Time) {
	m.send(v, false)
	v.told = now
	if v.left > 0 {
		v.left--
	}
	v.next = now.Add(burstInterval)
	if v.left == 0 {
		// So that those that were taken together part, but not into a thousand
		// steps of one frame each.
		at := now.Add(Interval - rand.N(Interval/2))
		v.next = at.Add(-(at.Sub(m.started) % refreshGrid))
	}
}

// due returns when an address has something to do next; zero for never.
func (m *machine) due(v *vip, now time.Time) time.Time {
	switch {
	case v.next.After(now) || v.next.IsZero():
		return v.next
	case v.phase == held:
		return m.speaking.next()
	case v.phase == probing && v.queued && m.speechless(v):
		return time.Time{} // the link is tried, and has a time of its own
	case v.phase == probing && v.queued:
		return m.asking.next()
	}
	return v.next
}
