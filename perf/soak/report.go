package soak

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/perf/balancer"
	"weir/perf/measure"
	"weir/perf/sink"
)

// Report is the outcome of a run, complete.
type Report struct {
	measure.Head
	Driver      string        `json:"driver"`
	Mode        balancer.Mode `json:"mode"`
	Flows       uint32        `json:"flows"`
	New         float64       `json:"new"` // share of packets
	Entries     int           `json:"entries"`
	Every       float64       `json:"every_seconds"`
	GeneratorOn int           `json:"generator_cpu"`
	WorkerOn    int           `json:"worker_cpu"`

	Growth  []Growth `json:"growth"`
	Faults  []string `json:"faults"` // what is not accounted for
	Rest    *Rest    `json:"rest"`   // nil if the run did not get there
	Gone    *Sample  `json:"gone"`   // when new flows had gone; nil if that was not waited for
	Samples []Sample `json:"samples"`
}

// Rest is how it was in the end, without traffic.
type Rest struct {
	Sample
	Offered uint64      `json:"offered"` // by the generator
	Refused uint64      `json:"refused"` // by the wire
	Arrived sink.Counts `json:"arrived"`
}

func newReport(opt *Options) (Report, error) {
	head, err := opt.Begin()
	return Report{
		Head:        head,
		Driver:      "AF_XDP, copy mode, veth",
		Mode:        opt.Mode,
		Flows:       opt.Flows,
		New:         opt.New,
		Entries:     opt.Entries,
		Every:       opt.Every.Seconds(),
		GeneratorOn: opt.CPUs[0],
		WorkerOn:    opt.CPUs[1],
	}, err
}

// OK tells whether nothing grew and everything is accounted for.
func (r *Report) OK() bool {
	return r.Rest != nil && len(r.Faults) == 0 && !slices.ContainsFunc(r.Growth, func(g Growth) bool { return g.Grew })
}

// Conclude says what the samples say.
func (r *Report) Conclude() {
	r.Growth, r.Faults = nil, nil
	if len(r.Samples) >= minTurns {
		for _, q := range quantities() {
			r.Growth = append(r.Growth, growthOf(r.Samples, q))
		}
	}
	fault := func(format string, args ...any) { r.Faults = append(r.Faults, fmt.Sprintf(format, args...)) }
	if len(r.Samples) > 0 && r.Samples[len(r.Samples)-1].Received == r.Samples[0].Received {
		fault("nothing was received")
	}
	total := 0 // of frames, from the first sample to the last
	if len(r.Samples) > 0 {
		total = r.Samples[0].Total
	}
	for _, s := range r.Samples {
		for _, f := range s.faults(total) {
			fault("after %.0f s: %s", s.Seconds, f)
		}
	}
	if r.Rest == nil {
		return
	}
	for _, f := range r.Rest.faults(total) {
		fault("at rest: %s", f)
	}
	if s := r.Gone; s != nil && (s.Flows > int(r.Flows) || s.SNATFlows > int64(s.Flows)) {
		fault("%d flows are left, and %d with a SNAT port: only %d should be", s.Flows, s.SNATFlows, r.Flows)
	}
	if f := r.Rest.Frames; f.Received+f.Send+f.Sending > 0 {
		fault("at rest, frames are under way: %+v", f)
	}
	if s := r.Rest.Sample; s.Sent+s.Dropped != s.Received {
		fault("%d packets were received, %d sent and %d dropped", s.Received, s.Sent, s.Dropped)
	}
	if s := r.Rest; s.Received+s.ReceiveDropped > s.Offered-s.Refused {
		fault("%d packets were received and %d found no room, but only %d were offered", s.Received, s.ReceiveDropped, s.Offered-s.Refused)
	}
	if n := r.Rest.Arrived.Openings + r.Rest.Arrived.Segments; n > r.Rest.Sent || n == 0 {
		fault("%d packets arrived and %d were sent", n, r.Rest.Sent)
	}
}

// faults says what is wrong with the frames. The worker holds none when it is
// asked.
func (s *Sample) faults(total int) (all []string) {
	if s.Fault != "" {
		all = append(all, s.Fault)
	}
	if s.Frames.Held != 0 {
		all = append(all, fmt.Sprintf("%d frames are lost: %+v", s.Frames.Held, s.Frames))
	}
	if s.Frames.Receiving < 0 || s.Frames.Sending < 0 {
		all = append(all, fmt.Sprintf("the kernel has given back more than it took: %+v", s.Frames))
	}
	if s.Total != total || total == 0 {
		all = append(all, fmt.Sprintf("%d frames, and there were %d", s.Total, total))
	}
	return all
}

// Kind is that of a [measure.Report].
func (r Report) Kind() string { return "soak" }

// Tables is that of a [measure.Report]: the outcome, and what it means.
func (r Report) Tables() []measure.Table {
	return []measure.Table{{Title: r.conditions(), Lines: r.table()}, {Title: strings.Join(r.verdict(), "\n")}}
}

func (r *Report) conditions() string {
	seconds, packets := 0.0, uint64(0)
	if n := len(r.Samples); n > 0 {
		seconds, packets = r.Samples[n-1].Seconds, r.Samples[n-1].Received
	}
	return fmt.Sprintf("%s: %s, mode %s, %s with %.1f million packets, %d flows and %g %% of the packets of new ones, flow table of %d, a snapshot every %g s.",
		r.At(), r.Driver, r.Mode, time.Duration(seconds*float64(time.Second)).Round(time.Second), float64(packets)/1e6,
		r.Flows, r.New*100, r.Entries, r.Every)
}

func (r *Report) table() [][]string {
	table := [][]string{{"in the second half", "from", "to", "a minute", "smallest-largest", "grew"}}
	for _, g := range r.Growth {
		f := func(v float64) string { return fmt.Sprintf("%.0f", v) }
		if g.Unit == "bytes" {
			f = func(v float64) string { return fmt.Sprintf("%.2f MiB", v/mebi) }
		}
		grew := "no"
		if g.Grew {
			grew = "yes"
		}
		slope := fmt.Sprintf("%+.2f ± %.2f", g.Slope, g.Error)
		if g.Unit == "bytes" {
			slope = fmt.Sprintf("%+.1f ± %.1f KiB", g.Slope/1024, g.Error/1024)
		}
		table = append(table, []string{g.What, f(g.Begin), f(g.End), slope, f(g.Min) + "-" + f(g.Max), grew})
	}
	return table
}

// maxFaults is how many are shown: the first tell enough.
const maxFaults = 10

func (r *Report) verdict() []string {
	var lines []string
	for i, f := range r.Faults {
		if i == maxFaults {
			lines = append(lines, fmt.Sprintf("... and %d more", len(r.Faults)-i))
			break
		}
		lines = append(lines, "Wrong: "+f+".")
	}
	if r.Rest == nil {
		return append(lines, "The run did not get to its end.")
	}
	f := r.Rest.Frames
	lines = append(lines, fmt.Sprintf("Frames at rest: %d in all, %d free, %d in the fill ring, %d kept by the kernel to receive into, %d sent and not taken back, %d lost.",
		r.Rest.Total, f.Free, f.Fill, f.Receiving, f.Completed, f.Held))
	if r.Gone != nil {
		lines = append(lines, fmt.Sprintf("Flows: %d when traffic ended; %d when those of one packet had gone, %d of them with a SNAT port.",
			r.Rest.Flows, r.Gone.Flows, r.Gone.SNATFlows))
	}
	if r.OK() {
		return append(lines, "Nothing grew, and every frame is accounted for.")
	}
	return lines
}
