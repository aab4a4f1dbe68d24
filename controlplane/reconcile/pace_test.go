package reconcile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weir/controlplane/health"
	"weir/controlplane/nexthop"
)

const slow = `
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    slow_start: 90s
    table_size: 10007
    backends: [{address: 10.0.0.11, weight: 1}, {address: 10.0.0.12, weight: 1}]
`

// paced compiles and returns of a backend of the first service, in short, what
// share of new flows it has.
func (w *world) paced(t *testing.T, c *compiler, backend int) string {
	t.Helper()
	out := w.output(t, c)
	b := &out.view.Services[0].Backends[backend]
	next := "never"
	if !out.next.IsZero() {
		next = out.next.Sub(w.now).String()
	}
	until := ""
	if !b.Until.IsZero() {
		until = fmt.Sprintf(", until %v", b.Until.Sub(noon))
	}
	return fmt.Sprintf("%s %d/10, share %.3f, next %s%s", b.Status, b.Level, b.Share, next, until)
}

func TestSlowStart(t *testing.T) {
	c, w := newCompiler(), newWorld(parse(t, slow[:len(slow)-1]+checked))
	expect := func(what, want string) {
		t.Helper()
		if got := w.paced(t, c, 0); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	const full = "up 10/10, share 0.500, next never"
	expect("at the start", full)
	w.sick("web", "10.0.0.11", health.Down)
	expect("down", "down 10/10, share 0.000, next never")
	w.now = noon.Add(time.Hour)
	w.sick("web", "10.0.0.11", health.Up)
	// 1 of 11 parts, 2 of 12, and so on.
	expect("recovered", "up 1/10, share 0.091, next 10s, until 1h1m30s")
	w.now = w.now.Add(9 * time.Second)
	expect("9 s later", "up 1/10, share 0.091, next 1s, until 1h1m30s")
	w.now = w.now.Add(time.Second)
	expect("10 s later", "up 2/10, share 0.167, next 10s, until 1h1m30s")
	w.now = noon.Add(time.Hour + 85*time.Second)
	expect("85 s later", "up 9/10, share 0.474, next 5s, until 1h1m30s")
	w.now = noon.Add(time.Hour + 90*time.Second)
	expect("90 s later", full)

	// What was over does not begin again with a longer time.
	w.config = parse(t, strings.Replace(slow, "90s", "1h", 1)[:len(slow)-2]+checked)
	expect("with a longer slow start", full)

	w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State, h.Reason = nexthop.Unreachable, "interface eth1 is down" })
	expect("unreachable", "unreachable 10/10, share 0.000, next never")
	w.hop("10.0.0.11", func(h *nexthop.Hop) { h.State, h.Reason = nexthop.Resolved, "" })
	w.now = noon.Add(2 * time.Hour)
	expect("reachable again", "up 1/10, share 0.091, next 6m40s, until 3h0m0s")
	w.config = parse(t, strings.Replace(slow, "slow_start: 90s", "slow_start: 0s", 1)[:len(slow)-2]+checked)
	expect("with slow start switched off meanwhile", full)
}

// At weir's own start everybody begins with all of their weight, also those that
// have to be looked for first.
func TestSlowStartIsNotForWeirsOwnStart(t *testing.T) {
	c, w := newCompiler(), newWorld(parse(t, slow))
	hops := w.hops
	w.hops = nil
	if got := w.paced(t, c, 0); !strings.HasPrefix(got, "resolving") {
		t.Fatal(got)
	}
	w.hops = hops
	w.now = noon.Add(time.Second)
	if got := w.paced(t, c, 0); got != "up 10/10, share 0.500, next never" {
		t.Error(got)
	}

	// A backend that is configured later is new.
	w.config = parse(t, strings.Replace(slow, "10.0.0.11", "10.0.0.13", 1))
	w.hops = newWorld(w.config).hops
	found := w.hops
	w.hops = nil
	w.paced(t, c, 0)
	w.hops = found
	if got := w.paced(t, c, 0); got != "up 1/10, share 0.091, next 10s, until 1m31s" {
		t.Error(got)
	}
}

// A compilation that fails leaves no trace in how far backends have come.
func TestSlowStartOfAFailedCompilation(t *testing.T) {
	c, w := newCompiler(), newWorld(parse(t, slow))
	w.compile(t, c)
	bad := parse(t, strings.Replace(slow, "10.0.0.11", "10.0.0.13", 1))
	bad.Services = append(bad.Services, bad.Services[0])
	bad.Services[1].Name = "web2"
	if _, err := c.compile(newWorld(bad).input); err == nil {
		t.Fatal("compiled what two services claim")
	}
	if got := w.paced(t, c, 0); got != "up 10/10, share 0.500, next never" {
		t.Error(got)
	}
}

func TestProgress(t *testing.T) {
	for _, tc := range []struct {
		over, elapsed time.Duration
		n, done       int
		next          time.Duration // from the start; 0 for never
	}{
		{90 * time.Second, -time.Second, 9, 0, 10 * time.Second},
		{90 * time.Second, 0, 9, 0, 10 * time.Second},
		{90 * time.Second, 89 * time.Second, 9, 8, 90 * time.Second},
		{90 * time.Second, 90 * time.Second, 9, 9, 0},
		{100 * time.Second, 99999 * time.Millisecond, 9, 8, 100 * time.Second},
		{5, 0, 9, 0, 1}, // 5 ns do not divide by 9
		{5, 4, 9, 4, 5},
		{0, 0, 9, 9, 0},
		{MaxOver, MaxOver - 1, 9, 8, MaxOver},
	} {
		done, next := progress(noon, tc.over, tc.n, noon.Add(tc.elapsed))
		want := time.Time{}
		if tc.next != 0 {
			want = noon.Add(tc.next)
		}
		if done != tc.done || !next.Equal(want) {
			t.Errorf("%v of %v: %d of %d done, next at %v; want %d, %v", tc.elapsed, tc.over, done, tc.n, next, tc.done, want)
		}
		if !next.IsZero() && !next.After(noon.Add(tc.elapsed)) {
			t.Errorf("%v of %v: the next step is not later", tc.elapsed, tc.over)
		}
	}
}
