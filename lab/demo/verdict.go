package demo

import (
	"fmt"
	"math"
	"strings"
)

// phaseNames say in words when a phase was.
var phaseNames = [numPhases]string{
	allUp:   "while all backends were up",
	oneDown: "while %s was out",
	allBack: "after %s was back",

	weirDown: "while %w was gone",
	weirBack: "after %w was back",
}

func (e *evidence) when(p phase) string {
	return strings.NewReplacer("%s", e.victim, "%w", e.killed).Replace(phaseNames[p])
}

// judge returns all reasons for which the demo has failed; none if it has
// passed. It asks for proof of each claim: what did not happen at all fails as
// well as what went wrong.
func judge(e *evidence, a *account) []string {
	var reasons []string
	fail := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }

	c := &e.course
	switch {
	case c.started.IsZero():
		fail("no request was ever made")
	case c.stopped.IsZero():
		fail("%s was never stopped", e.victim)
	case c.noticed.IsZero():
		fail("the weirs did not notice that %s had stopped", e.victim)
	case c.returned.IsZero():
		fail("%s was never started again", e.victim)
	case c.restored.IsZero():
		fail("the weirs did not take %s back", e.victim)
	case c.killed.IsZero():
		fail("%s was never killed", e.killed)
	case c.rerouted.IsZero():
		fail("the router did not notice that %s was killed", e.killed)
	case c.revived.IsZero():
		fail("%s was never started again", e.killed)
	case c.rejoined.IsZero():
		fail("the router did not take %s back", e.killed)
	case c.ended.IsZero():
		fail("the demo did not come to its end")
	}
	for i, r := range a.faults {
		if i == 5 {
			fail("and %d more requests that had to succeed failed", len(a.faults)-i)
			break
		}
		s := e.streams[r.stream]
		fail("a request to %s over %s failed %.1f s after the start: %v", s.service, s.family(), c.since(r.Start).Seconds(), r.Err)
	}
	if len(e.streams) == 0 {
		fail("there was no service to ask")
	}
	for i, s := range e.streams {
		for p := range numPhases {
			if a.streams[i].answered[p] == 0 {
				fail("%s over %s: no request was answered %s", s.service, s.family(), e.when(p))
			}
		}
	}
	for _, cell := range a.cells {
		for p, s := range cell.shares {
			judgeShare(e, &cell, phase(p), s, fail)
		}
	}
	judgeWeirs(e, fail)
	judgeLong(e, fail)
	for _, name := range e.services() {
		seen := 0
		for i := range e.requests {
			r := &e.requests[i]
			if r.Err == nil && e.streams[r.stream].service == name && !e.unseen(r) {
				seen++
			}
		}
		if e.newFlows[name] < uint64(seen) {
			fail("%s: %d requests were answered, but the weirs counted only %d new flows: not all went through them", name, seen, e.newFlows[name])
		}
	}
	return reasons
}

// unseen says whether a weir may have forwarded a request and been killed before
// it could tell.
func (e *evidence) unseen(r *request) bool {
	c := &e.course
	return !c.asked.IsZero() && r.Start.Before(c.killed) && r.end().After(c.asked)
}

// judgeWeirs wants both weirs to have worked whenever they were there.
func judgeWeirs(e *evidence, fail func(string, ...any)) {
	for p := range numPhases {
		for _, name := range e.weirs {
			n, there := e.decided[p][name]
			gone := p == weirDown && name == e.killed
			switch {
			case e.decided[p] == nil:
				// Said already: it did not come to that.
			case gone && there:
				fail("%s was there %s", name, e.when(p))
			case !gone && n == 0:
				fail("%s decided about no connection %s", name, e.when(p))
			}
		}
	}
}

// judgeLong wants long connections to have been there, and all to have outlived
// the weir.
func judgeLong(e *evidence, fail func(string, ...any)) {
	l := &e.long
	if l.opened == 0 {
		fail("there was no long connection that could have broken")
		return
	}
	if n := len(l.broken); n > 0 {
		fail("%d of %d long connections broke, the first, to %s by %s, with: %v", n, l.opened, l.broken[0].Remote, l.broken[0].Backend, l.broken[0].Err)
	}
	if !l.ended {
		fail("the long connections were not used at the end")
	}
}

func judgeShare(e *evidence, c *cell, p phase, s share, fail func(string, ...any)) {
	out := p == oneDown && c.backend == e.victim
	switch {
	case s.of == 0:
		// Said already, once for each stream.
	case out && s.got > 0:
		fail("%s: %s answered %d requests %s", c.service, c.backend, s.got, e.when(p))
	case out && s.expected > 0:
		fail("%s: weir meant to send %s %.1f %% of the requests %s", c.service, c.backend, s.part(s.expected), e.when(p))
	case out:
	case s.got == 0:
		fail("%s: %s answered none of %d requests %s", c.service, c.backend, s.of, e.when(p))
	case s.expected == 0:
		fail("%s: weir gave %s no share %s", c.service, c.backend, e.when(p))
	case math.Abs(float64(s.got)-s.expected) > s.tolerance():
		fail("%s: %s answered %.1f %% of the requests %s, expected were %.1f ± %.1f %%",
			c.service, c.backend, s.part(float64(s.got)), e.when(p), s.part(s.expected), s.part(s.tolerance()))
	}
}
