// Package health finds out which backends answer.
//
// Flows must not be sent to a server that is gone, and a server must not be
// taken out because one probe was lost. So every check is repeated for ever, a
// verdict changes only after several equal results in a row, and what is not
// known yet counts as usable: a restarted appliance must not begin by
// refusing all traffic.
//
// What a check asks and which answer is good is its Probe; how the packets get
// to a backend is the business of a Network. That of the kernel is here (Kernel);
// one that reaches a VIP on one given backend is package via.
package health

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// State is the verdict on one check.
type State uint8

const (
	Unknown State = iota // no verdict yet; treat as usable
	Up                   // answers
	Down                 // does not answer; Unknown again once nobody could ask for some seconds
)

// String returns the state as one lower-case word.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Check describes one repeated check of one backend.
type Check struct {
	ID      string           // chosen by the caller, unique within a set; opaque here
	Targets []netip.AddrPort // all of them must answer; ICMP does not look at the port
	Way     string           // how packets get there, for the Network; "": by the kernel's routes
	Probe   Probe            // what is asked, and which answer is good; TCP if nil

	Interval time.Duration // from one probe's start to the next, ± 10 %; 2 s if not positive
	Timeout  time.Duration // of one probe, as a whole; 1 s if not positive
	Rise     int           // successes in a row from Down to Up; 1 if not positive
	Fall     int           // failures in a row to Down; 1 if not positive
}

// complete returns the check with its defaults filled in, and with no memory
// shared with the caller.
func (c Check) complete() Check {
	if c.Probe == nil {
		c.Probe = TCP{}
	}
	c.Probe = c.Probe.complete()
	c.Targets = slices.Clone(c.Targets)
	if c.Interval <= 0 {
		c.Interval = 2 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	c.Rise, c.Fall = max(c.Rise, 1), max(c.Fall, 1)
	return c
}

// Result is the state of one check.
type Result struct {
	State        State
	Since        time.Time     // when State was reached
	LastError    string        // of the latest probe; empty if it succeeded, or none has ended
	LastDuration time.Duration // how long the latest probe took
	Unable       bool          // probes cannot be made, for a reason on this box that LastError tells; State is from before, but see Down
}

// So many probes in a row that cannot be made, over at least so long, turn Down
// into Unknown. Such probes are repeated quickly, and much that they want for comes
// back in a moment: a dead server must not get traffic for that.
const (
	pardon      = 3
	pardonAfter = 5 * time.Second
)

// verdict turns the results of probes into a state.
type verdict struct {
	Result
	streak      int       // results in a row, the latest included, that speak against State
	unable      int       // probes in a row, the latest included, that could not be made
	unableSince time.Time // the first of these
}

// observe takes the result of one probe in, and says whether it has changed
// the state. The first success makes Unknown Up at once; to make it Down takes
// as many failures as from Up, since Unknown is usable and one lost probe must
// not take a backend out.
//
// A probe that could not even be made (out of files, no address to ask from) is no
// result: it must not take every backend out at once. Nor must it keep one out for
// ever: after a few of them, what was down is not known any more.
func (v *verdict) observe(c *Check, err error, took time.Duration, now time.Time) bool {
	v.LastDuration, v.LastError = took, ""
	next, need := Up, c.Rise
	if err != nil {
		v.LastError = err.Error()
		next, need = Down, c.Fall
		if errors.Is(err, ErrNotNow) {
			return false
		}
		if ours(err) {
			if v.unable++; v.unable == 1 {
				v.unableSince = now
			}
			if v.State != Down || v.unable < pardon || now.Sub(v.unableSince) < pardonAfter {
				return false
			}
			v.State, v.Since, v.streak = Unknown, now, 0
			return true
		}
	}
	v.unable = 0
	if next == v.State {
		v.streak = 0
		return false
	}
	v.streak++
	if v.State == Unknown && next == Up {
		need = 1
	}
	if v.streak < need {
		return false
	}
	v.State, v.Since, v.streak = next, now, 0
	return true
}
