package demo

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/lab/site"
	"weir/lab/traffic"
)

// What long connections do.
const (
	longEach     = 10 // to each VIP
	longInterval = 200 * time.Millisecond
	longPayload  = 1000 // bytes, there and back
	longPort     = 9000 // of the client, and the next ones: no request uses them

	// longPatience is how long an echo may take: TCP repeats several times in it.
	longPatience = 10 * time.Second
)

// long is TCP connections that are opened before a weir is killed, and are used
// until the end.
type long struct {
	mu     sync.Mutex
	crowds []*traffic.Crowd
	report longReport
}

// longReport is what became of them.
type longReport struct {
	opened  int
	broken  []traffic.Result
	slowest time.Duration // echo; of those that are not broken
	ended   bool          // all have been used once more at the end
}

// open opens the connections and uses them until the function that is returned
// is called, which uses each once more.
func (d *Demo) openLong(ctx context.Context) (finish func() error, err error) {
	l := d.long
	for i, s := range d.streams {
		source := d.pair.Client4
		if s.vip.Addr().Is6() {
			source = d.pair.Client6
		}
		config := traffic.CrowdConfig{
			Streams: longEach, AtOnce: longEach, Target: netip.AddrPortFrom(s.vip.Addr(), site.StreamPort),
		}
		for n := range longEach {
			local := netip.AddrPortFrom(source, longPort+uint16(i*longEach+n))
			config.Clients = append(config.Clients, &traffic.Client{Dial: d.pair.ClientHost.DialFrom(local), Timeout: longPatience})
		}
		crowd, err := traffic.OpenCrowd(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("long connections to %s: %w", s.vip.Addr(), err)
		}
		l.mu.Lock()
		l.crowds, l.report.opened = append(l.crowds, crowd), l.report.opened+longEach
		l.mu.Unlock()
	}
	pulsing, stop := context.WithCancel(ctx)
	var pulses errgroup.Group
	for _, crowd := range l.crowds {
		for _, stream := range crowd.Streams() {
			pulses.Go(func() error {
				l.use(ctx, pulsing, stream)
				return nil
			})
		}
	}
	return func() error {
		stop()
		err := pulses.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.report.ended = ctx.Err() == nil
		for _, crowd := range l.crowds {
			_ = crowd.Close() // a reset counts as an error, and has been counted
		}
		return err
	}, nil
}

// use has one connection echo again and again until pulsing is done, and once
// more then.
func (l *long) use(ctx, pulsing context.Context, stream *traffic.Stream) {
	ticker := time.NewTicker(longInterval)
	defer ticker.Stop()
	payload := make([]byte, longPayload)
	for last := false; !last; {
		select {
		case <-ticker.C:
		case <-pulsing.Done():
			last = true
		}
		r := stream.Echo(ctx, payload)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		if r.Err != nil {
			l.report.broken = append(l.report.broken, r)
		} else {
			l.report.slowest = max(l.report.slowest, r.Duration)
		}
		l.mu.Unlock()
		if r.Err != nil {
			return
		}
	}
}

// outcome returns what has become of them so far.
func (l *long) outcome() longReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := l.report
	report.broken = append([]traffic.Result(nil), report.broken...)
	return report
}
