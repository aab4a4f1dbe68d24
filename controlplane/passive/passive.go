// Package passive suspects backends by what becomes of real flows.
//
// The problem it solves: a health check asks every few seconds, and a backend
// that has just died goes on getting new flows until enough checks have failed.
// The workers see sooner that something is wrong: connections are opened, and
// none of them gets anywhere. That is no verdict (it may be the clients' fault,
// a flood of forged openings for instance), but reason enough to ask at once.
package passive

import (
	"slices"
	"time"
)

const (
	// fewest is how many TCP connections have to fail, with none that succeeds
	// among them, before a backend is suspected. A single client that gives up
	// is no news.
	fewest = 3

	// handshake is how long the first of them is given before it counts: the
	// answer has to come to the client and the client's answer back here.
	handshake = time.Second

	// respite is how long a backend is left alone after it was suspected: if its
	// check passes, the reason is somewhere else.
	respite = 5 * time.Second
)

// Counts are what the workers have counted of one backend so far. They only
// grow, unless they start anew.
type Counts struct {
	Opened      uint64 // TCP connections begun
	Established uint64 // of those, the ones that got past their opening
	Resets      uint64 // connections that the backend reset, where its answers are seen
}

// good is how many connections there have been that the backend has not reset. One
// that is refused makes it less.
func (c *Counts) good() int64 { return int64(c.Established) - int64(c.Resets) }

// Detector remembers counts from one look to the next. One goroutine uses it.
type Detector struct {
	backends map[string]*backend
}

// backend is what is known of one backend.
type backend struct {
	counts Counts    // at the last look
	failed uint64    // opened in vain since the last one that succeeded
	since  time.Time // when the first of failed was seen
	until  time.Time // not suspected again before
}

// New makes a detector that has seen nothing.
func New() *Detector { return &Detector{backends: make(map[string]*backend)} }

// Look takes in the counts of all backends, by a name of the caller's, and
// returns the names of those that are suspected now, sorted. A backend that is
// not in counts is forgotten.
func (d *Detector) Look(now time.Time, counts map[string]Counts) []string {
	var suspected []string
	for name := range d.backends {
		if _, there := counts[name]; !there {
			delete(d.backends, name)
		}
	}
	for name, c := range counts {
		b := d.backends[name]
		if b == nil {
			d.backends[name] = &backend{counts: c}
			continue
		}
		if b.look(now, c) {
			suspected = append(suspected, name)
		}
	}
	slices.Sort(suspected)
	return suspected
}

// look takes in new counts, and says whether they make the backend suspect.
func (b *backend) look(now time.Time, c Counts) bool {
	before := b.counts
	b.counts = c
	restarted := c.Opened < before.Opened || c.Established < before.Established
	if restarted || c.good() > before.good() {
		b.failed = 0 // one that was not reset is enough to show that it works
		return false
	}
	if failed := c.Opened - before.Opened; failed > 0 {
		if b.failed == 0 {
			b.since = now
		}
		b.failed += failed
	}
	if b.failed < fewest || now.Sub(b.since) < handshake || now.Before(b.until) {
		return false
	}
	b.failed = 0
	b.until = now.Add(respite)
	return true
}
