package checks

import (
	"fmt"

	"weir/perf/measure"
)

// Report is the outcome of [Run], complete.
type Report struct {
	measure.Head
	Weir     string  `json:"weir"` // the measured binary's version
	Backends int     `json:"backends"`
	Interval float64 `json:"interval_seconds"` // of each check
	Window   float64 `json:"window_seconds"`
	WarmUp   float64 `json:"warm_up_seconds"`
	Summary  []Row   `json:"summary"`
	Cells    []Cell  `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one kind and number of checks.
type Row struct {
	Kind    Kind   `json:"kind"`
	To      Target `json:"to,omitempty"`
	Checked int    `json:"checked"`
	Rounds  int    `json:"rounds"`

	CPU      measure.Spread `json:"cpu"`
	Kernel   measure.Spread `json:"kernel"`
	PerCheck measure.Spread `json:"per_check"` // seconds of CPU above the median without checks; zero if that was not measured
	Made     measure.Spread `json:"made"`
	Memory   measure.Spread `json:"memory"`
	Ready    measure.Spread `json:"ready"`
	StartCPU measure.Spread `json:"start_cpu"`
	Shown    measure.Spread `json:"shown"`
	Waited   measure.Spread `json:"waited"`

	NotUp  int `json:"not_up"` // backends in the end, the most of any round: there should be none
	Logged int `json:"logged"` // lines in all windows: there should be none
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	type key struct {
		Kind
		Target
		checked int
	}
	groups := measure.GroupBy(r.Cells, func(c *Cell) key { return key{c.Kind, c.To, c.Checked} })
	unchecked := groups[key{Kind: None}]
	idle := measure.SpreadOf(unchecked, func(c *Cell) float64 { return c.CPU }).Median
	for _, like := range (&Options{Backends: r.Backends}).cells() {
		cells := groups[key{like.Kind, like.To, like.Checked}]
		if len(cells) == 0 {
			continue
		}
		over := func(value func(*Cell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
		row := Row{
			Kind: like.Kind, To: like.To, Checked: like.Checked, Rounds: len(cells),
			CPU:      over(func(c *Cell) float64 { return c.CPU }),
			Kernel:   over(func(c *Cell) float64 { return c.Kernel }),
			Made:     over(func(c *Cell) float64 { return c.Made }),
			Memory:   over(func(c *Cell) float64 { return float64(c.Memory) }),
			Ready:    over(func(c *Cell) float64 { return c.Ready }),
			StartCPU: over(func(c *Cell) float64 { return c.StartCPU }),
			Shown:    over(func(c *Cell) float64 { return c.Shown }),
			Waited:   over(func(c *Cell) float64 { return c.Waited }),
		}
		if len(unchecked) > 0 {
			row.PerCheck = over(func(c *Cell) float64 {
				if c.Made == 0 {
					return 0
				}
				return (c.CPU - idle) / c.Made
			})
		}
		for _, c := range cells {
			row.NotUp = max(row.NotUp, r.Backends-c.Up, c.Checked-c.Passed)
			row.Logged += c.Logged
		}
		r.Summary = append(r.Summary, row)
	}
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "checks" }

// Tables is that of a [measure.Report]: the summary.
func (r Report) Tables() []measure.Table {
	return []measure.Table{{Title: r.conditions(), Lines: r.table()}}
}

func (r *Report) conditions() string {
	text := fmt.Sprintf("%s: veth, %d backends in mode ipip behind one router, each check every %g s, windows of %g s.",
		r.At(), r.Backends, r.Interval, r.Window)
	if r.Weir != "" { // older reports do not know
		text += fmt.Sprintf(" Measured: %s.", r.Weir)
	}
	return text
}

func (r *Report) table() [][]string {
	table := [][]string{{
		"checks", "kind", "to", "rounds", "made per s", "CPU %", "kernel %", "µs/check", "not up", "log lines",
		"memory MB", "all up after s", "CPU s till then", "show s", "waited %",
	}}
	for _, row := range r.Summary {
		kind, to, perCheck := string(row.Kind), string(row.To), row.PerCheck.Format(1e6, 0)
		if row.Kind == None {
			kind, to, perCheck = "-", "-", "-"
		}
		table = append(table, []string{
			fmt.Sprint(row.Checked), kind, to, fmt.Sprint(row.Rounds),
			row.Made.Format(1, 0), row.CPU.Format(100, 1), fmt.Sprintf("%.1f", row.Kernel.Median*100), perCheck,
			fmt.Sprint(row.NotUp), fmt.Sprint(row.Logged),
			row.Memory.Format(1e-6, 0), row.Ready.Format(1, 1), row.StartCPU.Format(1, 1), row.Shown.Format(1, 2), row.Waited.FormatWaited(),
		})
	}
	return table
}
