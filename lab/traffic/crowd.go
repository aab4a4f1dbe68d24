package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// CrowdConfig says what a crowd consists of.
type CrowdConfig struct {
	// Clients open the streams, in turn. A client address has ports for some
	// ten thousand.
	Clients []*Client

	Target  netip.AddrPort // of a server's streams
	Streams int
	AtOnce  int // how many are opened, or asked, at the same time; 0: 1
}

// Crowd is many TCP connections that are open at the same time.
type Crowd struct {
	config  CrowdConfig
	streams []*Stream
}

// OpenCrowd opens all streams of a crowd. It fails if one of them does.
func OpenCrowd(ctx context.Context, config CrowdConfig) (*Crowd, error) {
	c := &Crowd{config: config, streams: make([]*Stream, config.Streams)}
	err := c.each(func(i int) (err error) {
		c.streams[i], err = config.Clients[i%len(config.Clients)].OpenStream(ctx, config.Target)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open crowd: %w", err), c.Close())
	}
	return c, nil
}

// each calls f for every stream, and stops after an error.
func (c *Crowd) each(f func(i int) error) error {
	var next, failed atomic.Int64
	var first error
	var once sync.Once
	var callers sync.WaitGroup
	for range max(c.config.AtOnce, 1) {
		callers.Go(func() {
			for failed.Load() == 0 {
				i := int(next.Add(1)) - 1
				if i >= len(c.streams) {
					return
				}
				if err := f(i); err != nil {
					failed.Add(1)
					once.Do(func() { first = fmt.Errorf("stream %d of %d: %w", i+1, len(c.streams), err) })
				}
			}
		})
	}
	callers.Wait()
	return first
}

// Streams returns the streams, which are the crowd's to close.
func (c *Crowd) Streams() []*Stream { return c.streams }

// Echo sends a payload over every stream and verifies what comes back.
func (c *Crowd) Echo(ctx context.Context, payload []byte) error {
	return c.each(func(i int) error { return c.streams[i].Echo(ctx, payload).Err })
}

// Pulse has every stream echo a payload at an interval until ctx is done, and
// returns of each the echo that took longest or, as a stream is of no use then,
// that failed. It waits for those under way when ctx is done.
func (c *Crowd) Pulse(ctx context.Context, interval time.Duration, payload []byte) []Result {
	worst := make([]Result, len(c.streams))
	var pulses sync.WaitGroup
	for i, stream := range c.streams {
		pulses.Go(func() {
			ticker := time.NewTicker(interval)
			defer ticker.Stop()
			for {
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return
				}
				r := stream.Echo(context.WithoutCancel(ctx), payload)
				if r.Err != nil || r.Duration > worst[i].Duration {
					worst[i] = r
				}
				if r.Err != nil {
					return
				}
			}
		})
	}
	pulses.Wait()
	return worst
}

// Close closes all streams.
func (c *Crowd) Close() error {
	var errs []error
	for _, s := range c.streams {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
