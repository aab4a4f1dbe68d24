package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"weir/lab/clab"
	"weir/lab/demo"
)

// A command that a signal has ended says so, whatever else has failed because of
// it; a time that is over is no signal.
func TestStatus(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{broken, 1},
		{demo.ErrFailed, 1},
		{demo.ErrInterrupted, 130},
		{context.DeadlineExceeded, 1},
		{errors.Join(fmt.Errorf("run: %w", &clab.CheckFailed{Script: "check", Status: 3}), broken), 3},
		{fmt.Errorf("measure: %w", errors.Join(broken, context.Canceled)), 130},
	} {
		if got := status(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}
