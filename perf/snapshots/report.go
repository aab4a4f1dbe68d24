package snapshots

import (
	"fmt"

	"weir/perf/measure"
)

// Report is the outcome of [Run], complete.
type Report struct {
	measure.Head
	Services int       `json:"services"`
	Backends int       `json:"backends"`
	Summary  []Row     `json:"summary"`
	Workers  []AwayRow `json:"workers"`
	Heap     []float64 `json:"heap_bytes"` // of all that is kept for the services, in each round
	Cells    []Cell    `json:"cells"`      // in the order of measuring
	Away     []Away    `json:"away"`
}

// Row sums up all rounds of one kind of change.
type Row struct {
	Change    Change         `json:"change"`
	Changes   int            `json:"changes"`
	Took      measure.Spread `json:"took_seconds"` // of single changes
	CPU       measure.Spread `json:"cpu_seconds"`
	Allocated measure.Spread `json:"allocated_bytes"`
	Waited    measure.Spread `json:"waited"`
	Target    float64        `json:"target_seconds"` // of Took's median: below
}

// AwayRow sums up all rounds of a worker that is watched.
type AwayRow struct {
	While   While          `json:"while"`
	Adopts  int            `json:"adopts"`
	Adopt   measure.Spread `json:"adopt_seconds"` // of single snapshots
	Longest measure.Spread `json:"longest_seconds"`
	Long    measure.Spread `json:"long_per_second"`
	Cycle   measure.Spread `json:"cycle_seconds"`
	Stopped measure.Spread `json:"stopped_seconds"`
	Waited  measure.Spread `json:"waited"`
}

func newReport(o *Options) (Report, error) {
	head, err := measure.NewHead(o.Seed)
	return Report{Head: head, Services: o.Services, Backends: o.Backends}, err
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.sumUp()
}

// AddAway adds what was seen of a worker and sums up again.
func (r *Report) AddAway(a Away) {
	r.Away = append(r.Away, a)
	r.sumUp()
}

func (r *Report) sumUp() {
	r.Summary, r.Workers = nil, nil
	plain := func(v *float64) float64 { return *v }
	byChange := measure.GroupBy(r.Cells, func(c *Cell) Change { return c.Change })
	for _, kind := range changes() {
		cells := byChange[kind]
		if len(cells) == 0 {
			continue
		}
		var took []float64
		for _, c := range cells {
			took = append(took, c.Took...)
		}
		row := Row{
			Change: kind, Changes: len(took), Took: measure.SpreadOf(took, plain), Target: 0.005,
			CPU:       measure.SpreadOf(cells, func(c *Cell) float64 { return c.CPU }),
			Allocated: measure.SpreadOf(cells, func(c *Cell) float64 { return c.Allocated }),
			Waited:    measure.SpreadOf(cells, func(c *Cell) float64 { return c.Waited }),
		}
		if kind == All {
			row.Target = 2
		}
		r.Summary = append(r.Summary, row)
	}
	byWhile := measure.GroupBy(r.Away, func(a *Away) While { return a.While })
	for _, while := range whiles() {
		all := byWhile[while]
		if len(all) == 0 {
			continue
		}
		var adopts []float64
		for _, a := range all {
			adopts = append(adopts, a.Adopts...)
		}
		over := func(value func(*Away) float64) measure.Spread { return measure.SpreadOf(all, value) }
		r.Workers = append(r.Workers, AwayRow{
			While: while, Adopts: len(adopts), Adopt: measure.SpreadOf(adopts, plain),
			Longest: over(func(a *Away) float64 { return a.Longest }),
			Long:    over(func(a *Away) float64 { return float64(a.Long) / max(a.Watched, 1e-9) }),
			Cycle:   over(func(a *Away) float64 { return a.Cycle }),
			Stopped: over(func(a *Away) float64 { return a.Stopped }),
			Waited:  over(func(a *Away) float64 { return a.Waited }),
		})
	}
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "snapshots" }

// Tables is that of a [measure.Report]: the summary.
func (r Report) Tables() []measure.Table {
	return []measure.Table{
		{Title: r.conditions(), Lines: r.changes()},
		{Title: "A worker that looks at its queue all the time, meanwhile:", Lines: r.workers()},
	}
}

func (r *Report) conditions() string {
	heap := measure.SpreadOf(r.Heap, func(v *float64) float64 { return *v })
	return fmt.Sprintf("%s: %d services with %d backends each, tables of 65537; %s MB of heap are kept for them.",
		r.At(), r.Services, r.Backends, heap.Format(1e-6, 0))
}

func (r *Report) changes() [][]string {
	table := [][]string{{"change", "changes", "ms", "target ms", "CPU ms", "allocated MB", "waited %"}}
	for _, row := range r.Summary {
		table = append(table, []string{
			string(row.Change), fmt.Sprint(row.Changes), row.Took.Format(1e3, 2), fmt.Sprintf("%g", row.Target*1e3),
			row.CPU.Format(1e3, 2), row.Allocated.Format(1e-6, 2), row.Waited.FormatWaited(),
		})
	}
	return table
}

func (r *Report) workers() [][]string {
	table := [][]string{{"while", "snapshots", "adopting µs", "longest away µs", "times > 100 µs per s", "collection ms", "stopped µs", "waited %"}}
	for _, row := range r.Workers {
		line := []string{
			string(row.While), fmt.Sprint(row.Adopts), row.Adopt.Format(1e6, 2), row.Longest.Format(1e6, 0), row.Long.Format(1, 1),
			row.Cycle.Format(1e3, 0), row.Stopped.Format(1e6, 0), row.Waited.FormatWaited(),
		}
		if row.Adopts == 0 {
			line[2] = "-"
		}
		if row.Cycle.Max == 0 {
			line[5] = "-"
		}
		table = append(table, line)
	}
	return table
}
