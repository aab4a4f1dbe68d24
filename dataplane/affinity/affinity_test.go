package affinity

import (
	"slices"
	"testing"
)

func TestPossible(t *testing.T) {
	allowed, err := Allowed()
	if err != nil {
		t.Fatal(err)
	}
	possible, err := Possible()
	if err != nil {
		t.Fatal(err)
	}
	for _, cpu := range allowed {
		if !slices.Contains(possible, cpu) {
			t.Errorf("cpu %d is allowed and not possible: %v", cpu, possible)
		}
	}
	if after, err := Allowed(); err != nil || !slices.Equal(after, allowed) {
		t.Errorf("%v are allowed now, before it was %v: %v", after, allowed, err)
	}
}

// The numbers are those of gcControllerState.startCycle: 1, 2, 3 and 6 are the ones
// for which it has the collector share the Ps of all.
func TestEnoughProcs(t *testing.T) {
	for _, test := range []struct{ workers, others, want int }{
		{1, 1, 4}, {1, 3, 4}, {2, 1, 4}, {2, 2, 4}, {2, 4, 7}, {4, 4, 8}, {7, 1, 11}, {8, 56, 64}, {15, 1, 21},
	} {
		if got := enoughProcs(test.workers, test.others); got != test.want {
			t.Errorf("%d workers and %d others: %d, want %d", test.workers, test.others, got, test.want)
		}
	}
}
