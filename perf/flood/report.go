package flood

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"weir/perf/balancer"
	"weir/perf/measure"
)

// Report is the outcome of [Run], complete. Rates are per second.
type Report struct {
	measure.Head
	Driver      string  `json:"driver"`
	Mode        string  `json:"mode"`
	FrameLen    int     `json:"frame_len"`      // bytes
	Flows       uint32  `json:"flows"`          // established before the flood
	FlowsRate   int     `json:"flows_pps"`      // of these
	Entries     int     `json:"entries"`        // of the flow table
	NewRate     int     `json:"new_rate"`       // entries made per second, at most
	Limit       int     `json:"limit"`          // new flows per second, in the mode with limits
	Window      float64 `json:"window_seconds"` // of a flood
	GeneratorOn int     `json:"generator_cpu"`
	WorkerOn    int     `json:"worker_cpu"`
	Summary     []Row   `json:"summary"`
	Cells       []Cell  `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one rate in one mode.
type Row struct {
	Mode   balancer.Mode `json:"mode"`
	Rate   Rate          `json:"rate"`
	Rounds int           `json:"rounds"`

	Offered   measure.Spread `json:"offered_pps"`
	Taken     measure.Spread `json:"taken_pps"`
	CPU       measure.Spread `json:"cpu"`
	NsPerPkt  measure.Spread `json:"ns_per_packet"`
	FlowsLoss measure.Spread `json:"flows_loss"`

	// Sums: there should be none.
	Gone    int    `json:"gone"`
	Moved   int    `json:"moved"`
	Evicted uint64 `json:"evicted"`

	UntrustedEvicted measure.Spread `json:"untrusted_evicted_pps"`
	Unrecorded       measure.Spread `json:"unrecorded_pps"`
	Refused          measure.Spread `json:"refused_pps"`
	Limited          measure.Spread `json:"limited_pps"`

	Memory measure.Spread `json:"memory"` // bytes of the process, after the flood
	Growth measure.Spread `json:"growth"` // bytes, in the flood
	Waited measure.Spread `json:"waited"` // the worse of worker and generator
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	modes := measure.GroupBy(r.Cells, func(c *Cell) balancer.Mode { return c.Mode })
	for _, mode := range balancer.Modes() {
		cells := measure.GroupBy(modes[mode], func(c *Cell) Rate { return c.Rate })
		for _, rate := range slices.SortedFunc(maps.Keys(cells), func(a, b Rate) int { return cmp.Compare(a.generators(), b.generators()) }) {
			r.Summary = append(r.Summary, sumUp(cells[rate]))
		}
	}
}

func sumUp(cells []Cell) Row {
	over := func(value func(*Cell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
	rate := func(count func(*Cell) uint64) measure.Spread {
		return over(func(c *Cell) float64 { return float64(count(c)) / c.Seconds })
	}
	row := Row{
		Mode:             cells[0].Mode,
		Rate:             cells[0].Rate,
		Rounds:           len(cells),
		Offered:          over(func(c *Cell) float64 { return c.Offered }),
		Taken:            over(func(c *Cell) float64 { return c.Taken }),
		CPU:              over(func(c *Cell) float64 { return c.CPU }),
		NsPerPkt:         over(func(c *Cell) float64 { return c.NsPerPkt }),
		FlowsLoss:        over(func(c *Cell) float64 { return c.FlowsLoss }),
		UntrustedEvicted: rate(func(c *Cell) uint64 { return c.UntrustedEvicted }),
		Unrecorded:       rate(func(c *Cell) uint64 { return c.Unrecorded }),
		Refused:          rate(func(c *Cell) uint64 { return c.Refused }),
		Limited:          rate(func(c *Cell) uint64 { return c.Limited }),
		Memory:           over(func(c *Cell) float64 { return float64(c.MemoryAfter) }),
		Growth:           over(func(c *Cell) float64 { return float64(c.MemoryAfter) - float64(c.MemoryBefore) }),
		Waited:           over(func(c *Cell) float64 { return max(c.WorkerWaited, c.GeneratorWaited) }),
	}
	for _, c := range cells {
		row.Gone += c.Gone
		row.Moved += c.Moved
		row.Evicted += c.Evicted
	}
	return row
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "flood" }

// Tables is that of a [measure.Report]: the summary.
func (r Report) Tables() []measure.Table {
	return []measure.Table{{Title: r.conditions(), Lines: r.table()}}
}

func (r *Report) conditions() string {
	return fmt.Sprintf("%s: %s, %s mode, one worker, frames of %d bytes, %d flows with %d packets/s, flow table of %d, new_rate %d, limit %d, floods of %g s.",
		r.At(), r.Driver, r.Mode, r.FrameLen, r.Flows, r.FlowsRate, r.Entries, r.NewRate, r.Limit, r.Window)
}

func (r *Report) table() [][]string {
	table := [][]string{{
		"mode", "flood SYN/s", "rounds", "offered k/s", "taken k/s", "worker CPU %", "ns/packet", "flows' packets lost %",
		"flows lost, moved, evicted", "untrusted evicted k/s", "unrecorded k/s", "refused k/s", "limited k/s",
		"memory MB", "growth MB", "waited %",
	}}
	for _, row := range r.Summary {
		thousands := func(s measure.Spread) string { return fmt.Sprintf("%.0f", s.Median/1e3) }
		table = append(table, []string{
			string(row.Mode), row.Rate.String(), fmt.Sprint(row.Rounds),
			row.Offered.Format(1e-3, 0), row.Taken.Format(1e-3, 0), row.CPU.Format(100, 0), row.NsPerPkt.Format(1, 0), row.FlowsLoss.Format(100, 2),
			fmt.Sprintf("%d, %d, %d", row.Gone, row.Moved, row.Evicted),
			thousands(row.UntrustedEvicted), thousands(row.Unrecorded), thousands(row.Refused), thousands(row.Limited),
			fmt.Sprintf("%.1f", row.Memory.Median/1e6), row.Growth.Format(1e-6, 1), row.Waited.FormatWaited(),
		})
	}
	return table
}
