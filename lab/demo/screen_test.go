package demo

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"weir/lab/traffic"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// sample is the state a moment after weir has noticed.
func sample() *state {
	s := &state{
		elapsed: 12 * time.Second, total: 30 * time.Second,
		driver: "AF_XDP (copy mode)", cpu: 0.093, meanCPU: 0.081,
		events: []event{
			{0, plainEvent, "requests to both services, over IPv4 and IPv6"},
			{10 * time.Second, badEvent, "backend b2 stopped: its link is down, its servers are gone"},
			{11410 * time.Millisecond, goodEvent, "weir noticed after 1.4 s: health check: dial tcp 10.0.0.12:8080: connect: connection timed out"},
		},
	}
	s.weirs = []weirRow{
		{name: "lb1", status: "forwards", up: 2, sessions: 2, cpu: 0.051, load: load{24000, 2 << 20, 250, 1100, 7e5}},
		{name: "lb2", status: "killed"},
	}
	s.long = longReport{opened: 40, broken: make([]traffic.Result, 1), slowest: 208 * time.Millisecond}
	for i, name := range []string{serviceDSR, serviceIPIP} {
		service := serviceRow{name: name, load: load{48211, 3 << 20, 512, 2210, 1.4e6}}
		for n := range backends {
			row := backendRow{fmt.Sprintf("b%d", n+1), "up", load{uint64(12000 + n), 900 << 10, 128, 550.4, 351e3}}
			if n == victim {
				row.status = []string{"down", "unreachable"}[i]
				row.load.packetRate, row.load.bitRate = 0, 0
			}
			service.backends = append(service.backends, row)
		}
		s.services = append(s.services, service)
		s.requests = append(s.requests,
			requestRow{name, "IPv4", 480, 466, 0, latency{2100 * time.Microsecond, 14 * time.Millisecond}},
			requestRow{name, "IPv6", 480, 465, 2, latency{2300 * time.Microsecond, 2110 * time.Millisecond}})
	}
	return s
}

func text(lines []string) string { return strings.Join(lines, "\n") + "\n" }

func TestRender(t *testing.T) {
	golden(t, "80x23.txt", text(render(sample(), 80, 23, false)))
	golden(t, "120x40-colour.txt", text(render(sample(), 120, 40, true)))
	golden(t, "empty.txt", text(render(&state{}, 80, 23, false)))
}

// TestRenderFits checks that the screen never scrolls or wraps, whatever its
// size, and that colours change nothing but colours.
func TestRenderFits(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9;]+m")
	for _, size := range [][2]int{{80, 23}, {79, 24}, {200, 60}, {40, 10}, {1, 1}, {10, 0}, {0, 5}} {
		width, height := size[0], size[1]
		lines := render(sample(), width, height, false)
		if len(lines) > height {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > width {
				t.Errorf("%v: too wide: %q", size, line)
			}
		}
		plain, coloured := text(lines), text(render(sample(), width, height, true))
		coloured = regexp.MustCompile(` +\n`).ReplaceAllString(sgr.ReplaceAllString(coloured, ""), "\n")
		if coloured != plain {
			t.Errorf("%v: coloured\n%s\nplain\n%s", size, coloured, plain)
		}
	}
}

func TestSummary(t *testing.T) {
	e := good()
	e.find(0, 9.9, "b2").Err = errTimeout
	e.find(0, 9.9, "b2").Duration = 5 * time.Second
	golden(t, "passed.txt", summary(e, e.add(), sample(), nil, false))

	e = good()
	e.find(1, 3, "b2").lose()
	e.move(allUp, "b4", "b1", 1)
	s := sample()
	s.drops = []dropRow{{"no_backend", "the service has no usable backend", 17}, {"too_big", "longer than the MTU", 1}}
	golden(t, "failed.txt", summary(e, e.add(), s, judge(e, e.add()), true))
}

// TestPlain checks that each event is printed once, and lines only when due.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	screen := newTerminal(&out, false)
	s := sample()
	all := s.events
	for at := range 31 {
		s.elapsed = time.Duration(at) * time.Second
		s.events = nil
		for _, e := range all {
			if e.at <= s.elapsed {
				s.events = append(s.events, e)
			}
		}
		if err := screen.show(s, at == 30); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "plain.txt", out.String())
}

// TestTerminal draws twice on something that is treated as a terminal, and
// checks that the second drawing goes up by as many lines as the first has.
func TestTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out bytes.Buffer
	screen := &terminal{out: &out, tty: file} // it has no size: 80 by 24
	if err := screen.show(sample(), false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(out.String(), "\n")
	out.Reset()
	if err := screen.show(sample(), false); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\x1b[%dA\r", lines); lines == 0 || !strings.HasPrefix(out.String(), want) {
		t.Errorf("%d lines, then %.20q", lines, out.String())
	}
	screen.printf("below\n")
	out.Reset()
	if err := screen.show(sample(), false); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(out.String(), "\x1b[2") || strings.Contains(out.String(), "A\r") {
		t.Errorf("draws over other text: %.20q", out.String())
	}
}

func TestUnits(t *testing.T) {
	for v, want := range map[float64]string{0: "0 bit/s", 999: "999 bit/s", 999.7: "1.0 kbit/s", 1.25e6: "1.2 Mbit/s", 4e12: "4000.0 Gbit/s"} {
		if got := bits(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "-", 1: "0.0 ms", 9949 * time.Microsecond: "9.9 ms", 12 * time.Millisecond: "12 ms", 3 * time.Second: "3.0 s"} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
