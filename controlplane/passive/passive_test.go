package passive

import (
	"slices"
	"testing"
	"time"
)

func TestLook(t *testing.T) {
	type look struct {
		after   time.Duration // since the look before
		counts  Counts
		suspect bool
	}
	const s = time.Second
	for name, looks := range map[string][]look{
		"the first look is where counting begins": {
			{s, Counts{Opened: 100}, false},
			{s, Counts{Opened: 100}, false},
			{s, Counts{Opened: 100}, false},
		},
		"unanswered": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 13, Established: 10}, false}, // they may still be under way
			{s, Counts{Opened: 13, Established: 10}, true},
		},
		"too few": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 12, Established: 10}, false},
			{9 * s, Counts{Opened: 12, Established: 10}, false},
			{s, Counts{Opened: 13, Established: 10}, true}, // the third one, seconds later
		},
		"one that succeeds is enough": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 20, Established: 11}, false},
			{s, Counts{Opened: 30, Established: 12}, false},
			{s, Counts{Opened: 30, Established: 12}, false},
		},
		"answered, and all reset": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 14, Established: 14, Resets: 4}, false},
			{s, Counts{Opened: 15, Established: 15, Resets: 5}, true},
		},
		"refused, then good again": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 15, Established: 10, Resets: 15}, false},
			{s, Counts{Opened: 15, Established: 10, Resets: 15}, true},
			{9 * s, Counts{Opened: 18, Established: 11, Resets: 15}, false},
			{9 * s, Counts{Opened: 18, Established: 11, Resets: 15}, false},
		},
		"left alone for a while": {
			{s, Counts{}, false},
			{s, Counts{Opened: 3}, false},
			{s, Counts{Opened: 6}, true},
			{s, Counts{Opened: 9}, false},
			{2 * s, Counts{Opened: 12}, false},
			{2 * s, Counts{Opened: 15}, true},
		},
		"counts start anew": {
			{s, Counts{Opened: 10, Established: 10}, false},
			{s, Counts{Opened: 12, Established: 10}, false},
			{s, Counts{Opened: 1, Established: 0}, false},
			{s, Counts{Opened: 2, Established: 0}, false},
			{s, Counts{Opened: 3, Established: 0}, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, now := New(), time.Unix(1000, 0)
			for i, l := range looks {
				now = now.Add(l.after)
				got := d.Look(now, map[string]Counts{"web b1": l.counts, "web b2": {Opened: 5, Established: 5}})
				if want := []string{"web b1"}; l.suspect != slices.Equal(got, want) || !l.suspect && len(got) > 0 {
					t.Fatalf("look %d: suspected %v, want suspected: %v", i, got, l.suspect)
				}
			}
		})
	}
}

func TestForgetsWhoIsGone(t *testing.T) {
	d, now := New(), time.Unix(1000, 0)
	d.Look(now, map[string]Counts{"a": {}})
	d.Look(now, nil)
	if len(d.backends) != 0 {
		t.Errorf("still knows %v", d.backends)
	}
	if got := d.Look(now.Add(time.Hour), map[string]Counts{"a": {Opened: 100}}); len(got) != 0 {
		t.Errorf("suspected %v by counts of before it was known", got)
	}
}
