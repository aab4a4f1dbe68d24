package plot

import (
	"fmt"
	"io"
	"math"
)

// Lines is a chart of values over a logarithmic axis.
type Lines struct {
	Title  string
	Note   string // what a reader has to know, in a smaller type
	XLabel string
	YLabel string // with its unit
	Ticks  []Tick // of the x axis, from left to right; there has to be one for each point
	Lines  []Line
	Marks  []Mark
}

// Tick is a place on the x axis.
type Tick struct {
	X     float64 // above 0
	Label string
}

// Line is a series of values.
type Line struct {
	Name   string
	Values []Value // at each of the ticks; None for no point
}

// Mark is a target: crosses at some of the ticks.
type Mark struct {
	Name   string
	Values []float64 // at each of the ticks; NaN for none
}

// plotHeight is that of the lines' area.
const plotHeight = 340

func (l *Lines) check() error {
	for i, t := range l.Ticks {
		if !(t.X > 0) || i > 0 && t.X <= l.Ticks[i-1].X {
			return fmt.Errorf("draw chart: tick %q at %v: ticks rise, from above 0", t.Label, t.X)
		}
	}
	var names []string
	for _, s := range l.Lines {
		names = append(names, s.Name)
		if len(s.Values) != len(l.Ticks) {
			return fmt.Errorf("draw chart: %d values in line %s, and %d ticks", len(s.Values), s.Name, len(l.Ticks))
		}
		for _, v := range s.Values {
			if err := v.check(); err != nil {
				return fmt.Errorf("draw chart: line %s: %w", s.Name, err)
			}
		}
	}
	for _, m := range l.Marks {
		names = append(names, m.Name)
		if len(m.Values) != len(l.Ticks) {
			return fmt.Errorf("draw chart: %d values in mark %s, and %d ticks", len(m.Values), m.Name, len(l.Ticks))
		}
	}
	if len(l.Ticks) == 0 {
		return fmt.Errorf("draw chart: no ticks")
	}
	return checkNames("lines", names)
}

// WriteSVG draws the chart.
func (l Lines) WriteSVG(w io.Writer) error {
	c, height, err := l.draw()
	if err != nil {
		return err
	}
	return c.write(w, l.Title, height)
}

func (l *Lines) draw() (*canvas, float64, error) {
	if err := l.check(); err != nil {
		return nil, 0, err
	}
	c := new(canvas)
	var names []string
	most := 0.0
	for _, s := range l.Lines {
		names = append(names, s.Name)
		for _, v := range s.Values {
			if !v.none() {
				most = max(most, v.High)
			}
		}
	}
	for _, m := range l.Marks {
		names = append(names, m.Name)
		for _, v := range m.Values {
			if !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	top := c.header(l.Title, l.Note, names, func(n int, x, y float64) {
		if n >= len(l.Lines) {
			c.cross(x+8, y, markColour(n-len(l.Lines)))
			return
		}
		c.line(x, y, x+16, y, 2, colour(n), dash(n))
		c.circle(x+8, y, 3, colour(n))
	})

	scale := ticks(most)
	labels := 0.0
	for _, t := range scale {
		labels = max(labels, textWidth(tick(t), size))
	}
	left := margin + line + labels + tickGap
	right := float64(width - margin - 40)
	bottom := top + plotHeight
	y := func(v float64) float64 { return bottom - plotHeight*v/scale[len(scale)-1] }
	first, last := math.Log(l.Ticks[0].X), math.Log(l.Ticks[len(l.Ticks)-1].X)
	x := func(v float64) float64 {
		const inset = 24
		if first == last {
			return (left + right) / 2
		}
		return left + inset + (right-left-2*inset)*(math.Log(v)-first)/(last-first)
	}

	for _, t := range scale {
		c.line(left, y(t), right, y(t), 1, grid, "")
		c.text(left-tickGap, y(t)+4, size, faint, "end", tick(t))
	}
	for _, t := range l.Ticks {
		c.line(x(t.X), top, x(t.X), bottom, 1, grid, "")
		c.text(x(t.X), bottom+line, size, faint, "middle", t.Label)
	}
	c.line(left, bottom, right, bottom, 1, faint, "")
	c.line(left, top, left, bottom, 1, faint, "")
	c.text((left+right)/2, bottom+2*line+2, size, ink, "middle", l.XLabel)
	c.upright(margin+size, (top+bottom)/2, ink, l.YLabel)

	for n, s := range l.Lines {
		l.drawLine(c, n, s, x, y)
	}
	for n, m := range l.Marks {
		for i, v := range m.Values {
			if !math.IsNaN(v) {
				c.cross(x(l.Ticks[i].X), y(v), markColour(n))
			}
		}
	}
	return c, bottom + 2*line + margin, nil
}

// markColour is that of the line with the same number: a mark is its target.
func markColour(n int) string { return colour(n) }

func (l *Lines) drawLine(c *canvas, n int, s Line, x, y func(float64) float64) {
	var points []float64
	flush := func() {
		if len(points) > 2 {
			c.polyline(points, colour(n), dash(n))
		}
		points = nil
	}
	for i, v := range s.Values {
		if v.none() {
			flush()
			continue
		}
		points = append(points, x(l.Ticks[i].X), y(v.Y))
	}
	flush()
	for i, v := range s.Values {
		if v.none() {
			continue
		}
		at := x(l.Ticks[i].X)
		if v.Low < v.High {
			c.line(at, y(v.Low), at, y(v.High), 1, colour(n), "")
		}
		c.circle(at, y(v.Y), 3, colour(n))
	}
}
