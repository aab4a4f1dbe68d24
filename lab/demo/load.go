package demo

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/lab/traffic"
)

// What each stream asks for.
const (
	requestInterval = 25 * time.Millisecond
	requestTimeout  = 5 * time.Second // TCP repeats a SYN several times before
	pageSize        = 32 << 10        // bytes
)

// The client's ports are taken in turn from this range, all streams using
// different ones, so that it is known beforehand which connection a request will
// use, and that there is no second one like it. They last for [MaxDuration].
const (
	firstPort = 10000
	ports     = 50000
)

// load makes the requests until requesting is done; ctx breaks off those under
// way.
func (d *Demo) load(ctx, requesting context.Context) error {
	var group errgroup.Group
	for i, s := range d.streams {
		source := d.pair.Client4
		if s.vip.Addr().Is6() {
			source = d.pair.Client6
		}
		steady := traffic.NewSteady(traffic.SteadyConfig{
			Interval: requestInterval,
			Request: func(context.Context) traffic.Result {
				number := d.recorder.begin(i)
				local := netip.AddrPortFrom(source, firstPort+uint16((number*len(d.streams)+i)%ports))
				client := traffic.Client{Dial: d.pair.ClientHost.DialFrom(local), Timeout: requestTimeout}
				r := client.Fetch(ctx, s.vip, pageSize)
				r.Local = local // also of one that was never established
				return r
			},
			Each: func(r traffic.Result) { d.recorder.end(request{i, r}) },
		})
		group.Go(func() error { return steady.Run(requesting) })
	}
	return group.Wait()
}

// recorder keeps what became of all requests.
type recorder struct {
	mu      sync.Mutex
	started []int // by stream
	ended   []request
}

func newRecorder(streams int) *recorder { return &recorder{started: make([]int, streams)} }

// begin counts a request and returns its number within the stream.
func (r *recorder) begin(stream int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started[stream]++
	return r.started[stream] - 1
}

func (r *recorder) end(done request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, done)
}

// all returns the requests that have ended, in order of their ends.
func (r *recorder) all() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ended)
}

// idle waits until no request is under way.
func (r *recorder) idle(ctx context.Context) error {
	for {
		r.mu.Lock()
		underWay := -len(r.ended)
		for _, n := range r.started {
			underWay += n
		}
		r.mu.Unlock()
		if underWay == 0 {
			return nil
		}
		if err := sleepUntil(ctx, time.Now().Add(watchInterval)); err != nil {
			return err
		}
	}
}

// recent is over how long latencies are shown while the demo runs.
const recent = 5 * time.Second

// tally returns for each stream what its clients have seen until now; latencies
// are those of the last 5 seconds.
func (r *recorder) tally(now time.Time) []requestRow {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := make([]requestRow, len(r.started))
	took := make([][]time.Duration, len(r.started))
	for i, n := range r.started {
		rows[i].sent = n
	}
	for i := range r.ended {
		q := &r.ended[i]
		if q.Err != nil {
			rows[q.stream].failed++
			continue
		}
		rows[q.stream].answered++
		if now.Sub(q.end()) < recent {
			took[q.stream] = append(took[q.stream], q.Duration)
		}
	}
	for i := range rows {
		rows[i].latency = latencyOf(took[i])
	}
	return rows
}
