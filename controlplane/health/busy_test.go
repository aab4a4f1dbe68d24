package health

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// crowd has so many checks probed by one attempt for some virtual seconds, and
// returns the checker and its log.
func crowd(t *testing.T, n int, how attempt, long time.Duration) (*Checker, string) {
	t.Helper()
	var log strings.Builder
	c := newChecker(slog.New(slog.NewTextHandler(&log, nil)), func(Check) attempt { return how })
	var checks []Check
	for i := range n {
		k := check(fmt.Sprint(i), one)
		k.Interval, k.Timeout = time.Second, time.Second
		checks = append(checks, k)
	}
	c.SetChecks(checks)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	time.Sleep(long)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return c, log.String()
}

// However many backends are silent, so many probes are under way and no more, and
// all of them find out in time.
func TestProbesUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, highest atomic.Int64
		silent := func(ctx context.Context) error {
			if n := now.Add(1); n > highest.Load() {
				highest.Store(n)
			}
			defer now.Add(-1)
			<-ctx.Done()
			return ctx.Err()
		}
		c, _ := crowd(t, 2*most, silent, 30*time.Second)
		if got := highest.Load(); got != most {
			t.Errorf("%d probes were under way at once, want %d", got, most)
		}
		for id, r := range c.Results() {
			if r.State != Down {
				t.Fatalf("check %s is %v", id, r.State)
			}
		}
	})
}

// What ends long after its time-out says that this box is slow, not that the backend
// is; and of many that cannot be made a few are named.
func TestLateIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(300 * time.Millisecond) // until the scheduler got round to it
			return ctx.Err()
		}
		c, log := crowd(t, 100, slow, 20*time.Second)
		for id, r := range c.Results() {
			if r.State != Unknown || r.Unable || !strings.Contains(r.LastError, "too busy") {
				t.Fatalf("check %s: %+v", id, r)
			}
		}
		if n := strings.Count(log, "level=WARN"); n != mentioned+1 {
			t.Errorf("%d lines in the log, want %d", n, mentioned+1)
		}
	})
}

func TestFirst(t *testing.T) {
	for _, tc := range []struct {
		interval time.Duration
		checks   int
		want     time.Duration
	}{
		{time.Second, 1, 100 * time.Millisecond},
		{time.Hour, 1, time.Second},
		{time.Second, 5000, time.Second},
		{2 * time.Second, 5000, time.Second},
		{100 * time.Millisecond, 5000, 100 * time.Millisecond},
		{time.Minute, 50000, 10 * time.Second},
	} {
		if got := first(tc.interval, tc.checks); got != tc.want {
			t.Errorf("%d checks every %v are first made within %v, want %v", tc.checks, tc.interval, got, tc.want)
		}
	}
}
