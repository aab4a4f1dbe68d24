package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

type drawing interface {
	Chart
	draw() (*canvas, float64, error)
}

func none() float64 { return math.NaN() }

func ladder() *Lines {
	l := &Lines{
		Title:  "weir's own work per packet",
		Note:   "No I/O; UDP over IPv4 and IPv6, all packets of known flows; medians, and from the smallest to the largest of five rounds.",
		XLabel: "flows", YLabel: "ns per packet",
		Ticks: []Tick{{1, "1"}, {1 << 10, "1 Ki"}, {1 << 16, "64 Ki"}, {1 << 20, "1 Mi"}},
		Marks: []Mark{{"target for dsr4", []float64{none(), 30, 60, 90}}},
	}
	for i, name := range []string{"dsr4", "dsr6", "ipip4in4", "ipip6in6", "nat44", "nat66", "nat46", "nat64", "go map"} {
		base := 20 + 7*float64(i)
		line := Line{Name: name}
		for j := range l.Ticks {
			y := base * (1 + 0.7*float64(j))
			line.Values = append(line.Values, Value{y, y * 0.95, y * 1.1})
		}
		l.Lines = append(l.Lines, line)
	}
	l.Lines[8].Values[1] = None()
	return l
}

func bars() *Bars {
	return &Bars{
		Title: "Frames forwarded, 60 bytes", Unit: "Mpps", Series: []string{"1 Ki flows", "1 Mi flows"},
		Groups: []Group{
			{"weir, dsr, AF_XDP copy mode", []Value{{1.35, 1.2, 1.5}, {1.3, 1.3, 1.3}}},
			{"nftables DNAT & jhash", []Value{{0.42, 0.4, 0.43}, None()}},
			{"kernel <forwarding>", []Value{{0.612, 0.5, 0.7}, {0, 0, 0}}},
		},
	}
}

func charts() map[string]drawing {
	single := ladder()
	single.Ticks, single.Marks, single.Note = single.Ticks[2:3], nil, ""
	for i := range single.Lines {
		single.Lines[i].Values = single.Lines[i].Values[2:3]
	}
	many := &Bars{Title: "Core time", Unit: "ns per packet", Series: []string{"all"}}
	for i := range 24 {
		many.Groups = append(many.Groups, Group{strings.Repeat("x", i+1), []Value{{float64(i), 0, float64(2 * i)}}})
	}
	return map[string]drawing{"lines": ladder(), "bars": bars(), "single": single, "many": many}
}

func svg(t *testing.T, c Chart) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := c.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The same chart is the same bytes, which somebody has looked at.
func TestGolden(t *testing.T) {
	for name, chart := range charts() {
		got := svg(t, chart)
		if !bytes.Equal(got, svg(t, chart)) {
			t.Errorf("%s: drawn twice, and not the same", name)
		}
		path := filepath.Join("testdata", name+".svg")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what is in %s: look at it and run go test -update", name, path)
		}
	}
}

// An image is well-formed, has all texts as they were given, and refers to
// nothing outside.
func TestWellFormed(t *testing.T) {
	for name, chart := range charts() {
		var texts []string
		depth := 0
		for decoder := xml.NewDecoder(bytes.NewReader(svg(t, chart))); ; {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			switch token := token.(type) {
			case xml.StartElement:
				if depth == 0 && (token.Name.Local != "svg" || token.Name.Space != "http://www.w3.org/2000/svg") {
					t.Errorf("%s: begins with %v", name, token.Name)
				}
				for _, a := range token.Attr {
					if strings.Contains(a.Name.Local, "href") || strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" {
						t.Errorf("%s: %s has %s", name, token.Name.Local, a.Name.Local)
					}
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Errorf("%s: %s is %s", name, a.Name.Local, a.Value)
					}
				}
				depth++
			case xml.EndElement:
				depth--
			case xml.CharData:
				texts = append(texts, string(token))
			}
		}
		var want []string
		switch c := chart.(type) {
		case *Bars:
			want = append(want, c.Title, c.Unit)
			for _, g := range c.Groups {
				want = append(want, g.Name)
			}
			if len(c.Series) > 1 {
				want = append(want, c.Series...)
			}
		case *Lines:
			want = append(want, c.Title, c.XLabel, c.YLabel)
			for _, l := range c.Lines {
				want = append(want, l.Name)
			}
			for _, m := range c.Marks {
				want = append(want, m.Name)
			}
			for _, tick := range c.Ticks {
				want = append(want, tick.Label)
			}
		}
		for _, w := range want {
			if !slices.Contains(texts, w) {
				t.Errorf("%s: no text %q", name, w)
			}
		}
	}
}

// No text lies on another one or outside.
func TestNoOverlap(t *testing.T) {
	for name, chart := range charts() {
		c, height, err := chart.draw()
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range c.texts {
			if a.left < 0 || a.top < 0 || a.right > width || a.bottom > height {
				t.Errorf("%s: %q is outside: %+v", name, a.text, a)
			}
			for _, b := range c.texts[i+1:] {
				if a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom {
					t.Errorf("%s: %q is on %q", name, a.text, b.text)
				}
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for _, test := range []struct {
		most float64
		last float64
	}{{0, 1}, {0.9, 1}, {1, 1}, {1.01, 1.2}, {7, 8}, {99, 100}, {101, 120}, {1234, 1500}, {0.00013, 0.00015}} {
		got := ticks(test.most)
		if last := got[len(got)-1]; math.Abs(last-test.last) > 1e-12 {
			t.Errorf("to %v: the last is %v, want %v", test.most, last, test.last)
		}
		if len(got) < 3 || len(got) > 9 || got[0] != 0 {
			t.Errorf("to %v: %v", test.most, got)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, chart := range map[string]Chart{
		"no groups":         Bars{Series: []string{"a"}},
		"no series":         Bars{Groups: []Group{{Name: "a"}}},
		"values missing":    Bars{Series: []string{"a", "b"}, Groups: []Group{{"g", []Value{{1, 1, 1}}}}},
		"the same group":    Bars{Series: []string{"a"}, Groups: []Group{{"g", []Value{{1, 1, 1}}}, {"g", []Value{{1, 1, 1}}}}},
		"name too long":     Bars{Series: []string{"a"}, Groups: []Group{{strings.Repeat("x", 99), []Value{{1, 1, 1}}}}},
		"negative":          Bars{Series: []string{"a"}, Groups: []Group{{"g", []Value{{-1, -1, 1}}}}},
		"outside its range": Bars{Series: []string{"a"}, Groups: []Group{{"g", []Value{{3, 1, 2}}}}},
		"infinite":          Bars{Series: []string{"a"}, Groups: []Group{{"g", []Value{{1, 1, math.Inf(1)}}}}},
		"no ticks":          Lines{Lines: []Line{{Name: "a"}}},
		"no lines":          Lines{Ticks: []Tick{{1, "1"}}},
		"tick at zero":      Lines{Ticks: []Tick{{0, "0"}}, Lines: []Line{{"a", []Value{{1, 1, 1}}}}},
		"ticks fall":        Lines{Ticks: []Tick{{2, "2"}, {1, "1"}}, Lines: []Line{{"a", []Value{{1, 1, 1}, {1, 1, 1}}}}},
		"points missing":    Lines{Ticks: []Tick{{1, "1"}, {2, "2"}}, Lines: []Line{{"a", []Value{{1, 1, 1}}}}},
	} {
		if err := chart.WriteSVG(io.Discard); err == nil {
			t.Errorf("%s: drawn", name)
		}
	}
}
