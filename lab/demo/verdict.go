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
}

func (e *evidence) when(p phase) string {
	return strings.ReplaceAll(phaseNames[p], "%s", e.victim)
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
		fail("weir did not notice that %s had stopped", e.victim)
	case c.returned.IsZero():
		fail("%s was never started again", e.victim)
	case c.restored.IsZero():
		fail("weir did not take %s back", e.victim)
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
	for _, name := range e.services() {
		answered := 0
		for i, s := range e.streams {
			if s.service == name {
				answered += a.streams[i].sent - a.streams[i].failed
			}
		}
		if e.newFlows[name] < uint64(answered) {
			fail("%s: %d requests were answered, but weir counted only %d new flows: not all went through it", name, answered, e.newFlows[name])
		}
	}
	return reasons
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
