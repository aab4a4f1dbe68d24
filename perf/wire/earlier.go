package wire

import (
	"fmt"

	"weir/perf/loops"
	"weir/perf/measure"
)

// Earlier is a report as it was before there were subjects, when only loops were
// measured, and weir in the place of one. None is made any more.
type Earlier struct {
	measure.Head
	Driver      string        `json:"driver"`
	Mode        string        `json:"mode"`
	Libraries   []string      `json:"libraries"`
	FrameLen    int           `json:"frame_len"` // bytes
	Flows       uint32        `json:"flows"`
	Ring        int           `json:"ring"` // entries
	Window      float64       `json:"window_seconds"`
	Step        float64       `json:"step_seconds"` // of the binary search
	MaxLoss     float64       `json:"max_loss"`     // of a loss-free trial
	GeneratorOn int           `json:"generator_cpu"`
	LoopOn      int           `json:"loop_cpu"`
	Summary     []EarlierRow  `json:"summary"`
	Cells       []EarlierCell `json:"cells"` // in the order of measuring
}

// ReadEither reads a report of some subjects (see LoopsCommand, ModesCommand):
// a [Report], or, from before there were subjects, an [Earlier].
func ReadEither(path string) (measure.Report, error) {
	kind, err := measure.FileKind(path)
	if err != nil {
		return nil, err
	}
	if kind != "" && kind != "loops" && kind != "modes" {
		return measure.ReadFile[Report](path)
	}
	if r, err := measure.ReadAny[Report](path); err == nil && len(r.Cells) > 0 && r.Cells[0].Subject != "" {
		return r, nil // of before there were kinds
	}
	return measure.ReadAny[Earlier](path)
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
	type key struct {
		loop     string
		scenario Scenario
	}
	all := measure.GroupBy(r.Cells, func(c *EarlierCell) key { return key{c.Loop, c.Scenario} })
	for _, scenario := range []Scenario{earlierOverload, LossFree, Send} {
		for _, kind := range earlierLoops {
			row := EarlierRow{Loop: kind, Scenario: scenario}
			var cells []EarlierCell
			for _, c := range all[key{kind, scenario}] {
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

// Kind is that of a [measure.Report].
func (r Earlier) Kind() string { return "loops" }

// Tables is that of a [measure.Report]: the summary.
func (r Earlier) Tables() []measure.Table {
	return []measure.Table{{Title: r.conditions(), Lines: r.table()}}
}

func (r *Earlier) conditions() string {
	return fmt.Sprintf("%s: %s, %s mode, frames of %d bytes, %d flows, rings of %d, windows of %g s.",
		r.At(), r.Driver, r.Mode, r.FrameLen, r.Flows, r.Ring, r.Window)
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
