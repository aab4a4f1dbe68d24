package demo

import (
	"fmt"
	"strings"
)

// summary says in the end what was seen and what came of it.
func summary(e *evidence, a *account, s *state, reasons []string, colour bool) string {
	c := &canvas{width: 1 << 10, colour: colour}
	plain := func(format string, args ...any) { c.line(styled{fmt.Sprintf(format, args...), ""}) }

	c.line()
	c.line(styled{"Summary", bold})
	c.line()
	sent, failed := 0, 0
	for _, s := range a.streams {
		sent, failed = sent+s.sent, failed+s.failed
	}
	plain("weirs      %s, %.1f %% of one CPU together", s.driver, 100*s.meanCPU)
	plain("requests   %d in %.0f s: %d succeeded, verified byte for byte, and %d failed",
		sent, e.course.since(e.course.ended).Seconds(), sent-failed, failed)
	plain("failed     %d with %s as it stopped, which no balancer can prevent; %d before that, %d later", a.lost, e.victim, a.early, len(a.faults)-a.early)
	if c := &e.course; !c.noticed.IsZero() {
		plain("backend    %s stopped at %.1f s; both weirs noticed after %.1f s", e.victim, c.since(c.stopped).Seconds(), c.noticed.Sub(c.stopped).Seconds())
		plain("           %s", outage(e, a))
		if !c.restored.IsZero() {
			plain("           %s came back at %.1f s; the weirs used it again after %.1f s",
				e.victim, c.since(c.returned).Seconds(), c.restored.Sub(c.returned).Seconds())
		}
	}
	if c := &e.course; !c.rerouted.IsZero() {
		plain("weir       %s killed at %.1f s; the router took it out after %.2f s", e.killed, c.since(c.killed).Seconds(), c.rerouted.Sub(c.killed).Seconds())
		plain("           %d requests were under way: the longest took %s; no time without", a.moved, span(a.wait))
		plain("           an answer to any request was longer than %s", span(a.gap))
		if !c.rejoined.IsZero() {
			plain("           %s was started at %.1f s; the router used it again after %.1f s",
				e.killed, c.since(c.revived).Seconds(), c.rejoined.Sub(c.revived).Seconds())
		}
	}
	if l := &e.long; l.opened > 0 {
		plain("long       %d of %d connections outlived it, on the backend they had; the longest wait was %s", l.opened-len(l.broken), l.opened, span(l.slowest))
	}
	plain("dropped    %s", drops(s.drops))
	c.line()
	c.streams(e, a)
	c.line()
	c.weirShares(e)
	c.line()
	c.shares(e, a)
	c.line()
	if len(reasons) == 0 {
		c.line(styled{"PASSED", joinStyles(bold, green)},
			styled{": every request that had to succeed did, each backend got its share, and no connection broke with the weir", ""})
	} else {
		c.line(styled{"FAILED", joinStyles(bold, red)}, styled{":", ""})
		for _, r := range reasons {
			plain("  - %s", r)
		}
	}
	return strings.Join(c.lines, "\n") + "\n"
}

// outage says what became of the requests that the victim took with it.
func outage(e *evidence, a *account) string {
	if a.caught == 0 {
		return "no request was on its way to it in between"
	}
	text := fmt.Sprintf("%d requests were on their way to it in between: %d failed,", a.caught, a.lost)
	return text + fmt.Sprintf("\n           %d succeeded elsewhere on TCP's next try, in %s at most", a.rescued, span(a.slowest))
}

func drops(all []dropRow) string {
	if len(all) == 0 {
		return "nothing"
	}
	var texts []string
	for _, d := range all {
		texts = append(texts, fmt.Sprintf("%d %s (%s)", d.packets, d.reason, d.help))
	}
	return strings.Join(texts, ", ")
}

func (c *canvas) streams(e *evidence, a *account) {
	const format = "%-10s %-6s %8s %10s %8s %9s %9s"
	c.line(styled{fmt.Sprintf(format, "REQUESTS", "OVER", "SENT", "SUCCEEDED", "FAILED", "MEDIAN", "P99"), faint})
	for i, s := range e.streams {
		r := a.streams[i]
		c.line(styled{fmt.Sprintf(format, s.service, s.family(), fmt.Sprint(r.sent), fmt.Sprint(r.sent-r.failed), fmt.Sprint(r.failed),
			span(r.latency.median), span(r.latency.p99)), ""})
	}
}

// titles are what the phases are called in tables.
func (e *evidence) titles() [numPhases]string {
	v, w := strings.ToUpper(e.victim), strings.ToUpper(e.killed)
	return [numPhases]string{allUp: "ALL UP", oneDown: v + " OUT", allBack: v + " BACK", weirDown: w + " KILLED", weirBack: w + " BACK"}
}

const shareColumns = "  %-12s  %-12s  %-12s  %-12s  %-12s"

// row puts a text for each phase behind its head.
func (c *canvas) row(head string, texts [numPhases]string, style string) {
	c.line(styled{head + fmt.Sprintf(shareColumns, texts[allUp], texts[oneDown], texts[allBack], texts[weirDown], texts[weirBack]), style})
}

func (c *canvas) weirShares(e *evidence) {
	c.line(styled{"Which weir decided about new connections:", ""})
	c.row(fmt.Sprintf("%-15s", "WEIR"), e.titles(), faint)
	for _, name := range e.weirs {
		var texts [numPhases]string
		for p := range numPhases {
			sum := uint64(0)
			for _, n := range e.decided[p] {
				sum += n
			}
			texts[p] = "-"
			if n, there := e.decided[p][name]; there && sum > 0 {
				texts[p] = fmt.Sprintf("%5.1f %%", 100*float64(n)/float64(sum))
			}
		}
		c.row(fmt.Sprintf("%-15s", name), texts, "")
	}
}

func (c *canvas) shares(e *evidence, a *account) {
	c.line(styled{"Who answered, and behind it the share by weight, in per cent:", ""})
	c.row(fmt.Sprintf("%-10s %-4s", "SERVICE", ""), e.titles(), faint)
	for _, cell := range a.cells {
		var texts [numPhases]string
		for p, s := range cell.shares {
			texts[p] = fmt.Sprintf("%4.1f (%4.1f)", s.part(float64(s.got)), s.part(s.expected))
		}
		c.row(fmt.Sprintf("%-10s %-4s", cell.service, cell.backend), texts, "")
	}
}
