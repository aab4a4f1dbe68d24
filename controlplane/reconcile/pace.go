package reconcile

import (
	"maps"
	"net/netip"
	"time"
)

// steps is in how many equal parts a backend gets its weight, or loses it.
const steps = 10

// member names a backend of a service.
type member struct {
	service string
	backend netip.Addr
}

// Drain is an order to give a backend of a service no new flows.
type Drain struct {
	Start time.Time
	Over  time.Duration // how long it takes until the last of its weight is gone; 0: at once
	From  int           // steps of its weight that it had before
}

// level returns how many steps of its weight the backend has left, and when it
// will be one less; zero for never. The first step down is taken at once, the
// last when the time is over.
func (d *Drain) level(now time.Time) (level int, next time.Time) {
	down := d.From - 1
	if down <= 0 || d.Over <= 0 {
		return 0, time.Time{}
	}
	done, next := progress(d.Start, d.Over, down, now)
	return down - done, next
}

// pace is where a backend is on its way to its weight.
type pace struct {
	able  bool      // it was usable when last looked at
	since time.Time // since when it has been getting its weight; zero if it has all of it, or is not usable
}

// paces remembers how far each backend has come. It has what the latest compilation
// that was a success left.
type paces struct {
	current map[member]pace
	next    map[member]pace // those asked for since begin
	first   bool            // nothing has been compiled yet
}

func newPaces() *paces {
	return &paces{current: make(map[member]pace), next: make(map[member]pace), first: true}
}

func (p *paces) begin() { p.next = make(map[member]pace) }

// keep takes over those asked for, in place of all that the parts had that they were
// asked for instead of.
func (p *paces) keep(before []*part) {
	for _, part := range before {
		for i := range part.config.Backends {
			delete(p.current, member{part.config.Name, part.config.Backends[i].Address})
		}
	}
	maps.Copy(p.current, p.next)
	p.first = false
}

func (p *paces) clone() *paces {
	return &paces{current: maps.Clone(p.current), next: make(map[member]pace), first: p.first}
}

// level returns how many steps of its weight a backend in this status has that
// takes a time to get them, and when it will be one more; zero for never. The
// first step is taken at once, the last when the time is over.
//
// weir's own start is not the backends': those found usable then, as soon as the
// way to them is known, begin with all of their weight, since the flows that came
// before the start should go where they went. So does nobody who was down or
// unreachable first, or who was configured later.
func (p *paces) level(m member, status Status, over time.Duration, now time.Time) (level int, next time.Time) {
	was, known := p.current[m]
	if !known {
		was.able = p.first
	}
	is := was
	if status != StatusResolving {
		is.able = status == StatusUp
		if !is.able || over <= 0 {
			is.since = time.Time{}
		} else if !was.able {
			is.since = now
		}
	}
	level = steps
	if !is.since.IsZero() {
		var done int
		if done, next = progress(is.since, over, steps-1, now); done == steps-1 {
			is.since = time.Time{}
		}
		level = 1 + done
	}
	p.next[m] = is
	return level, next
}

// resume has a backend that has some steps of its weight get the rest in what is
// left of the time that it takes to get all.
func (p *paces) resume(m member, level int, over time.Duration, now time.Time) {
	is, known := p.current[m]
	if !known || !is.able || over <= 0 {
		return
	}
	is.since = now.Add(-over * time.Duration(max(level-1, 0)) / (steps - 1))
	p.current[m] = is
}

// progress returns how many of n steps, spread evenly over a time, are done, and
// when the next one is; zero if there is none.
func progress(start time.Time, over time.Duration, n int, now time.Time) (done int, next time.Time) {
	elapsed := now.Sub(start)
	if elapsed >= over {
		return n, time.Time{}
	}
	part := max(over/time.Duration(n), 1)
	done = min(int(max(elapsed, 0)/part), n-1)
	if done == n-1 {
		return done, start.Add(over)
	}
	return done, start.Add(part * time.Duration(done+1))
}
