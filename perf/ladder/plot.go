package ladder

import (
	"fmt"
	"io"
	"math"
	"slices"

	"weir/perf/measure"
	"weir/perf/plot"
)

// Plot draws own work over the number of flows, a line for each mode towards
// backends, with the target for DSR.
func (r Report) Plot(w io.Writer) error {
	chart := plot.Lines{
		Title:  "weir's own work per packet",
		Note:   fmt.Sprintf("No I/O, UDP, packets of known flows; medians, smallest to largest. %s.", r.At()),
		XLabel: "flows",
		YLabel: "ns per packet",
	}
	lines := make(map[string]map[uint32]measure.Spread)
	var names []string
	var flows []uint32
	for i := range r.Summary {
		row := &r.Summary[i]
		name, ok := row.plotted()
		if !ok {
			continue
		}
		if lines[name] == nil {
			lines[name] = make(map[uint32]measure.Spread)
			names = append(names, name)
		}
		lines[name][row.Flows] = row.Own
		if !slices.Contains(flows, row.Flows) {
			flows = append(flows, row.Flows)
		}
	}
	slices.Sort(flows)
	target := plot.Mark{Name: "target for " + string(DSR4)}
	for _, n := range flows {
		chart.Ticks = append(chart.Ticks, plot.Tick{X: float64(n), Label: measure.Binary(n)})
		at := math.NaN()
		if ns := hitTargets[n]; ns > 0 {
			at = ns
		}
		target.Values = append(target.Values, at)
	}
	for _, name := range names {
		l := plot.Line{Name: name}
		for _, n := range flows {
			v := plot.None()
			if s, ok := lines[name][n]; ok {
				v = plot.Value{Y: s.Median, Low: s.Min, High: s.Max}
			}
			l.Values = append(l.Values, v)
		}
		chart.Lines = append(chart.Lines, l)
	}
	if slices.Contains(names, string(DSR4)) {
		chart.Marks = []plot.Mark{target}
	}
	return chart.WriteSVG(w)
}

// plotted returns the name of the line that a row is a point of.
func (r *Row) plotted() (line string, ok bool) {
	if !r.tabled() || r.Protocol != UDP || r.Few || r.Mode.answer() {
		return "", false
	}
	switch r.Rung {
	case Hit:
		return string(r.Mode), true
	case Map:
		return string(Map), true
	}
	return "", false
}
