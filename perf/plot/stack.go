package plot

import (
	"errors"
	"fmt"
	"io"
)

// Stack is an image of several charts, one below the other.
type Stack struct {
	Title  string // of the image, which is not drawn: each chart has its own
	Charts []Bars
}

// WriteSVG draws the charts.
func (s Stack) WriteSVG(w io.Writer) error {
	c, height, err := s.draw()
	if err != nil {
		return err
	}
	return c.write(w, s.Title, height)
}

func (s *Stack) draw() (*canvas, float64, error) {
	if len(s.Charts) == 0 {
		return nil, 0, errors.New("draw chart: no charts")
	}
	all, height := new(canvas), 0.0
	for i := range s.Charts {
		c, h, err := s.Charts[i].draw()
		if err != nil {
			return nil, 0, fmt.Errorf("chart %q: %w", s.Charts[i].Title, err)
		}
		all.below(height, c)
		height += h
	}
	return all, height, nil
}

// below adds all that another canvas has, moved down.
func (c *canvas) below(y float64, other *canvas) {
	c.add("<g transform=\"translate(0 %s)\">\n%s</g>", num(y), other.elements.String())
	for _, t := range other.texts {
		t.top, t.bottom = t.top+y, t.bottom+y
		c.texts = append(c.texts, t)
	}
}
