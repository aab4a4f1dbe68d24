package ladder

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"weir/dataplane/forward"
	"weir/perf/measure"
)

// Report is the outcome of a run, complete. Times are in ns of CPU per packet.
type Report struct {
	measure.Head
	FrameLen int      `json:"frame_len"` // bytes, of IPv4
	Batch    int      `json:"batch"`     // packets; 0: earlier reports do not say
	Window   float64  `json:"window_seconds"`
	CPU      int      `json:"cpu"`
	Skipped  []string `json:"skipped"` // and why
	Memory   []Memory `json:"memory"`
	Summary  []Row    `json:"summary"`
	Samples  []Sample `json:"samples"` // in the order of measuring
}

// Row sums up all rounds of a cell.
type Row struct {
	Cell
	Rounds int            `json:"rounds"`
	Gross  measure.Spread `json:"gross_ns"`
	Own    measure.Spread `json:"own_ns"`
	Target float64        `json:"target_ns"` // of Own's median: at most; 0 without one
}

// Missed tells whether there is a target, and it is not reached.
func (r *Row) Missed() bool { return r.Target > 0 && r.Own.Median > r.Target }

func newReport(opt *Options) (Report, error) {
	head, err := measure.NewHead(opt.Seed)
	return Report{
		Head:     head,
		FrameLen: frameLen,
		Batch:    forward.BatchSize,
		Window:   opt.Window.Seconds(),
		CPU:      opt.CPU,
	}, err
}

// UnmarshalJSON reads earlier reports too, which do not mark the
// rows with few buffers.
func (r *Report) UnmarshalJSON(b []byte) error {
	type plain Report
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	if r.Batch > 0 {
		return nil
	}
	for i := range r.Samples {
		r.Samples[i].Few = r.Samples[i].Buffers == oldFewBuffers
	}
	for i := range r.Summary {
		r.Summary[i].Few = r.Summary[i].Buffers == oldFewBuffers
	}
	return nil
}

// SumUp makes the summary of the samples.
func (r *Report) SumUp() {
	r.Summary = nil
	var cells []Cell
	samples := make(map[Cell][]Sample)
	for _, s := range r.Samples {
		if samples[s.Cell] == nil {
			cells = append(cells, s.Cell)
		}
		samples[s.Cell] = append(samples[s.Cell], s)
	}
	slices.SortFunc(cells, compareCells)
	for _, c := range cells {
		r.Summary = append(r.Summary, Row{
			Cell:   c,
			Rounds: len(samples[c]),
			Gross:  measure.SpreadOf(samples[c], func(s *Sample) float64 { return s.Gross }),
			Own:    measure.SpreadOf(samples[c], (*Sample).Own),
		})
	}
	for i := range r.Summary {
		r.Summary[i].Target = r.target(r.Summary[i].Cell)
	}
}

func compareCells(a, b Cell) int {
	boolean := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(slices.Index(Rungs(), a.Rung), slices.Index(Rungs(), b.Rung)),
		cmp.Compare(slices.Index(Modes(), a.Mode), slices.Index(Modes(), b.Mode)),
		-cmp.Compare(a.Protocol, b.Protocol),
		boolean(a.Other)-boolean(b.Other),
		cmp.Compare(b.Buffers, a.Buffers),
		boolean(a.Scattered)-boolean(b.Scattered),
		cmp.Compare(a.Services, b.Services),
		cmp.Compare(a.Backends, b.Backends),
		cmp.Compare(a.Flows, b.Flows),
		cmp.Compare(a.Entries, b.Entries),
	)
}

// Row returns the row of a cell.
func (r *Report) Row(c Cell) (Row, bool) {
	for _, row := range r.Summary {
		if row.Cell == c {
			return row, true
		}
	}
	return Row{}, false
}

// Reasons returns what was not measured, and why.
func (r Report) Reasons() []string { return r.Skipped }

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "ladder" }

// Tables is that of a [measure.Report]: the summary, in those tables that have
// something in them.
func (r Report) Tables() []measure.Table {
	tables := []measure.Table{{Title: r.conditions()}}
	for _, t := range []measure.Table{
		{Title: "Own work in ns per packet, by the number of flows: median (smallest-largest), and a target (≤).", Lines: r.byFlows()},
		{Title: "Gross, with the restoring of packets: median.", Lines: r.grossByFlows()},
		{Title: "Own work in ns per packet where something else varies.", Lines: r.others()},
		{Title: "Memory, and the CPU time to make it.", Lines: r.memory()},
	} {
		if len(t.Lines) > 1 {
			tables = append(tables, t)
		}
	}
	return tables
}

func (r *Report) conditions() string {
	rounds := 0
	for _, row := range r.Summary {
		rounds = max(rounds, row.Rounds)
	}
	s := fmt.Sprintf("%s: no I/O, frames of %d bytes (IPv4), %d rounds of %g ms each.",
		r.At(), r.FrameLen, rounds, r.Window*1000)
	for _, skipped := range r.Skipped {
		s += " Left out: " + skipped + "."
	}
	return s
}

// line is a line of the tables by flows: a cell without its flows and the size of
// its table, which goes with them.
func line(c Cell) Cell {
	c.Flows, c.Entries = 0, 0
	return c
}

// tabled tells whether a row is in the tables by flows.
func (c *Cell) tabled() bool {
	return c.remembers() && !c.Scattered && c.Services == 1 && c.Backends == usualBackends
}

func (r *Report) byFlows() [][]string {
	return r.pivot(func(row *Row) string { return row.own() })
}

func (r *Report) grossByFlows() [][]string {
	return r.pivot(func(row *Row) string { return fmt.Sprintf("%.1f", row.Gross.Median) })
}

// own writes own work and its target.
func (r *Row) own() string {
	s := r.Own.Format(1, 1)
	switch {
	case r.Missed():
		return fmt.Sprintf("%s, ≤ %.0f missed", s, r.Target)
	case r.Target > 0:
		return fmt.Sprintf("%s, ≤ %.0f", s, r.Target)
	}
	return s
}

func (r *Report) pivot(value func(*Row) string) [][]string {
	var flows []uint32
	var lines []Cell
	values := make(map[Cell]map[uint32]string)
	for i := range r.Summary {
		row := &r.Summary[i]
		if !row.tabled() {
			continue
		}
		l := line(row.Cell)
		if values[l] == nil {
			values[l] = make(map[uint32]string)
			lines = append(lines, l)
		}
		values[l][row.Flows] = value(row)
		if !slices.Contains(flows, row.Flows) {
			flows = append(flows, row.Flows)
		}
	}
	slices.Sort(flows)
	head := []string{"rung", "mode", "packets"}
	for _, n := range flows {
		head = append(head, measure.Binary(n)+" flows")
	}
	table := [][]string{head}
	for _, l := range lines {
		out := []string{string(l.Rung), string(l.Mode), packets(l)}
		for _, n := range flows {
			out = append(out, cmp.Or(values[l][n], "-"))
		}
		table = append(table, out)
	}
	return table
}

// packets says what packets there are.
func packets(c Cell) string {
	s := string(c.Protocol)
	if c.Few {
		s += fmt.Sprintf(", in %d buffers", c.Buffers)
	}
	return s
}

func (r *Report) others() [][]string {
	table := [][]string{{"rung", "mode", "packets", "services", "backends each", "flows", "flow table", "own", "gross"}}
	for i := range r.Summary {
		row := &r.Summary[i]
		varied := row.Services != 1 || row.Backends != usualBackends || row.Scattered
		if row.tabled() && !varied {
			continue
		}
		flows, entries, services, backends := "-", "-", "-", "-"
		if row.Rung != Kernel {
			services, backends = fmt.Sprint(row.Services), fmt.Sprint(row.Backends)
			flows = measure.Binary(row.Flows)
		}
		if row.Rung == Miss {
			flows = "all new"
		}
		if row.Entries > 0 {
			entries = measure.Binary(uint32(row.Entries))
		}
		var notes []string
		if row.Scattered {
			notes = append(notes, "in random order")
		}
		if row.Other {
			notes = append(notes, "for no VIP")
		}
		table = append(table, []string{
			string(row.Rung), string(row.Mode), strings.Join(append([]string{packets(row.Cell)}, notes...), ", "),
			services, backends, flows, entries, row.own(), row.Gross.Format(1, 1),
		})
	}
	return table
}

func (r *Report) memory() [][]string {
	table := [][]string{{"what", "MB", "ms"}}
	for _, m := range r.Memory {
		table = append(table, []string{m.What, fmt.Sprintf("%.2f", float64(m.Bytes)/1e6), fmt.Sprintf("%.2f", m.Seconds*1e3)})
	}
	return table
}
