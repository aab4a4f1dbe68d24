package wire

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weir/perf/measure"
)

// Report is the outcome of [Run], complete: whoever reads it needs nothing else
// to judge it. Rates are in frames per second.
type Report struct {
	measure.Head
	Libraries []string          `json:"libraries,omitempty"` // and what else is measured that is not weir's, with its version
	TCP       bool              `json:"tcp,omitempty"`       // not UDP
	FrameLen  int               `json:"frame_len,omitempty"` // bytes; 0 for the least that there is room for: 60, and more over IPv6 or with a stamp
	Zipf      float64           `json:"zipf,omitempty"`      // exponent of how popular flows are
	Verified  bool              `json:"verified,omitempty"`  // each packet that arrived by the wire
	Window    float64           `json:"window_seconds"`
	Step      float64           `json:"step_seconds"` // of the binary search, and of warming up
	MaxLoss   float64           `json:"max_loss"`     // of a loss-free trial
	LeftOut   map[string]string `json:"left_out,omitempty"`
	Summary   []Row             `json:"summary"`
	Cells     []Cell            `json:"cells"` // in the order of measuring
}

// Row sums up all rounds of one subject in one scenario with so many flows, but
// for failed ones.
type Row struct {
	Subject  string   `json:"subject"`
	Driver   string   `json:"driver"`
	Mode     string   `json:"mode"`
	IPv6     bool     `json:"ipv6,omitempty"`
	Scenario Scenario `json:"scenario"`
	Flows    uint32   `json:"flows"`
	Cores    Cores    `json:"cores"`

	Rounds    int            `json:"rounds"`
	Failed    int            `json:"failed,omitempty"`       // rounds in which nothing arrived, or not what should, or no rate without loss was found
	Limited   int            `json:"by_generator,omitempty"` // rounds in which the generator was what a rate without loss was limited by; they are in no ratio
	Idle      int            `json:"idle,omitempty"`         // rounds of Core in which the worker was not busy all the time; they are in no ratio
	Offered   measure.Spread `json:"offered_pps"`
	Delivered measure.Spread `json:"delivered_pps"`
	Loss      measure.Spread `json:"loss"`
	NsPerPkt  measure.Spread `json:"ns_per_packet"`
	NsUser    measure.Spread `json:"ns_user"`
	Known     measure.Spread `json:"known,omitzero"` // flows when the measurement began; zero if the subject knows none
	Unknown   measure.Spread `json:"unknown"`
	Memory    measure.Spread `json:"memory"` // bytes; zero in the kernel
	Waited    measure.Spread `json:"waited"` // the worse of worker and generator

	Latencies []LatencyRow `json:"latencies,omitempty"` // in Latency alone

	// How many times as much as its floor, and as nftables DNAT, the subject
	// does: for each second of a core in Core, else in a second.
	OfFloor *Ratio `json:"of_floor,omitempty"`
	OfDNAT  *Ratio `json:"of_nft_dnat,omitempty"`
}

// Ratio compares two subjects in the same scenario with the same flows.
type Ratio struct {
	Median float64        `json:"median"` // of the medians
	Rounds measure.Spread `json:"rounds"` // of the ratios in each round
}

func newReport(opt *Options) (Report, error) {
	head, err := opt.Begin()
	if err != nil {
		return Report{}, err
	}
	all, err := subjects(opt.Subjects)
	return Report{
		Head:      head,
		Libraries: versions(all),
		TCP:       opt.TCP,
		FrameLen:  opt.FrameLen,
		Zipf:      opt.Zipf,
		Verified:  opt.Verify,
		Window:    opt.Window.Seconds(),
		Step:      opt.Step.Seconds(),
		MaxLoss:   MaxLoss,
	}, err
}

// leaveOut notes why a subject cannot be measured.
func (r *Report) leaveOut(subject string, why error) {
	if r.LeftOut == nil {
		r.LeftOut = make(map[string]string)
	}
	r.LeftOut[subject] = why.Error()
}

// Reasons returns what was left out, and why.
func (r Report) Reasons() (all []string) {
	for _, subject := range slices.Sorted(maps.Keys(r.LeftOut)) {
		all = append(all, fmt.Sprintf("%s: %s", subject, r.LeftOut[subject]))
	}
	return all
}

// key is what cells of one row have in common.
type key struct {
	subject  string
	scenario Scenario
	flows    uint32
}

// Add adds a cell and sums up again.
func (r *Report) Add(c Cell) {
	r.Cells = append(r.Cells, c)
	r.Summary = nil
	cells := measure.GroupBy(r.Cells, func(c *Cell) key { return key{c.Subject, c.Scenario, c.Flows} })
	flows := slices.Sorted(maps.Keys(measure.GroupBy(r.Cells, func(c *Cell) uint32 { return c.Flows })))
	for _, scenario := range Scenarios() {
		for _, n := range flows {
			for _, s := range Subjects() {
				mine := cells[key{s.Name, scenario, n}]
				if len(mine) == 0 {
					continue
				}
				row := sumUp(&s, mine)
				row.OfFloor = compare(mine, cells[key{s.Floor, scenario, n}])
				if s.Name != NftDNAT && !s.IPv6 {
					row.OfDNAT = compare(mine, cells[key{NftDNAT, scenario, n}])
				}
				r.Summary = append(r.Summary, row)
			}
		}
	}
}

func sumUp(s *Subject, all []Cell) Row {
	row := Row{
		Subject: s.Name, Driver: s.DriverName(), Mode: s.Mode(), IPv6: s.IPv6,
		Scenario: all[0].Scenario, Flows: all[0].Flows, Cores: all[0].Cores, Rounds: len(all),
	}
	var cells []Cell
	for _, c := range all {
		if c.failed() {
			row.Failed++
			continue
		}
		if c.ByGenerator {
			row.Limited++
		}
		if c.idles() {
			row.Idle++
		}
		cells = append(cells, c)
	}
	over := func(value func(*Cell) float64) measure.Spread { return measure.SpreadOf(cells, value) }
	row.Latencies = sumUpLatencies(cells)
	row.Offered = over(func(c *Cell) float64 { return c.Offered })
	row.Delivered = over(func(c *Cell) float64 { return c.Delivered })
	row.Loss = over(func(c *Cell) float64 { return c.Loss })
	row.Memory = over(func(c *Cell) float64 { return float64(c.Memory) })
	known := slices.DeleteFunc(slices.Clone(cells), func(c Cell) bool { return c.Known == nil })
	row.Known = measure.SpreadOf(known, func(c *Cell) float64 { return float64(*c.Known) })
	row.Unknown = over(func(c *Cell) float64 { return c.Unknown })
	timed := slices.DeleteFunc(slices.Clone(cells), func(c Cell) bool { return c.NsPerPkt == 0 })
	row.NsPerPkt = measure.SpreadOf(timed, func(c *Cell) float64 { return c.NsPerPkt })
	row.NsUser = measure.SpreadOf(timed, func(c *Cell) float64 { return c.NsUser })
	row.Waited = over(func(c *Cell) float64 { return max(c.WorkerWaited, c.GeneratorWaited) })
	return row
}

// value is the figure by which a cell is compared; zero if it has none.
func (c *Cell) value() float64 {
	switch {
	case c.failed() || c.ByGenerator || c.idles():
		return 0
	case c.Scenario != Core:
		return c.Delivered
	case c.NsPerPkt == 0:
		return 0
	}
	return 1e9 / c.NsPerPkt
}

// compare returns what mine are of theirs; nil if there are none in the same
// rounds.
func compare(mine, theirs []Cell) *Ratio {
	var ratios, a, b []float64
	for i := range mine {
		for j := range theirs {
			if m, t := mine[i].value(), theirs[j].value(); mine[i].Round == theirs[j].Round && m > 0 && t > 0 {
				ratios, a, b = append(ratios, m/t), append(a, m), append(b, t)
			}
		}
	}
	if len(ratios) == 0 {
		return nil
	}
	itself := func(v *float64) float64 { return *v }
	return &Ratio{
		Median: measure.SpreadOf(a, itself).Median / measure.SpreadOf(b, itself).Median,
		Rounds: measure.SpreadOf(ratios, itself),
	}
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "wire" }

// Tables is that of a [measure.Report]: the summary.
func (r Report) Tables() []measure.Table {
	tables := []measure.Table{{Title: r.conditions(), Lines: r.table()}}
	if latencies := r.latencyTable(); latencies != nil {
		tables = append(tables, measure.Table{Title: "How long packets were under way, at shares of the loss-free rate:", Lines: latencies})
	}
	return tables
}

func (r *Report) conditions() string {
	frames := "the shortest frames"
	if r.FrameLen > 0 {
		frames = fmt.Sprintf("frames of %d bytes", r.FrameLen)
	}
	if r.Zipf > 0 {
		frames += fmt.Sprintf(", flows by Zipf's law (%g)", r.Zipf)
	}
	if r.Verified {
		frames += ", checked"
	}
	protocol := "UDP"
	if r.TCP {
		protocol = "TCP"
	}
	text := fmt.Sprintf("%s: veth, %s, %s, windows of %g s; cores are generator/receive/worker/transmit/sink.",
		r.At(), protocol, frames, r.Window)
	if len(r.Libraries) > 0 {
		text += fmt.Sprintf(" With %s.", strings.Join(r.Libraries, ", "))
	}
	if names := slices.Sorted(maps.Keys(r.LeftOut)); len(names) > 0 {
		text += fmt.Sprintf(" Not on this machine: %s.", strings.Join(names, ", "))
	}
	return text
}

func (r *Report) table() [][]string {
	table := [][]string{{
		"scenario", "flows", "known %", "subject", "driver", "cores", "rounds", "offered Mpps", "delivered Mpps", "loss %", "worker core ns/packet", "in Go",
		"of floor", "of nft-dnat", "waited %",
	}}
	for _, row := range r.Summary {
		offered, loss := row.Offered.Format(1e-6, 2), row.Loss.Format(100, 2)
		if row.Scenario == Send {
			offered, loss = "-", "-"
		}
		rounds := fmt.Sprint(row.Rounds)
		if row.Failed > 0 {
			rounds += fmt.Sprintf(", %d failed", row.Failed)
		}
		if row.Limited > 0 {
			rounds += fmt.Sprintf(", %d by generator", row.Limited)
		}
		if row.Idle > 0 {
			rounds += fmt.Sprintf(", %d idle", row.Idle)
		}
		ns := "-"
		if row.NsPerPkt.Median > 0 {
			ns = row.NsPerPkt.Format(1, 0)
		}
		user := "-"
		if row.NsUser.Median > 0 {
			user = fmt.Sprintf("%.0f", row.NsUser.Median)
		}
		known := "-"
		if row.Known.Median > 0 {
			known = fmt.Sprintf("%.1f", 100*row.Known.Median/float64(row.Flows))
		}
		table = append(table, []string{
			string(row.Scenario), measure.Binary(row.Flows), known, row.Subject, row.Driver, row.Cores.String(), rounds,
			offered, row.Delivered.Format(1e-6, 2), loss, ns, user, row.OfFloor.String(), row.OfDNAT.String(), row.Waited.FormatWaited(),
		})
	}
	return table
}

// String writes the ratio of medians and, in brackets, smallest and largest of
// the rounds.
func (r *Ratio) String() string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", r.Median, r.Rounds.Min, r.Rounds.Max)
}
