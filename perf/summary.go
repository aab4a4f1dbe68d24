package perf

import (
	"fmt"

	"weir/perf/connections"
	"weir/perf/ladder"
	"weir/perf/measure"
	"weir/perf/wire"
)

// summary puts what weir costs beside what others cost, from the reports of any
// measurements.
type summary struct{ table [][]string }

// summaryNote says how a summary is read.
const summaryNote = "Core time of each, median (smallest-largest), how many times as much as the other one weir does with it, and for how much of the time the worse of both could not have its core."

// summarize returns the summary of reports. It has what is in them: what was not
// measured in the same run is not compared.
func summarize(reports []measure.Report) summary {
	s := summary{table: [][]string{{"what", "weir", "", "beside it", "", "weir does", "waited %"}}}
	for _, r := range reports {
		switch r := r.(type) {
		case ladder.Report:
			s.ladder(&r)
		case wire.Report:
			s.wire(&r)
		case connections.Report:
			s.connections(&r)
		}
	}
	return s
}

// empty tells whether there is nothing to compare.
func (s *summary) empty() bool { return len(s.table) == 1 }

func (s *summary) tables() []measure.Table {
	return []measure.Table{{Title: summaryNote, Lines: s.table}}
}

// compared is what one of two has cost.
type compared struct {
	name   string
	cost   measure.Spread
	waited measure.Spread
}

// add adds a line, if both have a figure. scale is that of the unit, and digits
// those behind the point.
func (s *summary) add(what string, weir, other compared, scale float64, digits int) {
	if weir.cost.Median <= 0 || other.cost.Median <= 0 {
		return
	}
	worse := weir.waited
	if other.waited.Median > worse.Median {
		worse = other.waited
	}
	waited := "-"
	if worse.Max > 0 {
		waited = worse.FormatWaited()
	}
	s.table = append(s.table, []string{
		what, weir.name, weir.cost.Format(scale, digits), other.name, other.cost.Format(scale, digits),
		fmt.Sprintf("%.2f times", other.cost.Median/weir.cost.Median), waited,
	})
}

// ladder compares what weir does with a packet of a known flow with the naive way
// to do it.
func (s *summary) ladder(r *ladder.Report) {
	for _, naive := range r.Summary {
		if naive.Rung != ladder.Map || naive.Flows == 1 {
			continue
		}
		for _, hit := range r.Summary {
			like := hit.Cell
			like.Rung, like.Entries = naive.Rung, naive.Entries // the naive one's table has no size
			if hit.Rung == ladder.Hit && like == naive.Cell {
				s.add(fmt.Sprintf("own work, ns per packet, %s flows", measure.Binary(hit.Flows)),
					compared{name: string(hit.Mode), cost: hit.Own}, compared{name: string(naive.Rung), cost: naive.Own}, 1, 1)
			}
		}
	}
}

// wire compares the time per packet in Core with the floor's and with nftables'.
func (s *summary) wire(r *wire.Report) {
	const weir, floor = "weir-dsr", "floor-afxdp"
	for _, mine := range r.Summary {
		if mine.Subject != weir || mine.Scenario != wire.Core {
			continue
		}
		for _, theirs := range r.Summary {
			if theirs.Scenario == wire.Core && theirs.Flows == mine.Flows && (theirs.Subject == floor || theirs.Subject == wire.NftDNAT) {
				s.add(fmt.Sprintf("worker's core from wire to wire, ns per packet, %s flows", measure.Binary(mine.Flows)),
					compared{weir, mine.NsPerPkt, mine.Waited}, compared{theirs.Subject, theirs.NsPerPkt, theirs.Waited}, 1, 0)
			}
		}
	}
}

// connections compares what a connection costs with the proxies, and with
// nftables where it does the same.
func (s *summary) connections(r *connections.Report) {
	besides := map[connections.Subject][]connections.Subject{
		connections.WeirDSR: {connections.HAProxy, connections.Nginx, connections.NftDSR},
		connections.WeirNAT: {connections.HAProxy, connections.Nginx, connections.NftDNAT},
	}
	of := func(subject connections.Subject) compared {
		for _, row := range r.Summary {
			if row.Subject == subject && row.Load == connections.Paced {
				return compared{string(subject), row.CPU, row.Others}
			}
		}
		return compared{}
	}
	for _, mine := range []connections.Subject{connections.WeirDSR, connections.WeirNAT} {
		for _, theirs := range besides[mine] {
			s.add(fmt.Sprintf("CPU µs per connection, %d a second", r.Rate), of(mine), of(theirs), 1e6, 1)
		}
	}
}
