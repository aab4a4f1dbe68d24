package measure

import (
	"context"
	"errors"
	"testing"
)

func TestLoss(t *testing.T) {
	for _, test := range []struct {
		offered, delivered uint64
		want               float64
	}{
		{0, 0, 0}, {0, 5, 0}, {4, 4, 0}, {4, 3, 0.25}, {4, 0, 1}, {4, 5, -0.25},
	} {
		if got := Loss(test.offered, test.delivered); got != test.want {
			t.Errorf("%d of %d: %g, want %g", test.delivered, test.offered, got, test.want)
		}
	}
}

// Settling lasts as long as something moves, and longer than one look.
func TestSettle(t *testing.T) {
	looks := 0
	err := Settle(t.Context(), func() (int, error) {
		looks++
		return min(looks, 10), nil
	})
	if err != nil || looks < 12 {
		t.Errorf("settled after %d looks, of which the first ten differed: %v", looks, err)
	}

	broken := errors.New("broken")
	if err := Settle(t.Context(), func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("nobody could look: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	moves := 0
	err = Settle(ctx, func() (int, error) {
		if moves++; moves == 3 {
			cancel()
		}
		return moves, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it was to end while something moved: %v", err)
	}
}
