package health

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSuspect(t *testing.T) {
	slow := check("a", one)
	slow.Interval, slow.Timeout, slow.Fall = 10*time.Second, 100*time.Millisecond, 3
	fast := slow
	fast.Interval = 200 * time.Millisecond
	tests := []struct {
		name   string
		check  Check
		err    error
		after  time.Duration // since the suspicion
		probes int           // made in that time
		state  State
	}{
		{"at once", slow, errRefused, 0, 1, Up},
		{"again after half a second", slow, errRefused, 600 * time.Millisecond, 2, Up},
		{"down after three of them", slow, errRefused, 1200 * time.Millisecond, 3, Down},
		{"at rest when down", slow, errRefused, 8 * time.Second, 3, Down},
		{"at rest after a success", slow, nil, 8 * time.Second, 1, Up},
		{"at rest when it cannot be probed", slow, unix.EMFILE, 8 * time.Second, 1, Up},
		{"its interval, if shorter", fast, errRefused, 500 * time.Millisecond, 3, Down},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			simulate(t, func(t *testing.T, c *Checker, s *servers) {
				c.SetChecks([]Check{tt.check})
				wait(tt.check.Interval/10 + tick)
				if c.Results()["a"].State != Up {
					t.Fatal("not up")
				}
				before := s.count("a")
				s.set("a", tt.err)
				c.Suspect("a")
				wait(tt.after)
				if got := s.count("a") - before; got != tt.probes {
					t.Errorf("%d probes, want %d", got, tt.probes)
				}
				if got := c.Results()["a"].State; got != tt.state {
					t.Errorf("state %v, want %v", got, tt.state)
				}
			})
		})
	}
}

// However often it is suspected, a check that passes is probed once a second.
func TestSuspectIsLimited(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		slow := check("a", one)
		slow.Interval = time.Hour
		c.SetChecks([]Check{slow})
		wait(7 * time.Minute)
		before := s.count("a")
		for range 1000 {
			c.Suspect("a")
			c.Suspect("nobody")
			wait(10 * time.Millisecond)
		}
		if got := s.count("a") - before; got != 10 {
			t.Errorf("%d probes in 10 s of suspicion, want 10", got)
		}
	})
}

// A probe that was under way before the suspicion may have succeeded before
// what gave rise to it.
func TestSuspectDuringProbe(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		slow := check("a", one)
		slow.Interval, slow.Timeout = time.Hour, time.Minute
		s.hang = true
		c.SetChecks([]Check{slow})
		for s.count("a") == 0 {
			wait(time.Second)
		}
		c.Suspect("a")
		s.mu.Lock()
		s.hang = false
		s.mu.Unlock()
		wait(2 * time.Minute)
		if got := s.count("a"); got != 2 {
			t.Errorf("%d probes, want the one under way and another", got)
		}
		if got := c.Results()["a"].State; got != Up {
			t.Errorf("state %v", got)
		}
	})
}

func TestSuspectDownIsLeftAlone(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.set("a", errors.New("no"))
		slow := check("a", one)
		slow.Interval, slow.Fall = time.Hour, 1
		c.SetChecks([]Check{slow})
		wait(10 * time.Minute)
		c.Suspect("a")
		wait(10 * time.Minute)
		if got := s.count("a"); got != 1 {
			t.Errorf("%d probes, want 1", got)
		}
	})
}

// Before Run and after it, a suspicion must do no harm.
func TestSuspectAtRest(t *testing.T) {
	s := &servers{errs: map[string]error{}, probes: map[string]int{}}
	c := newChecker(discard, s.probing)
	slow := check("a", one)
	slow.Interval = time.Hour
	c.SetChecks([]Check{slow})
	c.Suspect("a")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	for c.Results()["a"].State != Up {
		<-c.Changes()
	}
	cancel()
	<-done
	c.Suspect("a")
	c.SetChecks(nil)
	if len(c.Results()) != 0 {
		t.Error("there is a result of nothing")
	}
}

// A check that waits for something on this box does not wait for its interval.
func TestUnableIsRepeatedSoon(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		slow := check("a", one)
		slow.Interval = time.Hour
		s.set("a", fmt.Errorf("no way yet: %w", ErrUnable))
		c.SetChecks([]Check{slow})
		wait(time.Hour / 10)
		if got := c.Results()["a"].State; got != Unknown {
			t.Fatalf("it is %v by a probe that could not be made", got)
		}
		s.set("a", nil)
		wait(time.Second)
		if got := c.Results()["a"].State; got != Up {
			t.Errorf("it is %v a second after there was a way", got)
		}
	})
}
