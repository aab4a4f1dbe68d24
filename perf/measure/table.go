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

// WriteText writes a table for a terminal.
func WriteText(w io.Writer, conditions string, table [][]string) error {
	if _, err := fmt.Fprintln(w, conditions); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range table {
		fmt.Fprintln(t, strings.Join(line, "\t"))
	}
	return t.Flush()
}

// WriteMarkdown writes a table for a page.
func WriteMarkdown(w io.Writer, conditions string, table [][]string) error {
	var b strings.Builder
	for n, line := range table {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		if n == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat(" --- |", len(line)))
		}
	}
	_, err := fmt.Fprintf(w, "%s\n\n%s", conditions, b.String())
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
