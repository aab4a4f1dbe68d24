package measure

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Spread is a median and how far the single values are from it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf returns the spread of a value over cells. It is zero without cells. The median of an even number is the mean of the
// two in the middle.
func SpreadOf[C any](cells []C, value func(*C) float64) Spread {
	var values []float64
	for i := range cells {
		values = append(values, value(&cells[i]))
	}
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	n := len(values)
	return Spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Min: values[0], Max: values[n-1]}
}

// GroupBy returns the cells of each key, in their order: those that are summed up in
// one row.
func GroupBy[C any, K comparable](cells []C, key func(*C) K) map[K][]C {
	groups := make(map[K][]C)
	for i := range cells {
		k := key(&cells[i])
		groups[k] = append(groups[k], cells[i])
	}
	return groups
}

// Format writes the median and, in brackets, smallest and largest.
func (s Spread) Format(scale float64, digits int) string {
	f := func(v float64) string { return fmt.Sprintf("%.*f", digits, v*scale) }
	return fmt.Sprintf("%s (%s-%s)", f(s.Median), f(s.Min), f(s.Max))
}

// disturbed is the share of time waited for a core from which on a measurement
// says little.
const disturbed = 0.01

// FormatWaited writes the share of time waited for a core, and marks it if most
// rounds, or some, say little.
func (s Spread) FormatWaited() string {
	switch text := s.Format(100, 1); {
	case s.Median > disturbed:
		return text + " disturbed"
	case s.Max > disturbed:
		return text + " disturbed in some rounds"
	default:
		return text
	}
}

// Table is a part of a report: a text, and a table below it, whose first line is its
// heading. It may be one of the two alone.
type Table struct {
	Title string
	Lines [][]string
}

// WriteText writes tables for a terminal.
func WriteText(w io.Writer, tables []Table) error {
	return write(w, tables, func(b *strings.Builder, lines [][]string) {
		t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		for _, line := range lines {
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
		t.Flush()
	})
}

// WriteMarkdown writes tables for a page.
func WriteMarkdown(w io.Writer, tables []Table) error {
	return write(w, tables, func(b *strings.Builder, lines [][]string) {
		b.WriteString("\n")
		for n, line := range lines {
			fmt.Fprintf(b, "| %s |\n", strings.Join(line, " | "))
			if n == 0 {
				fmt.Fprintf(b, "|%s\n", strings.Repeat(" --- |", len(line)))
			}
		}
	})
}

func write(w io.Writer, tables []Table, table func(*strings.Builder, [][]string)) error {
	var b strings.Builder
	for n, t := range tables {
		if n > 0 {
			b.WriteString("\n")
		}
		if t.Title != "" {
			fmt.Fprintln(&b, t.Title)
		}
		if len(t.Lines) > 0 {
			table(&b, t.Lines)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Round3 makes a rate readable in a log.
func Round3(perSecond float64) float64 { return math.Round(perSecond/1000) / 1000 }

// Binary writes a number with a prefix for binary multiples, if it is one
// (IEC 80000-13).
func Binary(n uint32) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d Mi", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d Ki", n>>10)
	}
	return fmt.Sprint(n)
}
