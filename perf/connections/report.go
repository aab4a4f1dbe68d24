package connections

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weir/perf/measure"
)

// Report is the outcome of [Measure], complete.
type Report struct {
	measure.Head
	Programs map[string]string  `json:"programs"` // versions of the peers', and of the measured weir
	Clients  int                `json:"clients"`  // connections at a time, paced at most
	Rate     int                `json:"rate"`     // connections per second, paced
	Window   float64            `json:"window_seconds"`
	Missing  map[Subject]string `json:"missing,omitempty"` // why a subject was not measured
	Summary  []Row              `json:"summary"`
	Cells    []Cell             `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one subject under one load.
type Row struct {
	Subject Subject `json:"subject"`
	Load    Load    `json:"load"`
	Rounds  int     `json:"rounds"`

	PerSecond measure.Spread `json:"per_second"`
	CPU       measure.Spread `json:"cpu_seconds"` // for each connection: both of the following
	Process   measure.Spread `json:"process_seconds"`
	Kernel    measure.Spread `json:"kernel_seconds"`
	Busy      measure.Spread `json:"busy"`
	Others    measure.Spread `json:"others"`
	Clients   measure.Spread `json:"clients_busy"`
	Median    measure.Spread `json:"median_seconds"`
	P99       measure.Spread `json:"p99_seconds"`
	Memory    measure.Spread `json:"memory"`
	FramesIn  measure.Spread `json:"frames_in"` // at the balancer, for each connection opened
	FramesOut measure.Spread `json:"frames_out"`

	// Sums over all rounds.
	Opened uint64            `json:"opened"`
	Failed map[string]uint64 `json:"failed,omitempty"` // by reason: there should be none
	Late   uint64            `json:"late"`
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	type key struct {
		Subject
		Load
	}
	cells := measure.GroupBy(r.Cells, func(c *Cell) key { return key{c.Subject, c.Load} })
	for _, load := range Loads() {
		for _, subject := range Subjects() {
			if mine := cells[key{subject, load}]; len(mine) > 0 {
				r.Summary = append(r.Summary, rowOf(mine))
			}
		}
	}
}

func rowOf(cells []Cell) Row {
	over := func(value func(*Cell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
	each := func(frames func(*Account) uint64) measure.Spread {
		return over(func(c *Cell) float64 { return float64(frames(&c.Account)) / float64(max(c.Account.Opened, 1)) })
	}
	row := Row{
		Subject: cells[0].Subject, Load: cells[0].Load, Rounds: len(cells),
		PerSecond: over(func(c *Cell) float64 { return c.PerSecond }),
		CPU:       over((*Cell).CPU),
		Process:   over(func(c *Cell) float64 { return c.Process }),
		Kernel:    over(func(c *Cell) float64 { return c.Kernel }),
		Busy:      over(func(c *Cell) float64 { return c.Busy }),
		Others:    over(func(c *Cell) float64 { return c.Others }),
		Clients:   over(func(c *Cell) float64 { return c.Clients }),
		Median:    over(func(c *Cell) float64 { return c.Median }),
		P99:       over(func(c *Cell) float64 { return c.P99 }),
		Memory:    over(func(c *Cell) float64 { return float64(c.Memory) }),
		FramesIn:  each(func(a *Account) uint64 { return a.FramesIn }),
		FramesOut: each(func(a *Account) uint64 { return a.FramesOut }),
	}
	for _, c := range cells {
		row.Opened += c.Account.Opened
		row.Late += c.Late
		for reason, n := range c.Account.Failed {
			if row.Failed == nil {
				row.Failed = make(map[string]uint64)
			}
			row.Failed[reason] += n
		}
	}
	return row
}

// Reasons returns what was not measured, and why.
func (r Report) Reasons() (all []string) {
	for _, subject := range slices.Sorted(maps.Keys(r.Missing)) {
		all = append(all, fmt.Sprintf("%s: %s", subject, r.Missing[subject]))
	}
	return all
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return commandName }

// Tables is that of a [measure.Report]: the summary.
func (r Report) Tables() []measure.Table {
	return []measure.Table{{Title: r.conditions(), Lines: r.table()}}
}

func (r *Report) conditions() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: veth, one CPU for the balancer and one for all others, %d backends, closed: %d clients, paced: %d connections/s, windows of %g s.",
		r.At(), backends, r.Clients, r.Rate, r.Window)
	for _, name := range slices.Sorted(maps.Keys(r.Programs)) {
		fmt.Fprintf(&b, " %s: %s.", name, r.Programs[name])
	}
	for _, reason := range r.Reasons() {
		fmt.Fprintf(&b, " Without %s.", reason)
	}
	return b.String()
}

func (r *Report) table() [][]string {
	table := [][]string{{
		"load", "through", "rounds", "connections/s", "failed", "CPU µs/connection", "process", "kernel", "core busy %", "clients' core",
		"median ms", "p99 ms", "frames in/connection", "out", "memory MB", "others on core %",
	}}
	for _, row := range r.Summary {
		cpu, process, kernel, memory := row.CPU.Format(1e6, 1), fmt.Sprintf("%.1f", row.Process.Median*1e6), fmt.Sprintf("%.1f", row.Kernel.Median*1e6), "-"
		if row.Memory.Max > 0 {
			memory = fmt.Sprintf("%.0f", row.Memory.Median*1e-6)
		}
		if row.Subject == Direct {
			cpu, process, kernel = "-", "-", "-"
		} else if row.Memory.Max == 0 {
			process = "-"
		}
		table = append(table, []string{
			string(row.Load), string(row.Subject), fmt.Sprint(row.Rounds), row.PerSecond.Format(1, 0), row.failures(), cpu, process, kernel,
			row.Busy.Format(100, 0), fmt.Sprintf("%.0f", row.Clients.Median*100), row.Median.Format(1e3, 2), row.P99.Format(1e3, 1),
			fmt.Sprintf("%.1f", row.FramesIn.Median), fmt.Sprintf("%.1f", row.FramesOut.Median), memory, row.Others.FormatWaited(),
		})
	}
	return table
}

// failures names what has failed, and how often; and, paced, how many
// connections were opened too late.
func (row *Row) failures() string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(row.Failed)) {
		all = append(all, fmt.Sprintf("%d %s", row.Failed[reason], reason))
	}
	if row.Late > 0 {
		all = append(all, fmt.Sprintf("%d late", row.Late))
	}
	if len(all) == 0 {
		return "0"
	}
	return strings.Join(all, ", ")
}
