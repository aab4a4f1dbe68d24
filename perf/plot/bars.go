package plot

import (
	"fmt"
	"io"
)

// Bars is a chart of groups of bars, which lie, so that their names have room.
type Bars struct {
	Title  string
	Note   string   // what a reader has to know, in a smaller type
	Unit   string   // of the values, such as "Mpps"
	Series []string // what the bars of a group are
	Groups []Group
}

// Group is what is compared with other groups.
type Group struct {
	Name   string
	Values []Value // for each series; None for no bar
}

const (
	bar      = 15 // height of a bar
	barGap   = 3
	groupGap = 12
	barText  = 11

	maxName = width / 2 // of a group, in pixels
)

func (b *Bars) check() error {
	var names []string
	for _, g := range b.Groups {
		names = append(names, g.Name)
		if textWidth(g.Name, size) > maxName {
			return fmt.Errorf("draw chart: the name %q has no room", g.Name)
		}
		if len(g.Values) != len(b.Series) {
			return fmt.Errorf("draw chart: %d values in group %s, and %d series", len(g.Values), g.Name, len(b.Series))
		}
		for _, v := range g.Values {
			if err := v.check(); err != nil {
				return fmt.Errorf("draw chart: group %s: %w", g.Name, err)
			}
		}
	}
	if err := checkNames("series", b.Series); err != nil {
		return err
	}
	return checkNames("groups", names)
}

// WriteSVG draws the chart.
func (b Bars) WriteSVG(w io.Writer) error {
	c, height, err := b.draw()
	if err != nil {
		return err
	}
	return c.write(w, b.Title, height)
}

func (b *Bars) draw() (*canvas, float64, error) {
	if err := b.check(); err != nil {
		return nil, 0, err
	}
	c := new(canvas)
	top := c.header(b.Title, b.Note, b.Series, func(n int, x, y float64) { c.rect(x, y-6, 14, 12, colour(n)) })

	most, names := 0.0, 0.0
	height := float64(groupGap)
	for _, g := range b.Groups {
		names = max(names, textWidth(g.Name, size))
		for _, v := range g.Values {
			if !v.none() {
				most = max(most, v.High)
				height += bar + barGap
			}
		}
		height += groupGap
	}
	scale := ticks(most)
	left := margin + names + tickGap
	right := float64(width - margin - 80) // for the last bar's value
	x := func(v float64) float64 { return left + (right-left)*v/scale[len(scale)-1] }

	for _, t := range scale {
		c.line(x(t), top, x(t), top+height, 1, grid, "")
		c.text(x(t), top+height+line, size, faint, "middle", tick(t))
	}
	c.line(left, top, left, top+height, 1, faint, "")
	c.text((left+right)/2, top+height+2*line+2, size, ink, "middle", b.Unit)

	y := top + groupGap
	for _, g := range b.Groups {
		first := y
		for n, v := range g.Values {
			if v.none() {
				continue
			}
			c.rect(left, y, x(v.Y)-left, bar, colour(n))
			middle := y + bar/2.0
			if v.Low < v.High {
				c.line(x(v.Low), middle, x(v.High), middle, 1.5, ink, "")
				c.line(x(v.Low), middle-4, x(v.Low), middle+4, 1.5, ink, "")
				c.line(x(v.High), middle-4, x(v.High), middle+4, 1.5, ink, "")
			}
			c.text(x(v.High)+6, middle+4, barText, ink, "start", label(v.Y))
			y += bar + barGap
		}
		c.text(left-tickGap, (first+y-barGap)/2+4, size, ink, "end", g.Name)
		y += groupGap
	}
	return c, top + height + 2*line + margin, nil
}
