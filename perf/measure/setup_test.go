package measure

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestComplete(t *testing.T) {
	for _, test := range []struct {
		name  string
		setup Setup
		want  string
	}{
		{"negative rounds", Setup{Repeats: -1, CPUs: []int{0, 1}}, "-1 rounds"},
		{"negative window", Setup{Window: -time.Second, CPUs: []int{0, 1}}, "windows of -1s"},
		{"one cpu", Setup{CPUs: []int{0}}, "a cpu each"},
		{"the same cpu", Setup{CPUs: []int{1, 1}}, "a cpu each"},
		{"three cpus", Setup{CPUs: []int{0, 1, 2}}, "a cpu each"},
	} {
		if err := test.setup.Complete(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	s := Setup{CPUs: []int{0, 1}}
	if err := s.Complete(); err != nil || s.Repeats < 1 || s.Window <= 0 || s.Seed == 0 || s.Log == nil || s.Program == "" {
		t.Errorf("%+v, %v", s, err)
	}
	if one := (Setup{CPUs: []int{0}}); one.CompleteWithoutCPUs() != nil {
		t.Error("one cpu is not enough, where none is needed")
	}
}

// Every cell has its turn once in a round, in another order in each, which is that
// of the seed; the log counts them; and the first error ends it.
func TestRounds(t *testing.T) {
	const repeats = 4
	cells := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	run := func(seed uint64) (orders [repeats][]int, log string) {
		var b bytes.Buffer
		s := Setup{Repeats: repeats, Seed: seed, Log: slog.New(slog.NewTextHandler(&b, nil))}
		before := s.Log
		err := Rounds(&s, cells, func(round, cell int) error {
			orders[round-1] = append(orders[round-1], cell)
			s.Log.Info("measured")
			return nil
		})
		if err != nil || s.Log != before {
			t.Errorf("error %v, log %v, was %v", err, s.Log, before)
		}
		return orders, b.String()
	}
	orders, log := run(1)
	for i, order := range orders {
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, cells) || slices.Equal(order, cells) || i > 0 && slices.Equal(order, orders[i-1]) {
			t.Errorf("round %d: %v", i+1, order)
		}
	}
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != repeats*len(cells) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		if want := fmt.Sprintf(" progress=%d/%d", i+1, len(lines)); !strings.HasSuffix(line, want) {
			t.Errorf("%q, want %q", line, want)
		}
	}
	again, _ := run(1)
	if other, _ := run(2); !slices.Equal(again[0], orders[0]) || slices.Equal(other[0], orders[0]) {
		t.Errorf("of seed 1 %v and %v, of seed 2 %v", orders[0], again[0], other[0])
	}
	broken, calls := errors.New("broken"), 0
	err := Rounds(&Setup{Repeats: repeats}, cells, func(int, int) error {
		if calls++; calls == 3 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
