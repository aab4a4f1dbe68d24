package wire

import (
	"context"
	"fmt"
	"time"

	"weir/perf/measure"
)

// latencyBatch is how many frames the generator makes at a time for Latency. The
// first has waited for the others when it leaves, for less than a microsecond.
const latencyBatch = 8

// idleRate is so few packets per second that the worker sleeps before each.
const idleRate = 100

// idleWindows is for how many windows that is measured. Ten of a second are what a p99
// takes (enough packets above it), and two more are for what the generator is late for.
const idleWindows = 12

// Loads returns the shares of the loss-free rate at which latency is measured. 0
// is [idleRate]: what it takes to wake up.
func Loads() []float64 { return []float64{0, 0.1, 0.5, 0.9} }

// Latencies is how long packets were under way at one load: from the stamp in the
// generator's program to the look at it in the sink's, with all that is between
// them. So it is at most what the subject has added. Percentiles are up to 1/16
// too great.
type Latencies struct {
	Load      float64       `json:"load"` // share of the loss-free rate
	Rate      float64       `json:"offered_pps"`
	Loss      float64       `json:"loss"`
	Packets   uint64        `json:"packets"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	P999      time.Duration `json:"p999_ns"`
	Max       time.Duration `json:"max_ns"`
	Reordered uint64        `json:"reordered"` // with a lower number than one that had arrived before
	Waited    float64       `json:"waited"`    // as in Cell, the worse of worker and generator
}

// latencies measures all loads.
func (r *rig) latencies(ctx context.Context, opt *Options, lossFree int) (all []Latencies, err error) {
	for _, load := range Loads() {
		rate, window := max(int(load*float64(lossFree)), idleRate), opt.Window
		if load == 0 {
			window *= idleWindows
		}
		before, err := r.Sink.Read()
		if err != nil {
			return nil, err
		}
		t, err := r.try(ctx, rate, window)
		if err != nil {
			return nil, err
		}
		after, err := r.Sink.Read()
		if err != nil {
			return nil, err
		}
		h := after.Latency.Since(&before.Latency)
		all = append(all, Latencies{
			Load: load, Rate: float64(t.offered) / t.seconds, Loss: t.loss(), Packets: h.Count(),
			P50: h.Percentile(50), P99: h.Percentile(99), P999: h.Percentile(99.9), Max: h.Max,
			Reordered: after.Reordered - before.Reordered,
			Waited:    t.waited(),
		})
	}
	return all, nil
}

// LatencyRow sums up all rounds of one load. Times are in nanoseconds.
type LatencyRow struct {
	Load    float64        `json:"load"`
	Rate    measure.Spread `json:"offered_pps"`
	Loss    measure.Spread `json:"loss"`
	Packets measure.Spread `json:"packets"`
	P50     measure.Spread `json:"p50_ns"`
	P99     measure.Spread `json:"p99_ns"`
	P999    measure.Spread `json:"p999_ns"`
	Max     measure.Spread `json:"max_ns"`
	Waited  measure.Spread `json:"waited"`
}

func sumUpLatencies(cells []Cell) (rows []LatencyRow) {
	for _, load := range Loads() {
		var all []Latencies
		for i := range cells {
			for _, l := range cells[i].Latencies {
				if l.Load == load {
					all = append(all, l)
				}
			}
		}
		if len(all) == 0 {
			continue
		}
		over := func(value func(*Latencies) float64) measure.Spread { return measure.SpreadOf(all, value) }
		rows = append(rows, LatencyRow{
			Load:    load,
			Packets: over(func(l *Latencies) float64 { return float64(l.Packets) }),
			Rate:    over(func(l *Latencies) float64 { return l.Rate }),
			Loss:    over(func(l *Latencies) float64 { return l.Loss }),
			P50:     over(func(l *Latencies) float64 { return float64(l.P50) }),
			P99:     over(func(l *Latencies) float64 { return float64(l.P99) }),
			P999:    over(func(l *Latencies) float64 { return float64(l.P999) }),
			Max:     over(func(l *Latencies) float64 { return float64(l.Max) }),
			Waited:  over(func(l *Latencies) float64 { return l.Waited }),
		})
	}
	return rows
}

// enough is how many packets have to have been slower than a percentile for it to
// be more than the luck of a few.
const enough = 10

// percentile writes the percentile that one packet of so many is above; "-" if a
// round has too few packets for it.
func (r *LatencyRow) percentile(oneOf float64, s measure.Spread) string {
	if r.Packets.Min < enough*oneOf {
		return "-"
	}
	return s.Format(1e-3, 1)
}

// latencyTable is nil if there is nothing in it.
func (r *Report) latencyTable() (table [][]string) {
	for _, row := range r.Summary {
		for _, l := range row.Latencies {
			load := fmt.Sprintf("%.0f %%", 100*l.Load)
			if l.Load == 0 {
				load = "idle"
			}
			table = append(table, []string{
				measure.Binary(row.Flows), row.Subject, row.Driver, row.Cores.String(), load, l.Rate.Format(1e-3, 1), l.Loss.Format(100, 2),
				l.Packets.Format(1, 0), l.percentile(2, l.P50), l.percentile(100, l.P99), l.percentile(1000, l.P999), l.Max.Format(1e-3, 0), l.Waited.FormatWaited(),
			})
		}
	}
	if table == nil {
		return nil
	}
	return append([][]string{{
		"flows", "subject", "driver", "cores", "load", "offered kpps", "loss %", "packets", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "waited %",
	}}, table...)
}
