package wire

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"weir/perf/measure"
	"weir/perf/plot"
)

// Plot draws the time per packet of each subject, with a bar for each number of
// flows, and below it what each delivers. A scenario that was not measured has no
// chart.
func (r Report) Plot(w io.Writer) error {
	image := plot.Stack{Title: "What a packet costs from wire to wire"}
	add := func(chart plot.Bars) {
		if len(chart.Groups) > 0 {
			image.Charts = append(image.Charts, chart)
		}
	}
	add(r.costs())
	add(r.rates())
	if len(image.Charts) == 0 {
		return errors.New("draw chart: nothing of this report can be drawn")
	}
	return image.WriteSVG(w)
}

// costs is what a packet costs in Core.
func (r *Report) costs() plot.Bars {
	var flows []uint32
	for i := range r.Summary {
		if row := &r.Summary[i]; row.Scenario == Core && !slices.Contains(flows, row.Flows) {
			flows = append(flows, row.Flows)
		}
	}
	slices.Sort(flows)
	chart := plot.Bars{
		Title: "Core time per packet",
		Note:  fmt.Sprintf("Offered more than it can take, sent to an interface that drops everything. %s", r.drawn()),
		Unit:  "ns per packet",
	}
	for _, n := range flows {
		chart.Series = append(chart.Series, measure.Binary(n)+" flows")
	}
	chart.Groups = r.groups(len(flows), 1, func(row *Row) (int, measure.Spread) {
		if row.Scenario != Core {
			return -1, measure.Spread{}
		}
		return slices.Index(flows, row.Flows), row.NsPerPkt
	})
	return chart
}

// rates is what is delivered in Flood and LossFree, with the least number of
// flows.
func (r *Report) rates() plot.Bars {
	scenarios := []Scenario{Flood, LossFree}
	flows := uint32(0)
	for i := range r.Summary {
		if row := &r.Summary[i]; slices.Contains(scenarios, row.Scenario) && (flows == 0 || row.Flows < flows) {
			flows = row.Flows
		}
	}
	return plot.Bars{
		Title:  "Delivered by the wire",
		Note:   fmt.Sprintf("%s flows; half of the core's time goes into delivering. %s", measure.Binary(flows), r.drawn()),
		Unit:   "million packets per second",
		Series: []string{"offered more than it can take", fmt.Sprintf("offered so much that at most %g %% is lost", 100*r.MaxLoss)},
		Groups: r.groups(len(scenarios), 1e-6, func(row *Row) (int, measure.Spread) {
			if row.Flows != flows {
				return -1, measure.Spread{}
			}
			return slices.Index(scenarios, row.Scenario), row.Delivered
		}),
	}
}

// drawn says what all charts have in common.
func (r *Report) drawn() string {
	return fmt.Sprintf("Medians, smallest to largest. %s.", r.At())
}

// groups returns a group for each subject that has any value, in the order of
// tables. value returns which of the bars a row is, negative for none; without
// any measurement a spread is zero, and there is no bar.
func (r *Report) groups(series int, scale float64, value func(*Row) (int, measure.Spread)) (groups []plot.Group) {
	at := make(map[string]int)
	for i := range r.Summary {
		row := &r.Summary[i]
		n, s := value(row)
		if n < 0 || s.Max == 0 {
			continue
		}
		g, known := at[row.Subject]
		if !known {
			g = len(groups)
			at[row.Subject] = g
			groups = append(groups, plot.Group{Name: row.Subject, Values: slices.Repeat([]plot.Value{plot.None()}, series)})
		}
		groups[g].Values[n] = plot.Value{Y: s.Median * scale, Low: s.Min * scale, High: s.Max * scale}
	}
	order := Names(Subjects())
	slices.SortStableFunc(groups, func(a, b plot.Group) int { return slices.Index(order, a.Name) - slices.Index(order, b.Name) })
	return groups
}
