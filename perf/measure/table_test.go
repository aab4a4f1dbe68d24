package measure

import (
	"io"
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

// Texts are above their tables, with a line between what does not belong together,
// and what is written twice is the same twice, also a table with room behind its
// last line, which it shares with its maker.
func TestWriteTables(t *testing.T) {
	lines := append(make([][]string, 0, 8), []string{"what", "ns"}, []string{"hit", "40"}, []string{"go map", "100"})
	tables := []Table{{Title: "Here:", Lines: lines}, {Title: "There:\nMuch."}, {Lines: lines[:1]}}
	for _, test := range []struct {
		name  string
		write func(io.Writer, []Table) error
		want  string
	}{
		{"markdown", WriteMarkdown, "Here:\n\n| what | ns |\n| --- | --- |\n| hit | 40 |\n| go map | 100 |\n\nThere:\nMuch.\n\n\n| what | ns |\n| --- | --- |\n"},
		{"text", WriteText, "Here:\nwhat    ns\nhit     40\ngo map  100\n\nThere:\nMuch.\n\nwhat  ns\n"},
	} {
		for range 2 {
			var b strings.Builder
			if err := test.write(&b, tables); err != nil || b.String() != test.want {
				t.Errorf("%s: %v\n%s\nwant\n%s", test.name, err, &b, test.want)
			}
		}
	}
	if got := strings.Join(slices.Concat(lines...), " "); got != "what ns hit 40 go map 100" || lines[:4][3] != nil {
		t.Errorf("the table is now %q and, behind it, %q", got, lines[:4][3])
	}
}
