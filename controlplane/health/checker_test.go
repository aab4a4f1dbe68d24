package health

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/changelog"
)

var (
	one = netip.MustParseAddr("10.0.0.1")
	two = netip.MustParseAddr("10.0.0.2")
)

// servers stands in for the backends: what a probe of each ID returns.
type servers struct {
	mu     sync.Mutex
	errs   map[string]error
	probes map[string]int
	hang   bool // probes last until their context ends
}

func (s *servers) probing(c Check) attempt {
	return func(ctx context.Context) error {
		s.mu.Lock()
		s.probes[c.ID]++
		err, hang := s.errs[c.ID], s.hang
		s.mu.Unlock()
		if hang {
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	}
}

func (s *servers) set(id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs[id] = err
}

func (s *servers) count(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes[id]
}

// simulate runs a checker in a bubble of virtual time, which also finds every
// goroutine that is left behind.
func simulate(t *testing.T, test func(*testing.T, *Checker, *servers)) {
	synctest.Test(t, func(t *testing.T) {
		s := &servers{errs: map[string]error{}, probes: map[string]int{}}
		c := newChecker(slog.New(slog.DiscardHandler), s.probing)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		test(t, c, s)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func changed(c *Checker) bool {
	select {
	case <-c.Changes():
		return true
	default:
		return false
	}
}

func check(id string, addr netip.Addr) Check {
	return Check{ID: id, Targets: []netip.AddrPort{netip.AddrPortFrom(addr, 80)}, Interval: time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
}

func TestCheckerFollows(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.set("b", errRefused)
		c.SetChecks([]Check{check("a", one), check("b", two)})
		if got := c.Results(); len(got) != 2 || got["a"].State != Unknown || got["a"].Since != time.Now() {
			t.Errorf("before the first probe: got %+v", got)
		}
		wait(200 * time.Millisecond) // the first probes are made at once
		if got := c.Results(); got["a"].State != Up || got["b"].State != Unknown || got["b"].LastError != errRefused.Error() || !changed(c) {
			t.Errorf("after the first: got %+v", got)
		}
		wait(4 * time.Second)
		if got := c.Results(); got["a"].State != Up || got["b"].State != Down || !changed(c) {
			t.Errorf("later: got %+v", got)
		}
		wait(10 * time.Second)
		if changed(c) {
			t.Error("signalled a change though there was none")
		}
		s.set("b", nil)
		wait(4 * time.Second)
		if got := c.Results(); got["b"].State != Up || got["b"].LastError != "" || !changed(c) {
			t.Errorf("recovered: got %+v", got)
		}
	})
}

// Whoever asks for what has changed hears of every State and of nothing else.
func TestCheckerChanged(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.set("b", errRefused)
		c.SetChecks([]Check{check("a", one), check("b", two)})
		_, now, all := c.Changed(changelog.Never)
		if !all {
			t.Error("who has heard of nothing is not told of all")
		}
		for _, step := range []struct {
			what string
			do   func()
			want []string
		}{
			{"the first probes", func() { wait(200 * time.Millisecond) }, []string{"a"}},
			{"three failures", func() { wait(4 * time.Second) }, []string{"b"}},
			{"no change", func() { wait(time.Minute) }, nil},
			{"another server", func() { c.SetChecks([]Check{check("a", two), check("b", two)}) }, []string{"a"}},
			{"the same", func() { c.SetChecks([]Check{check("a", two), check("b", two)}) }, nil},
		} {
			step.do()
			var got []string
			if got, now, all = c.Changed(now); all || !slices.Equal(got, step.want) {
				t.Errorf("after %s: %v, all %t; want %v", step.what, got, all, step.want)
			}
		}
		if got := c.Result("b"); got != c.Results()["b"] || got.State != Down || c.Result("none") != (Result{}) {
			t.Errorf("one result is %+v, of all it is %+v; of none %+v", got, c.Results()["b"], c.Result("none"))
		}
	})
}

func TestCheckerSetChecks(t *testing.T) {
	edited, faster := check("a", one), check("a", two)
	edited.Interval = 3 * time.Second
	faster.Probe, faster.Way, faster.Interval = HTTP{}, "w", 500*time.Millisecond
	tests := []struct {
		name   string
		before State
		next   []Check
		want   map[string]State
		anew   bool // "a" is probed at once
		signal bool
	}{
		{"unchanged", Down, []Check{check("a", one)}, map[string]State{"a": Down}, false, false},
		{"another one besides", Down, []Check{check("b", two), check("a", one)}, map[string]State{"a": Down, "b": Unknown}, false, false},
		{"edited", Down, []Check{edited}, map[string]State{"a": Down}, true, false},
		{"other address", Down, []Check{check("a", two)}, map[string]State{"a": Down}, true, false},
		{"all but its name", Down, []Check{faster}, map[string]State{"a": Down}, true, false},
		{"other name", Down, []Check{check("b", one)}, map[string]State{"b": Unknown}, false, false},
		{"removed", Down, nil, map[string]State{}, false, false},
		{"edited", Up, []Check{edited}, map[string]State{"a": Up}, true, false},
		{"other address", Up, []Check{check("a", two)}, map[string]State{"a": Unknown}, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name+", "+tt.before.String(), func(t *testing.T) {
			simulate(t, func(t *testing.T, c *Checker, s *servers) {
				if tt.before == Down {
					s.set("a", errRefused)
				}
				c.SetChecks([]Check{check("a", one)})
				for c.Results()["a"].State != tt.before { // until just after a probe
					wait(10 * time.Millisecond)
				}
				before, since := s.count("a"), c.Results()["a"].Since
				changed(c)
				c.SetChecks(tt.next)
				got := c.Results()
				for id, want := range tt.want {
					if got[id].State != want {
						t.Errorf("%s: got %v, want %v", id, got[id].State, want)
					}
				}
				if a, there := got["a"]; there && a.State == tt.before && a.Since != since {
					t.Errorf("it is %v since %v, want %v", a.State, a.Since, since)
				}
				if len(got) != len(tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
				if changed(c) != tt.signal {
					t.Errorf("signal of a change: want %v", tt.signal)
				}
				wait(400 * time.Millisecond)
				if anew := s.count("a") > before; anew != tt.anew {
					t.Errorf("probed at once: got %v, want %v", anew, tt.anew)
				}
				if len(tt.next) == 0 {
					wait(time.Minute)
					if s.count("a") != before {
						t.Error("a removed check goes on")
					}
				}
			})
		})
	}
}

// What was down and cannot be asked any more is not known after a while, and
// whoever waits for changes hears of it.
func TestCheckerPardons(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.set("a", errRefused)
		c.SetChecks([]Check{check("a", one)})
		wait(4 * time.Second)
		if got := c.Results()["a"]; got.State != Down {
			t.Fatalf("got %+v, want down", got)
		}
		changed(c)
		down, started := c.Results()["a"].Since, time.Now()
		s.set("a", fmt.Errorf("no way: %w", ErrUnable))
		for c.Results()["a"].State == Down {
			wait(10 * time.Millisecond)
			if time.Since(down) > time.Minute {
				t.Fatal("it stays down for ever")
			}
		}
		if took := time.Since(started); took < pardonAfter || took > pardonAfter+3*time.Second {
			t.Errorf("pardoned after %v", took)
		}
		if got := c.Results()["a"]; got.State != Unknown || !got.Unable || !got.Since.After(down) || got.LastError == "" || !changed(c) {
			t.Errorf("got %+v, want unknown, unable and a signal", got)
		}
		wait(time.Minute)
		if got := c.Results()["a"]; got.State != Unknown || changed(c) {
			t.Errorf("later: got %+v", got)
		}
		s.set("a", errRefused)
		wait(5 * time.Second)
		if got := c.Results()["a"]; got.State != Down || got.Unable {
			t.Errorf("asked again: got %+v", got)
		}
	})
}

// A check that is removed while its probe is under way must not end up in the
// results, and the probe must end.
func TestCheckerRemovedDuringProbe(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.hang = true
		slow := check("a", one)
		slow.Timeout, slow.Fall = time.Hour, 1
		c.SetChecks([]Check{slow})
		wait(time.Second)
		slow.Fall = 2
		c.SetChecks([]Check{slow})
		wait(time.Second)
		if got := c.Results()["a"]; got.State != Unknown || got.LastError != "" || changed(c) {
			t.Errorf("got %+v", got)
		}
	})
}

func TestCheckerTimeout(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		s.hang = true
		slow := check("a", one)
		slow.Timeout, slow.Fall = 700*time.Millisecond, 1
		c.SetChecks([]Check{slow})
		wait(900 * time.Millisecond)
		got := c.Results()["a"]
		if got.State != Down || got.LastError != "no answer within 700ms" || got.LastDuration != 700*time.Millisecond {
			t.Errorf("got %+v", got)
		}
	})
}

func TestCheckerRhythm(t *testing.T) {
	simulate(t, func(t *testing.T, c *Checker, s *servers) {
		const n = 500
		var checks []Check
		for i := range n {
			checks = append(checks, check(fmt.Sprint(i), one))
		}
		c.SetChecks(checks)
		wait(100 * time.Second)
		total := 0
		for i := range n {
			got := s.count(fmt.Sprint(i))
			total += got
			if got < 90 || got > 112 { // 100 s in steps of 0.9 to 1.1 s
				t.Errorf("check %d: %d probes in 100 intervals", i, got)
			}
		}
		if mean := float64(total) / n; mean < 99 || mean > 102 {
			t.Errorf("mean: %.1f probes in 100 intervals", mean)
		}
	})
}

func TestCheckerLogsOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer // written under the checker's lock, read after Run
		s := &servers{errs: map[string]error{"a": errRefused}, probes: map[string]int{}}
		c := newChecker(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), s.probing)
		c.SetChecks([]Check{check("a", one)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		wait(30 * time.Second)
		s.set("a", nil)
		wait(30 * time.Second)
		cancel()
		<-done
		text := out.String()
		if strings.Count(text, "\n") != 2 || !strings.Contains(text, `msg="backend is down" check=a targets=[10.0.0.1:80] kind=tcp was=unknown failures=3 err="connection refused"`) ||
			!strings.Contains(text, `msg="backend is up" check=a`) {
			t.Errorf("got\n%s", text)
		}
	})
}

func TestCheckerSaysOnceThatItCannotProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer // written under the checker's lock, read after Run
		s := &servers{errs: map[string]error{"a": unix.EMFILE}, probes: map[string]int{}}
		c := newChecker(slog.New(slog.NewTextHandler(&out, nil)), s.probing)
		c.SetChecks([]Check{check("a", one)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		wait(30 * time.Second)
		state := c.Results()["a"].State
		cancel()
		<-done
		if text := out.String(); state != Unknown || strings.Count(text, "\n") != 1 || !strings.Contains(text, "too many open files") {
			t.Errorf("state %s, logged\n%s", state, text)
		}
	})
}

func TestCheckerRace(t *testing.T) {
	s := &servers{errs: map[string]error{"a": errRefused}, probes: map[string]int{}}
	c := newChecker(slog.New(slog.DiscardHandler), s.probing)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = c.Run(ctx) })
	var stop atomic.Bool
	all.Go(func() {
		for !stop.Load() {
			c.Results()
			c.Suspect("a")
		}
	})
	for i := range 200 {
		fast := check("a", one)
		fast.Interval, fast.Fall = time.Millisecond, i/2
		c.SetChecks([]Check{fast, check("b", two)})
		time.Sleep(100 * time.Microsecond)
	}
	stop.Store(true)
	cancel()
	all.Wait()
}
