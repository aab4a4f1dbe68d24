package measure

import (
	"context"
	"fmt"
	"time"
)

// Sleep waits, or returns the error of ctx if that ends before.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

const (
	quiet       = 30 * time.Millisecond // without a frame: nothing more will come
	quietWithin = 5 * time.Second
)

// Settle waits until no frames move any more, which is when counts, of those
// that were sent and arrived, stay the same. Looking may take its time.
func Settle[C comparable](ctx context.Context, counts func() (C, error)) error {
	last, err := counts()
	if err != nil {
		return err
	}
	since := time.Now()
	for deadline := since.Add(quietWithin); ; {
		if err := Sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		now, err := counts()
		switch {
		case err != nil:
			return err
		case now == last && time.Since(since) >= quiet:
			return nil
		case now == last:
		case time.Now().After(deadline):
			return fmt.Errorf("frames still move %v after the generator was told to be silent", quietWithin)
		default:
			last, since = now, time.Now()
		}
	}
}

// Loss is the share of what was offered that was not delivered. In a part of the
// time that traffic lasts it may be below 0, for what was offered before.
func Loss(offered, delivered uint64) float64 {
	if offered == 0 {
		return 0
	}
	return 1 - float64(delivered)/float64(offered)
}
