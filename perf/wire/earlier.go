package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"weir/perf/loops"
	"weir/perf/measure"
)

// Earlier is a report as it was before there were subjects, when only loops were
// measured, and weir in the place of one. None is made any more.
type Earlier struct {
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
	Summary     []EarlierRow    `json:"summary"`
	Cells       []EarlierCell   `json:"cells"` // in the order of measuring
}

// Either is a file of the commands loops and modes: a [Report], or, from before there
// were subjects, an [Earlier].
type Either struct{ measure.Report }

// UnmarshalJSON implements json.Unmarshaler. Only an Earlier has a CPU of its loop.
func (e *Either) UnmarshalJSON(b []byte) error {
	var is struct {
		LoopOn *int `json:"loop_cpu"`
	}
	if err := json.Unmarshal(b, &is); err != nil {
		return err
	}
	if is.LoopOn != nil {
		var r Earlier
		err := json.Unmarshal(b, &r)
		e.Report = r
		return err
	}
	var r Report
	err := json.Unmarshal(b, &r)
	e.Report = r
	return err
}

// EarlierRow sums up all rounds of one loop in one scenario, but for failed ones.
type EarlierRow struct {
	Loop      string         `json:"loop"`
	Scenario  Scenario       `json:"scenario"`
	Rounds    int            `json:"rounds"`
	Failed    int            `json:"failed"` // rounds in which no rate without loss was found
	Offered   measure.Spread `json:"offered_pps"`
	Delivered measure.Spread `json:"delivered_pps"`
	Loss      measure.Spread `json:"loss"`
	NsPerPkt  measure.Spread `json:"ns_per_packet"`
	Waited    measure.Spread `json:"waited"` // the worse of loop and generator
}

// Add adds a cell and sums up again.
func (r *Earlier) Add(c EarlierCell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	for _, scenario := range []Scenario{earlierOverload, LossFree, Send} {
		for _, kind := range earlierLoops {
			row := EarlierRow{Loop: kind, Scenario: scenario}
			var cells []EarlierCell
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
			over := func(value func(*EarlierCell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
			row.Offered = over(func(c *EarlierCell) float64 { return c.Offered })
			row.Delivered = over(func(c *EarlierCell) float64 { return c.Delivered })
			row.Loss = over(func(c *EarlierCell) float64 { return c.Loss })
			row.NsPerPkt = over(func(c *EarlierCell) float64 { return c.NsPerPkt })
			row.Waited = over(func(c *EarlierCell) float64 { return max(c.LoopWaited, c.GeneratorWaited) })
			r.Summary = append(r.Summary, row)
		}
	}
}

// WriteText writes the summary for a terminal.
func (r Earlier) WriteText(w io.Writer) error { return measure.WriteText(w, r.conditions(), r.table()) }

// WriteMarkdown writes the summary for a page.
func (r Earlier) WriteMarkdown(w io.Writer) error {
	return measure.WriteMarkdown(w, r.conditions(), r.table())
}

func (r *Earlier) conditions() string {
	return fmt.Sprintf("%s: %s, %s mode, frames of %d bytes, %d flows, rings of %d, windows of %g s.",
		r.Machine.At(r.Measured), r.Driver, r.Mode, r.FrameLen, r.Flows, r.Ring, r.Window)
}

func (r *Earlier) table() [][]string {
	table := [][]string{{"scenario", "loop", "rounds", "offered Mpps", "delivered Mpps", "loss %", "core ns/frame", "waited %"}}
	for _, row := range r.Summary {
		offered, loss := row.Offered.Format(1e-6, 2), row.Loss.Format(100, 2)
		if row.Scenario == Send {
			offered, loss = "-", "-"
		}
		rounds := fmt.Sprint(row.Rounds)
		if row.Failed > 0 {
			rounds += fmt.Sprintf(", %d failed", row.Failed)
		}
		table = append(table, []string{
			string(row.Scenario), row.Loop, rounds,
			offered, row.Delivered.Format(1e-6, 2), loss, row.NsPerPkt.Format(1, 0), row.Waited.FormatWaited(),
		})
	}
	return table
}

// What was measured, in the order of tables.
const earlierOverload Scenario = "overload"

var earlierLoops = []string{"own", "asavie", "asavie-drained", "weir-dsr", "weir-nat", "weir-keep", "weir-keep-2"}

// EarlierCell is one measurement in an [Earlier]. Rates are in frames per second.
type EarlierCell struct {
	Loop     string   `json:"loop"`
	Scenario Scenario `json:"scenario"`
	Round    int      `json:"round"`

	Seconds   float64 `json:"seconds"`
	Asked     int     `json:"asked_pps"`
	Offered   float64 `json:"offered_pps"`
	Delivered float64 `json:"delivered_pps"`
	Loss      float64 `json:"loss"`
	NsPerPkt  float64 `json:"ns_per_packet"`

	LoopWaited      float64 `json:"loop_waited"`
	GeneratorWaited float64 `json:"generator_waited"`

	Account struct {
		Offered   uint64 `json:"offered"`
		Refused   uint64 `json:"refused"`
		Delivered uint64 `json:"delivered"`
		loops.Counters
	} `json:"account"`
}

func (c *EarlierCell) failed() bool {
	return c.Scenario == LossFree && (c.Loss > MaxLoss || c.Delivered == 0)
}
