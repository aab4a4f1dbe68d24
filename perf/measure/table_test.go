package measure

import (
	"slices"
	"strings"
	"testing"
)

func TestFormatWaited(t *testing.T) {
	for _, test := range []struct {
		waited Spread
		want   string
	}{
		{Spread{}, "0.0 (0.0-0.0)"},
		{Spread{Median: 0.004, Min: 0.001, Max: 0.01}, "0.4 (0.1-1.0)"},
		{Spread{Median: 0.009, Min: 0.001, Max: 0.9}, "0.9 (0.1-90.0) disturbed in some rounds"},
		{Spread{Median: 0.02, Min: 0.001, Max: 0.9}, "2.0 (0.1-90.0) disturbed"},
	} {
		if got := test.waited.FormatWaited(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.waited, got, test.want)
		}
	}
}

// A table that is written twice is the same twice, also one with room behind its
// last line, which the table shares with its maker.
func TestWriteTables(t *testing.T) {
	table := append(make([][]string, 0, 8), []string{"what", "ns"}, []string{"hit", "40"}, []string{"go map", "100"})
	for _, test := range []struct {
		name  string
		write func(*strings.Builder) error
		want  string
	}{
		{"markdown", func(b *strings.Builder) error { return WriteMarkdown(b, "Here:", table) },
			"Here:\n\n| what | ns |\n| --- | --- |\n| hit | 40 |\n| go map | 100 |\n"},
		{"text", func(b *strings.Builder) error { return WriteText(b, "Here:", table) },
			"Here:\nwhat    ns\nhit     40\ngo map  100\n"},
	} {
		for range 2 {
			var b strings.Builder
			if err := test.write(&b); err != nil || b.String() != test.want {
				t.Errorf("%s: %v\n%s\nwant\n%s", test.name, err, &b, test.want)
			}
		}
	}
	if got := strings.Join(slices.Concat(table[:3:3]...), " "); got != "what ns hit 40 go map 100" || table[:4][3] != nil {
		t.Errorf("the table is now %q and, behind it, %q", got, table[:4][3])
	}
}
