// Package plot draws charts as SVG: bars, and lines over a logarithmic axis.
//
// The problem it solves: a chart on a page has to be that of the measurement
// beside it. So charts are made from reports by a program, and never by hand; the
// same report makes the same bytes, so that a test can tell whether the one on
// the page is out of date. They are read on white pages and on dark ones, and
// bring their background along.
//
// SVG is written as SVG 1.1 says (https://www.w3.org/TR/SVG11/), without scripts,
// style sheets and fonts of its own, since pages that embed it forbid them.
package plot

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// Value is a value with its spread. A chart begins at zero, and all values have to
// be above.
type Value struct{ Y, Low, High float64 }

// None is in the place of a value that there is not.
func None() Value { return Value{math.NaN(), math.NaN(), math.NaN()} }

func (v Value) none() bool { return math.IsNaN(v.Y) }

func (v Value) check() error {
	if v.none() {
		return nil
	}
	for _, y := range []float64{v.Y, v.Low, v.High} {
		if math.IsNaN(y) || math.IsInf(y, 0) || y < 0 {
			return fmt.Errorf("value %v: it cannot be drawn", y)
		}
	}
	if v.Low > v.Y || v.Y > v.High {
		return fmt.Errorf("value %v is not from %v to %v", v.Y, v.Low, v.High)
	}
	return nil
}

// Sizes, in pixels of an unscaled image.
const (
	width   = 860
	margin  = 16
	size    = 12 // of text
	title   = 16
	line    = 18 // of text, from baseline to baseline
	tickGap = 8  // between an axis and its labels
)

// Colours that can be told apart with any kind of colour vision (Okabe and Ito,
// Color Universal Design, 2008), but for its yellow, which is too bright on white.
var colours = [...]string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5539", "#595959"}

const (
	background = "#ffffff"
	frame      = "#d0d7de"
	grid       = "#e6e8eb"
	ink        = "#1f2328"
	faint      = "#59636e"
)

// colour returns that of a series.
func colour(n int) string { return colours[n%len(colours)] }

// dash returns the stroke of a series, since there are more of them than colours.
func dash(n int) string {
	return [...]string{"", "6 3", "2 3"}[n/len(colours)%3]
}

// header draws title and legend, and returns where the rest begins.
func (c *canvas) header(name, note string, series []string, symbol func(n int, x, y float64)) float64 {
	y := float64(margin + title)
	c.text(margin, y, title, ink, "start", name)
	if note != "" {
		for _, part := range wrap(note, width-2*margin) {
			y += line
			c.text(margin, y, size, faint, "start", part)
		}
	}
	if len(series) < 2 {
		return y + line
	}
	const swatch, gap = 22, 18
	y += line + 4
	x := float64(margin)
	for n, s := range series {
		w := swatch + textWidth(s, size) + gap
		if x > margin && x+w-gap > width-margin {
			x, y = margin, y+line
		}
		symbol(n, x, y-4)
		c.text(x+swatch, y, size, ink, "start", s)
		x += w
	}
	return y + line
}

// ticks returns round numbers from 0 to at least most, some five of them.
func ticks(most float64) []float64 {
	if most <= 0 {
		most = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*step*6 >= most {
			step *= f
			break
		}
	}
	var all []float64
	for n := 0; ; n++ {
		all = append(all, float64(n)*step)
		if all[n] >= most*(1-1e-9) {
			return all
		}
	}
}

// Chart is anything that can be drawn.
type Chart interface{ WriteSVG(w io.Writer) error }

// checkNames fails if a chart has nothing to draw, or two things of one name.
func checkNames(what string, names []string) error {
	if len(names) == 0 {
		return errors.New("draw chart: no " + what)
	}
	sorted := slices.Sorted(slices.Values(names))
	if len(slices.Compact(sorted)) < len(names) {
		return fmt.Errorf("draw chart: two %s have the same name: %q", what, names)
	}
	return nil
}
