package plot

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// canvas collects the elements of an image, whose height is known in the end.
type canvas struct {
	elements strings.Builder
	texts    []box
}

// box is about where a text is.
type box struct {
	left, top, right, bottom float64
	text                     string
}

// glyph is how wide a letter is, in sizes of the text, on average and with some to
// spare: which font a reader has is not known.
const glyph = 0.58

func textWidth(s string, size float64) float64 {
	return float64(utf8.RuneCountInString(s)) * size * glyph
}

// wrap breaks text into lines of a width.
func wrap(s string, width float64) (lines []string) {
	for _, word := range strings.Fields(s) {
		if n := len(lines); n > 0 && textWidth(lines[n-1]+" "+word, size) <= width {
			lines[n-1] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// text draws a text at a baseline. anchor is start, middle or end.
func (c *canvas) text(x, y, size float64, fill, anchor, s string) {
	w := textWidth(s, size)
	left := x
	switch anchor {
	case "middle":
		left -= w / 2
	case "end":
		left -= w
	}
	c.texts = append(c.texts, box{left, y - size*0.8, left + w, y + size*0.25, s})
	c.add("<text x=%q y=%q font-size=%q fill=%q text-anchor=%q>%s</text>", num(x), num(y), num(size), fill, anchor, escape(s))
}

// upright draws a text that is read from below, centred at a point.
func (c *canvas) upright(x, y float64, fill, s string) {
	w := textWidth(s, size)
	c.texts = append(c.texts, box{x - size*0.8, y - w/2, x + size*0.25, y + w/2, s})
	c.add("<text font-size=%q fill=%q text-anchor=\"middle\" transform=\"translate(%s %s) rotate(-90)\">%s</text>",
		num(size), fill, num(x), num(y), escape(s))
}

func (c *canvas) line(x1, y1, x2, y2, width float64, stroke, dash string) {
	c.add("<line x1=%q y1=%q x2=%q y2=%q stroke=%q stroke-width=%q%s/>", num(x1), num(y1), num(x2), num(y2), stroke, num(width), dashes(dash))
}

func (c *canvas) rect(x, y, w, h float64, fill string) {
	c.add("<rect x=%q y=%q width=%q height=%q fill=%q/>", num(x), num(y), num(w), num(h), fill)
}

func (c *canvas) circle(x, y, r float64, fill string) {
	c.add("<circle cx=%q cy=%q r=%q fill=%q/>", num(x), num(y), num(r), fill)
}

// cross draws what marks a target.
func (c *canvas) cross(x, y float64, stroke string) {
	const r = 5
	c.line(x-r, y-r, x+r, y+r, 2, stroke, "")
	c.line(x-r, y+r, x+r, y-r, 2, stroke, "")
}

func (c *canvas) polyline(points []float64, stroke, dash string) {
	var at []string
	for i := 0; i+1 < len(points); i += 2 {
		at = append(at, num(points[i])+","+num(points[i+1]))
	}
	c.add("<polyline points=%q fill=\"none\" stroke=%q stroke-width=\"2\"%s/>", strings.Join(at, " "), stroke, dashes(dash))
}

// add adds an element. Of what goes into it, only texts are not this package's own.
func (c *canvas) add(format string, args ...any) {
	fmt.Fprintf(&c.elements, format+"\n", args...)
}

// write writes the image.
func (c *canvas) write(w io.Writer, name string, height float64) error {
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%s" viewBox="0 0 %d %s" role="img" font-family="sans-serif">
<title>%s</title>
<rect x="0.5" y="0.5" width="%s" height="%s" rx="6" fill="%s" stroke="%s"/>
%s</svg>
`, width, num(height), width, num(height), escape(name), num(width-1), num(height-1), background, frame, c.elements.String())
	if err != nil {
		return fmt.Errorf("write chart: %w", err)
	}
	return nil
}

// num writes a coordinate, to a tenth of a pixel.
func num(v float64) string {
	s := strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
	if s == "-0" {
		return "0"
	}
	return s
}

// tick writes a round number.
func tick(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// label writes a value with three digits, or all that are before the point.
func label(v float64) string {
	switch {
	case v >= 99.95 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func dashes(dash string) string {
	if dash == "" {
		return ""
	}
	return fmt.Sprintf(" stroke-dasharray=%q", dash)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
