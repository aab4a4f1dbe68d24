package bgp

import (
	"testing"
	"time"
)

// A session that fails again and again is tried in a hurry first, and then less and
// less often; one that has lasted begins anew.
func TestBackOff(t *testing.T) {
	const s = time.Second
	for retry, want := range map[time.Duration][]time.Duration{
		s:       {0, 0, 0, 7 * s, 14 * s, 28 * s, 56 * s, 60 * s, 60 * s},
		5 * s:   {0, 3 * s, 3 * s, 7 * s, 14 * s, 28 * s, 56 * s, 60 * s, 60 * s},
		120 * s: {-1, -1, -1, 120 * s, 120 * s},
		20 * s:  {-1, -1, -1, 20 * s, 40 * s, 60 * s, 60 * s},
	} {
		x := newSession(preparedPeer{Peer: Peer{ConnectRetry: retry}}, time.Unix(0, 0))
		now := time.Unix(1000, 0)
		for i, wait := range want {
			x.redialAt, x.resting = time.Time{}, false
			x.refused(note{}, now)
			got := x.redialAt.Sub(now)
			if x.redialAt.IsZero() {
				got = -1 // at gobgp's pace
			}
			if got != wait || x.resting != (i >= hurried) {
				t.Errorf("connect retry %v, failure %d: again after %v, resting %v; want %v", retry, i+1, got, x.resting, wait)
			}
		}
		x.up(now)
		x.lost(note{}, now.Add(time.Hour))
		if x.failures != 1 || x.resting {
			t.Errorf("connect retry %v: lost after an hour, it counts %d failures", retry, x.failures)
		}
	}
}
