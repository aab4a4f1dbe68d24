package wire

import (
	"fmt"
	"io"
	"slices"
	"time"

	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
)

// Report is the outcome of a run, complete: whoever reads it needs nothing else
// to judge it. Rates are in frames per second.
type Report struct {
	Measured    time.Time       `json:"measured"`
	Machine     measure.Machine `json:"machine"`
	Driver      string          `json:"driver"`
	Mode        string          `json:"mode"`
	Libraries   []string        `json:"libraries"`
	FrameLen    int             `json:"frame_len"` // bytes
	Flows       uint32          `json:"flows"`
	Ring        int             `json:"ring"` // entries
	Window      float64         `json:"window_seconds"`
	Step        float64         `json:"step_seconds"` // of the binary search
	MaxLoss     float64         `json:"max_loss"`     // of a loss-free trial
	GeneratorOn int             `json:"generator_cpu"`
	LoopOn      int             `json:"loop_cpu"`
	Seed        uint64          `json:"seed"` // of the order
	Summary     []Row           `json:"summary"`
	Cells       []Cell          `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one loop in one scenario, but for failed ones.
type Row struct {
	Loop      loops.Kind     `json:"loop"`
	Scenario  Scenario       `json:"scenario"`
	Rounds    int            `json:"rounds"`
	Failed    int            `json:"failed"` // rounds in which no rate without loss was found
	Offered   measure.Spread `json:"offered_pps"`
	Delivered measure.Spread `json:"delivered_pps"`
	Loss      measure.Spread `json:"loss"`
	NsPerPkt  measure.Spread `json:"ns_per_packet"`
	Waited    measure.Spread `json:"waited"` // the worse of loop and generator
}

func newReport(opt *Options) (Report, error) {
	machine, err := measure.ThisMachine()
	return Report{
		Measured:    time.Now().UTC().Truncate(time.Second),
		Machine:     machine,
		Driver:      "veth (ifb in send)",
		Mode:        "copy",
		Libraries:   libraries(opt.Kinds),
		FrameLen:    generator.FrameLen,
		Flows:       opt.Flows,
		Ring:        opt.Ring,
		Window:      opt.Window.Seconds(),
		Step:        opt.Step.Seconds(),
		MaxLoss:     MaxLoss,
		GeneratorOn: opt.CPUs[0],
		LoopOn:      opt.CPUs[1],
		Seed:        opt.Seed,
	}, err
}

// libraries returns what there is in loops of these kinds.
func libraries(kinds []loops.Kind) []string {
	var all []string
	for _, kind := range kinds {
		name := "weir/dataplane/engine"
		switch kind {
		case loops.Own:
			name = "weir/dataplane/afxdp"
		case loops.Asavie, loops.AsavieDrained:
			name = "github.com/asavie/xdp " + loops.AsavieVersion
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	for _, scenario := range Scenarios() {
		for _, kind := range append(loops.Kinds(), Balancers()...) {
			row := Row{Loop: kind, Scenario: scenario}
			var cells []Cell
			for _, c := range r.Cells {
				if c.Loop != kind || c.Scenario != scenario {
					continue
				}
				row.Rounds++
				if c.failed() {
					row.Failed++
				} else {
					cells = append(cells, c)
				}
			}
			if row.Rounds == 0 {
				continue
			}
			over := func(value func(*Cell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
			row.Offered = over(func(c *Cell) float64 { return c.Offered })
			row.Delivered = over(func(c *Cell) float64 { return c.Delivered })
			row.Loss = over(func(c *Cell) float64 { return c.Loss })
			row.NsPerPkt = over(func(c *Cell) float64 { return c.NsPerPkt })
			row.Waited = over(func(c *Cell) float64 { return max(c.LoopWaited, c.GeneratorWaited) })
			r.Summary = append(r.Summary, row)
		}
	}
}

// WriteText writes the summary for a terminal.
func (r Report) WriteText(w io.Writer) error { return measure.WriteText(w, r.conditions(), r.table()) }

// WriteMarkdown writes the summary for a page.
func (r Report) WriteMarkdown(w io.Writer) error {
	return measure.WriteMarkdown(w, r.conditions(), r.table())
}

func (r *Report) conditions() string {
	return fmt.Sprintf("%s: %s, %s mode, frames of %d bytes, %d flows, rings of %d, windows of %g s.",
		r.Machine.At(r.Measured), r.Driver, r.Mode, r.FrameLen, r.Flows, r.Ring, r.Window)
}

func (r *Report) table() [][]string {
	table := [][]string{{"scenario", "loop", "rounds", "offered Mpps", "delivered Mpps", "loss %", "core ns/frame", "waited %"}}
	for _, row := range r.Summary {
		offered, loss := row.Offered.Format(1e-6, 2), row.Loss.Format(100, 2)
		if row.Scenario == SendOnly {
			offered, loss = "-", "-"
		}
		rounds := fmt.Sprint(row.Rounds)
		if row.Failed > 0 {
			rounds += fmt.Sprintf(", %d failed", row.Failed)
		}
		table = append(table, []string{
			string(row.Scenario), string(row.Loop), rounds,
			offered, row.Delivered.Format(1e-6, 2), loss, row.NsPerPkt.Format(1, 0), row.Waited.FormatWaited(),
		})
	}
	return table
}
