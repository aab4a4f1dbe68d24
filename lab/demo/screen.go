package demo

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"weir/controlplane/show"
)

// state is all that is shown at a moment.
type state struct {
	elapsed, total time.Duration
	driver         string
	cpu            float64 // that the weirs used since the last poll, as a part of one CPU
	meanCPU        float64 // the same since the start
	weirs          []weirRow
	services       []serviceRow // of all weirs together
	requests       []requestRow
	long           longReport
	drops          []dropRow
	events         []event
}

type weirRow struct {
	name, status string
	up, sessions int // BGP sessions that are up, of so many
	cpu          float64
	load         load
}

type serviceRow struct {
	name     string
	load     load
	backends []backendRow
}

type backendRow struct {
	name, status string
	load         load
}

// load is what weir has sent on: packets on the way to backends, and their
// bytes with Ethernet headers.
type load struct {
	packets, bytes uint64
	flows          int64
	packetRate     float64 // per second
	bitRate        float64 // bits per second
}

type requestRow struct {
	service, family        string
	sent, answered, failed int
	latency                latency
}

// waiting is the number of requests that are under way.
func (r *requestRow) waiting() int { return r.sent - r.answered - r.failed }

type dropRow struct {
	reason, help string
	packets      uint64
}

// event is something that has happened.
type event struct {
	at   time.Duration // after the start
	kind eventKind
	text string
}

type eventKind int

const (
	plainEvent eventKind = iota
	goodEvent
	badEvent
)

func (e event) String() string { return fmt.Sprintf("%4.1f s  %s", e.at.Seconds(), e.text) }

// The colours of SGR (ECMA-48 section 8.3.117) that the screen uses.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (k eventKind) style() string {
	return [...]string{plainEvent: bold, goodEvent: green, badEvent: red}[k]
}

// canvas collects lines of limited width.
type canvas struct {
	width  int
	colour bool
	lines  []string
}

// styled is a piece of a line.
type styled struct{ text, style string }

// line adds a line. What does not fit is cut off.
func (c *canvas) line(pieces ...styled) {
	var b strings.Builder
	left := c.width
	for _, p := range pieces {
		text := cut(p.text, left)
		left -= utf8.RuneCountInString(text)
		if c.colour && p.style != "" && text != "" {
			text = "\x1b[" + p.style + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	c.lines = append(c.lines, strings.TrimRight(b.String(), " "))
}

// cut returns the first n characters of text, the last of them an ellipsis if
// that is not all.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	if n <= 0 {
		return ""
	}
	return string([]rune(text)[:n-1]) + "…"
}

// render draws the state in at most height lines of at most width characters.
// What happened longest ago gives way first.
func render(s *state, width, height int, colour bool) []string {
	c := &canvas{width: width, colour: colour}
	const bar = 20
	done := 0
	if s.total > 0 {
		done = min(bar, int(bar*s.elapsed/s.total))
	}
	c.line(styled{"weir demo", bold},
		styled{fmt.Sprintf("  %2.0f of %.0f s  ", s.elapsed.Seconds(), s.total.Seconds()), ""},
		styled{strings.Repeat("━", done), green}, styled{strings.Repeat("─", bar-done), faint},
		styled{fmt.Sprintf("  %s  weir CPU %2.0f %%", s.driver, 100*s.cpu), ""})
	if n := len(s.events); n > 0 {
		e := s.events[n-1]
		c.line(styled{fmt.Sprintf("%.0f s: %s", e.at.Seconds(), e.text), joinStyles(bold, e.kind.style())})
	} else {
		c.line()
	}
	c.line()
	c.weirs(s.weirs)
	c.services(s.services)
	c.line()
	c.requests(s.requests)
	if l := &s.long; l.opened > 0 {
		style := green
		if len(l.broken) > 0 {
			style = red
		}
		c.line(styled{fmt.Sprintf("long connections: %d open, ", l.opened-len(l.broken)), ""}, styled{fmt.Sprintf("%d broken", len(l.broken)), style},
			styled{fmt.Sprintf("; the longest wait of one was %s", span(l.slowest)), ""})
	}
	if room := height - len(c.lines) - 1; room > 0 && len(s.events) > 0 {
		c.line()
		for _, e := range s.events[max(0, len(s.events)-room):] {
			c.line(styled{cut(e.String(), width), e.kind.style()})
		}
	}
	return c.lines[:min(len(c.lines), height)]
}

func joinStyles(a, b string) string { return strings.Trim(a+";"+b, ";") }

const (
	serviceName   = "%-10s"
	serviceStatus = " %-11s"
	serviceLoad   = " %6s %9s %11s %10s %13s"
)

// weirs says what each weir forwards; the columns are those of services.
func (c *canvas) weirs(all []weirRow) {
	c.line(styled{fmt.Sprintf(serviceName+serviceStatus+serviceLoad, "WEIR", "STATUS", "FLOWS", "BGP UP", "CPU", "PACKETS/S", "BIT/S"), faint})
	for _, w := range all {
		style, bgp, cpu := red, "-", "-"
		if w.status == "forwards" {
			style, bgp, cpu = green, fmt.Sprintf("%d of %d", w.up, w.sessions), fmt.Sprintf("%.0f %%", 100*w.cpu)
		}
		c.line(styled{fmt.Sprintf(serviceName, cut(w.name, 10)), bold}, styled{fmt.Sprintf(serviceStatus, w.status), style},
			styled{fmt.Sprintf(serviceLoad, fmt.Sprint(w.load.flows), bgp, cpu, fmt.Sprintf("%.0f", w.load.packetRate), bits(w.load.bitRate)), ""})
	}
}

func (c *canvas) services(all []serviceRow) {
	c.line(styled{fmt.Sprintf(serviceName+serviceStatus+serviceLoad, "TO SERVICE", "STATUS", "FLOWS", "PACKETS", "BYTES", "PACKETS/S", "BIT/S"), faint})
	row := func(name, status, style, statusStyle string, l *load) {
		c.line(
			styled{fmt.Sprintf(serviceName, cut(name, 10)), style},
			styled{fmt.Sprintf(serviceStatus, status), statusStyle},
			styled{fmt.Sprintf(serviceLoad, fmt.Sprint(l.flows), fmt.Sprint(l.packets), show.Bytes(l.bytes),
				fmt.Sprintf("%.0f", l.packetRate), bits(l.bitRate)), style})
	}
	for _, s := range all {
		up := 0
		for _, b := range s.backends {
			if b.status == "up" {
				up++
			}
		}
		row(s.name, fmt.Sprintf("%d of %d up", up, len(s.backends)), bold, bold, &s.load)
		for _, b := range s.backends {
			style := red
			if b.status == "up" {
				style = green
			}
			row("  "+b.name, b.status, "", style, &b.load)
		}
	}
}

const (
	requestCounts  = "%-10s %-5s %7s %10s"
	requestFailed  = " %7s"
	requestLatency = " %8s %17s %8s"
)

func (c *canvas) requests(all []requestRow) {
	c.line(styled{fmt.Sprintf(requestCounts+requestFailed+requestLatency,
		"REQUESTS", "OVER", "SENT", "SUCCEEDED", "FAILED", "WAITING", "MEDIAN, LAST 5 S", "P99"), faint})
	for _, r := range all {
		style := ""
		if r.failed > 0 {
			style = red
		}
		c.line(
			styled{fmt.Sprintf(requestCounts, cut(r.service, 10), r.family, fmt.Sprint(r.sent), fmt.Sprint(r.answered)), ""},
			styled{fmt.Sprintf(requestFailed, fmt.Sprint(r.failed)), style},
			styled{fmt.Sprintf(requestLatency, fmt.Sprint(r.waiting()), span(r.latency.median), span(r.latency.p99)), ""})
	}
}

// plainLine sums the state up in one line, for when there is no terminal.
func plainLine(s *state) string {
	var sum requestRow
	var slow latency
	for _, r := range s.requests {
		sum.sent, sum.answered, sum.failed = sum.sent+r.sent, sum.answered+r.answered, sum.failed+r.failed
		slow.median, slow.p99 = max(slow.median, r.latency.median), max(slow.p99, r.latency.p99)
	}
	var parts []string
	for _, service := range s.services {
		part := service.name + ":"
		for _, b := range service.backends {
			if b.status == "up" {
				part += fmt.Sprintf(" %s %.0f/s", b.name, b.load.packetRate)
			} else {
				part += fmt.Sprintf(" %s %s", b.name, b.status)
			}
		}
		parts = append(parts, part)
	}
	for _, w := range s.weirs {
		if w.status == "forwards" {
			parts = append(parts, fmt.Sprintf("by %s %.0f/s", w.name, w.load.packetRate))
		} else {
			parts = append(parts, w.name+" "+w.status)
		}
	}
	if l := &s.long; l.opened > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d long connections intact", l.opened-len(l.broken), l.opened))
	}
	return fmt.Sprintf("%4.1f s  %d requests, %d succeeded, %d failed, %d waiting, median %s, p99 %s; packets to %s",
		s.elapsed.Seconds(), sum.sent, sum.answered, sum.failed, sum.waiting(), span(slow.median), span(slow.p99), strings.Join(parts, "; "))
}

// bits writes a rate in bits per second with a decimal prefix.
func bits(v float64) string {
	prefixes := []string{"", "k", "M", "G"}
	i := 0
	for ; v >= 999.5 && i < len(prefixes)-1; i++ {
		v /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%.0f bit/s", v)
	}
	return fmt.Sprintf("%.1f %sbit/s", v, prefixes[i])
}

// span writes a latency; 0 is none.
func span(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
