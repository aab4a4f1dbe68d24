package traffic

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// LoadConfig says what a load consists of.
type LoadConfig struct {
	Client      *Client        // its Timeout bounds connecting
	Target      netip.AddrPort // a VIP
	Connections int

	// Bytes is how much one transfer moves each way, 0: 16 KiB; Rate is how
	// fast it comes down, in bytes per second, 0: 64 KiB/s.
	Bytes, Rate int64

	// Stall is how long a transfer may take before it counts as broken, 0: the
	// time it should take at Rate and 10 seconds.
	Stall time.Duration
}

// Load keeps many long-lived TCP connections busy and notices each that breaks.
// Over each of them a download and an upload follow one another until Finish,
// all verified.
//
// A test makes its changes between Started and Finish. No time has to be
// guessed: a connection counts as started after a whole transfer, and as intact
// after another that began when Finish had been called.
type Load struct {
	config  LoadConfig
	started chan struct{} // closed when all connections have started or broken
	finish  chan struct{} // closed by Finish
	once    sync.Once     // closes finish

	mu      sync.Mutex
	report  LoadReport
	waiting int // connections that have neither started nor broken
}

// LoadReport is the state of a load at one moment.
type LoadReport struct {
	Active   int            // connections that are open and have started
	Intact   int            // connections that were verified to the end
	Broken   []Result       // connections that were not, in order of breaking
	Backends map[string]int // connections started, by the backend that has them
	Bytes    int64          // of payload verified
}

// NewLoad returns a load that does nothing yet.
func NewLoad(config LoadConfig) *Load {
	if config.Bytes == 0 {
		config.Bytes = 16 << 10
	}
	if config.Rate == 0 {
		config.Rate = 64 << 10
	}
	if config.Stall == 0 {
		config.Stall = 10*time.Second + time.Duration(float64(config.Bytes)/float64(config.Rate)*float64(time.Second))
	}
	return &Load{
		config:  config,
		started: make(chan struct{}),
		finish:  make(chan struct{}),
		waiting: config.Connections,
		report:  LoadReport{Backends: make(map[string]int)},
	}
}

// Run opens the connections and uses them until Finish, and returns an error if
// any of them broke, which [Load.Report] has in full. When ctx is done before,
// it stops at once and returns why. It may be called once.
func (l *Load) Run(ctx context.Context) error {
	if l.config.Connections < 1 {
		close(l.started)
		return fmt.Errorf("load on %s: %d connections, want 1 at least", l.config.Target, l.config.Connections)
	}
	var connections sync.WaitGroup
	for range l.config.Connections {
		connections.Go(func() { l.connection(ctx) })
	}
	connections.Wait()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("load on %s: %w", l.config.Target, err)
	}
	if broken := l.Report().Broken; len(broken) > 0 {
		return fmt.Errorf("load on %s: %d of %d connections broke, the first from %s by %q after %d bytes: %w", l.config.Target,
			len(broken), l.config.Connections, broken[0].Local, broken[0].Backend, broken[0].Bytes, broken[0].Err)
	}
	return nil
}

// Started returns a channel that is closed when every connection has made a
// whole transfer, or has broken.
func (l *Load) Started() <-chan struct{} { return l.started }

// Finish makes Run return once every connection has made another transfer. It
// may be called twice.
func (l *Load) Finish() { l.once.Do(func() { close(l.finish) }) }

// Report returns the state of now; after Run, the outcome. Connections that ctx
// cut off are neither intact nor broken.
func (l *Load) Report() LoadReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	report := l.report
	report.Broken = append([]Result(nil), report.Broken...)
	report.Backends = maps.Clone(report.Backends)
	return report
}

// connection lives one connection's life.
func (l *Load) connection(ctx context.Context) {
	started := false
	result := measure(l.config.Target, func(r *Result) error {
		s, err := l.open(ctx)
		if err != nil {
			return err
		}
		defer s.close()
		r.Local = s.local
		for {
			last := l.finishing()
			before := s.bytes
			err := l.transfer(ctx, s)
			r.Backend, r.Bytes = s.backend, s.bytes
			l.moved(s, s.bytes-before, !started && err == nil)
			if err != nil {
				return err
			}
			started = true
			if last {
				return nil
			}
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if started {
		l.report.Active--
	} else {
		l.settled()
	}
	switch {
	case result.Err == nil:
		l.report.Intact++
	case ctx.Err() == nil:
		l.report.Broken = append(l.report.Broken, result)
	}
}

func (l *Load) open(ctx context.Context) (*session, error) {
	ctx, cancel := l.config.Client.withTimeout(ctx)
	defer cancel()
	return l.config.Client.open(ctx, l.config.Target)
}

// transfer moves the bytes down, slowly, and then up.
func (l *Load) transfer(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.config.Stall, fmt.Errorf("stalled: no whole transfer in %v", l.config.Stall))
	defer cancel()
	if err := s.download(ctx, l.config.Bytes, l.config.Rate); err != nil {
		return err
	}
	return s.upload(ctx, l.config.Bytes)
}

func (l *Load) finishing() bool {
	select {
	case <-l.finish:
		return true
	default:
		return false
	}
}

// moved counts the bytes of a transfer, and the connection if it was its first.
func (l *Load) moved(s *session, n int64, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Bytes += n
	if first {
		l.report.Active++
		l.report.Backends[s.backend]++
		l.settled()
	}
}

// settled notes that one more connection has started or broken. The caller
// holds mu.
func (l *Load) settled() {
	if l.waiting--; l.waiting == 0 {
		close(l.started)
	}
}
