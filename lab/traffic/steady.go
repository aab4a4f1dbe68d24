package traffic

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// SteadyConfig says what a steady client does.
type SteadyConfig struct {
	Interval time.Duration // from the start of one request to that of the next

	// Request makes one request, for instance with [Client.Fetch] or
	// [Client.Echo]. Several may be under way at once, as many as its timeout
	// is intervals long.
	Request func(ctx context.Context) Result

	// Each is given every result, one at a time, in order of completion; nil:
	// only Results has them.
	Each func(Result)
}

// Steady makes a request at every interval, whether or not those before it have
// been answered: a client that waited would measure an outage as one slow
// request.
type Steady struct {
	config SteadyConfig

	each    sync.Mutex // held around Each, to call it one at a time
	mu      sync.Mutex // guards results
	results []Result
}

// NewSteady returns a steady client that does nothing yet.
func NewSteady(config SteadyConfig) *Steady { return &Steady{config: config} }

// Run makes requests until ctx is done, waits for those under way, and returns
// nil: failed requests are results, not errors.
func (s *Steady) Run(ctx context.Context) error {
	if s.config.Interval <= 0 || s.config.Request == nil {
		return fmt.Errorf("steady requests: want an interval and a request, interval is %v", s.config.Interval)
	}
	ticker := time.NewTicker(s.config.Interval)
	defer ticker.Stop()
	var underWay sync.WaitGroup
	defer underWay.Wait()
	for ctx.Err() == nil {
		underWay.Go(func() { s.record(s.config.Request(context.WithoutCancel(ctx))) })
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *Steady) record(r Result) {
	s.each.Lock()
	defer s.each.Unlock()
	s.mu.Lock()
	s.results = append(s.results, r)
	s.mu.Unlock()
	if s.config.Each != nil {
		s.config.Each(r)
	}
}

// Results returns all results so far, in order of completion.
func (s *Steady) Results() []Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.results)
}

// Summary is what many results amount to.
type Summary struct {
	Requests int
	Failed   int
	Backends map[string]int // requests that went well, by backend
	Slowest  time.Duration  // of those that went well

	// Outage is the longest time that requests failed in a row: from the start
	// of the first that failed to the start of the next that went well, or to
	// the end of the last if none did.
	Outage time.Duration

	// Gap is the longest time in which no request went well: from the end of one
	// that did to the end of the next. Without an outage it is about the interval.
	Gap time.Duration
}

// Summarize sums results up. Their order does not matter.
func Summarize(results []Result) Summary {
	results = slices.SortedFunc(slices.Values(results), func(a, b Result) int { return a.Start.Compare(b.Start) })
	sum := Summary{Requests: len(results), Backends: make(map[string]int)}
	var since, until time.Time // of the failures in a row
	failing := false
	for _, r := range results {
		if r.Err != nil {
			sum.Failed++
			if !failing {
				failing, since = true, r.Start
			}
			until = r.Start.Add(r.Duration)
			continue
		}
		if failing {
			failing, until = false, r.Start
			sum.Outage = max(sum.Outage, until.Sub(since))
		}
		sum.Backends[r.Backend]++
		sum.Slowest = max(sum.Slowest, r.Duration)
	}
	if failing {
		sum.Outage = max(sum.Outage, until.Sub(since))
	}
	sum.Gap = gap(results)
	return sum
}

func gap(results []Result) (longest time.Duration) {
	var ends []time.Time
	for _, r := range results {
		if r.Err == nil {
			ends = append(ends, r.Start.Add(r.Duration))
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	for i := 1; i < len(ends); i++ {
		longest = max(longest, ends[i].Sub(ends[i-1]))
	}
	return longest
}
