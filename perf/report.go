package perf

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"weir/perf/generator"
	"weir/perf/loops"
)

// Report is the outcome of a run, complete: whoever reads it needs nothing else
// to judge it. Rates are in frames per second.
type Report struct {
	Measured    time.Time `json:"measured"`
	Machine     Machine   `json:"machine"`
	Driver      string    `json:"driver"`
	Mode        string    `json:"mode"`
	Libraries   []string  `json:"libraries"`
	FrameLen    int       `json:"frame_len"` // bytes
	Flows       uint32    `json:"flows"`
	Ring        int       `json:"ring"` // entries
	Window      float64   `json:"window_seconds"`
	Step        float64   `json:"step_seconds"` // of the binary search
	MaxLoss     float64   `json:"max_loss"`     // of a loss-free trial
	GeneratorOn int       `json:"generator_cpu"`
	LoopOn      int       `json:"loop_cpu"`
	Seed        uint64    `json:"seed"` // of the order
	Summary     []Row     `json:"summary"`
	Cells       []Cell    `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one loop in one scenario, but for failed ones.
type Row struct {
	Loop      loops.Kind `json:"loop"`
	Scenario  Scenario   `json:"scenario"`
	Rounds    int        `json:"rounds"`
	Failed    int        `json:"failed"` // rounds in which no rate without loss was found
	Offered   Spread     `json:"offered_pps"`
	Delivered Spread     `json:"delivered_pps"`
	Loss      Spread     `json:"loss"`
	NsPerPkt  Spread     `json:"ns_per_packet"`
	Waited    Spread     `json:"waited"` // the worse of loop and generator
}

// Spread is a median and how far the single values are from it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// disturbed is the share of time waited for a core from which on a measurement
// says little.
const disturbed = 0.01

func newReport(opt *Options) (Report, error) {
	machine, err := thisMachine()
	return Report{
		Measured:    time.Now().UTC().Truncate(time.Second),
		Machine:     machine,
		Driver:      "veth (ifb in send)",
		Mode:        "copy",
		Libraries:   []string{"weir/dataplane/afxdp", "github.com/asavie/xdp " + loops.AsavieVersion},
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

// add adds a cell and sums up again.
func (r *Report) add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	for _, scenario := range Scenarios() {
		for _, kind := range loops.Kinds() {
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
			over := func(value func(*Cell) float64) Spread { return spread(cells, value) }
			row.Offered = over(func(c *Cell) float64 { return c.Offered })
			row.Delivered = over(func(c *Cell) float64 { return c.Delivered })
			row.Loss = over(func(c *Cell) float64 { return c.Loss })
			row.NsPerPkt = over(func(c *Cell) float64 { return c.NsPerPkt })
			row.Waited = over(func(c *Cell) float64 { return max(c.LoopWaited, c.GeneratorWaited) })
			r.Summary = append(r.Summary, row)
		}
	}
}

// spread is zero without cells. The median of an even number is the mean of the
// two in the middle.
func spread(cells []Cell, value func(*Cell) float64) Spread {
	var values []float64
	for i := range cells {
		values = append(values, value(&cells[i]))
	}
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	n := len(values)
	return Spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Min: values[0], Max: values[n-1]}
}

// WriteText writes the summary for a terminal.
func (r Report) WriteText(w io.Writer) error {
	if _, err := fmt.Fprintln(w, r.conditions()); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range r.table() {
		fmt.Fprintln(t, strings.Join(line, "\t"))
	}
	return t.Flush()
}

// WriteMarkdown writes the summary for a page.
func (r Report) WriteMarkdown(w io.Writer) error {
	table := r.table()
	rule := make([]string, len(table[0]))
	for i := range rule {
		rule[i] = "---"
	}
	var b strings.Builder
	for _, line := range slices.Insert(table, 1, rule) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	_, err := fmt.Fprintf(w, "%s\n\n%s", r.conditions(), b.String())
	return err
}

func (r *Report) conditions() string {
	m := &r.Machine
	return fmt.Sprintf("%s, Linux %s, %d x %s, %s, weir %s: %s, %s mode, frames of %d bytes, %d flows, rings of %d, windows of %g s.",
		r.Measured.Format(time.DateOnly), m.Kernel, m.CPUs, m.CPU, m.Go, shortCommit(m.Commit), r.Driver, r.Mode, r.FrameLen, r.Flows, r.Ring, r.Window)
}

func (r *Report) table() [][]string {
	table := [][]string{{"scenario", "loop", "rounds", "offered Mpps", "delivered Mpps", "loss %", "core ns/frame", "waited %"}}
	for _, row := range r.Summary {
		waited := row.Waited.format(100, 1)
		if row.Waited.Median > disturbed {
			waited += " disturbed"
		}
		offered, loss := row.Offered.format(1e-6, 2), row.Loss.format(100, 2)
		if row.Scenario == SendOnly {
			offered, loss = "-", "-"
		}
		rounds := fmt.Sprint(row.Rounds)
		if row.Failed > 0 {
			rounds += fmt.Sprintf(", %d failed", row.Failed)
		}
		table = append(table, []string{
			string(row.Scenario), string(row.Loop), rounds,
			offered, row.Delivered.format(1e-6, 2), loss, row.NsPerPkt.format(1, 0), waited,
		})
	}
	return table
}

// format writes the median and, in brackets, smallest and largest.
func (s Spread) format(scale float64, digits int) string {
	f := func(v float64) string { return fmt.Sprintf("%.*f", digits, v*scale) }
	return fmt.Sprintf("%s (%s-%s)", f(s.Median), f(s.Min), f(s.Max))
}

// ReadReport reads a report that was written as JSON.
func ReadReport(path string) (r Report, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read report: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read report %s: %w", path, err)
	}
	return r, nil
}

// WriteFile writes the report as JSON.
func (r Report) WriteFile(path string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// round3 makes a rate readable in a log.
func round3(perSecond float64) float64 { return math.Round(perSecond/1000) / 1000 }
