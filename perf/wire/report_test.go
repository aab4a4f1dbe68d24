package wire

import (
	"math"
	"slices"
	"strings"
	"testing"

	"weir/perf/measure"
)

// Rows are in the order of scenarios, flows and subjects; ratios are of cells of
// the same round, and in core the less time the more.
func TestSummary(t *testing.T) {
	var r Report
	for _, c := range []Cell{
		{Subject: "nft-dnat", Scenario: Core, Flows: 1024, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 1000},
		{Subject: "weir-dsr", Scenario: Core, Flows: 1024, Round: 2, Delivered: 1, Loss: 0.5, NsPerPkt: 400},
		{Subject: "floor-afxdp", Scenario: Core, Flows: 1024, Round: 2, Delivered: 1, Loss: 0.5, NsPerPkt: 100},
		{Subject: "weir-dsr", Scenario: Core, Flows: 1024, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 200},
		{Subject: "floor-afxdp", Scenario: Core, Flows: 1024, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 100},
		{Subject: "floor-afxdp", Scenario: Core, Flows: 1024, Round: 3, Delivered: 1, Loss: 0.5, NsPerPkt: 800}, // without a counterpart
		{Subject: "weir-dsr", Scenario: Core, Flows: 64, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 200},
		{Subject: "weir-dsr", Scenario: Flood, Flows: 64, Round: 1, Delivered: 30, NsPerPkt: 7},
		{Subject: "floor-afxdp", Scenario: Flood, Flows: 64, Round: 1, Delivered: 40, NsPerPkt: 7},
	} {
		r.Add(c)
	}
	var rows []key
	for _, row := range r.Summary {
		rows = append(rows, key{row.Subject, row.Scenario, row.Flows})
	}
	want := []key{
		{"weir-dsr", Core, 64}, {"floor-afxdp", Core, 1024}, {"weir-dsr", Core, 1024}, {"nft-dnat", Core, 1024},
		{"floor-afxdp", Flood, 64}, {"weir-dsr", Flood, 64},
	}
	if !slices.Equal(rows, want) {
		t.Fatalf("rows %v, want %v", rows, want)
	}
	core := r.Summary[2]
	if core.NsPerPkt != (measure.Spread{Median: 300, Min: 200, Max: 400}) {
		t.Errorf("%+v", core.NsPerPkt)
	}
	// Rates per core of 5 and 2.5 million, of a floor with 10 million.
	if got, want := *core.OfFloor, (Ratio{Median: 0.375, Rounds: measure.Spread{Median: 0.375, Min: 0.25, Max: 0.5}}); got != want {
		t.Errorf("of the floor %+v, want %+v", got, want)
	}
	if got, want := *core.OfDNAT, (Ratio{Median: 5, Rounds: measure.Spread{Median: 5, Min: 5, Max: 5}}); got != want {
		t.Errorf("of nft-dnat %+v, want %+v", got, want)
	}
	if dnat := r.Summary[3]; dnat.OfDNAT != nil || dnat.OfFloor != nil {
		t.Errorf("%+v", dnat)
	}
	if flood := r.Summary[5]; flood.OfFloor.Median != 0.75 || flood.OfDNAT != nil {
		t.Errorf("%+v", flood)
	}
	if other := r.Summary[0]; other.OfFloor != nil {
		t.Errorf("compared with another number of flows: %+v", other.OfFloor)
	}
}

// A round without a loss-free rate counts as failed, and in no figure.
func TestFailedRound(t *testing.T) {
	var r Report
	r.Add(Cell{Subject: "weir-dsr", Scenario: LossFree, Flows: 1, Round: 1, Delivered: 10, Loss: MaxLoss})
	r.Add(Cell{Subject: "weir-dsr", Scenario: LossFree, Flows: 1, Round: 2, Delivered: 99, Loss: 2 * MaxLoss})
	r.Add(Cell{Subject: "floor-afxdp", Scenario: LossFree, Flows: 1, Round: 2, Delivered: 100})
	row := r.Summary[1]
	if row.Rounds != 2 || row.Failed != 1 || row.Delivered != (measure.Spread{Median: 10, Min: 10, Max: 10}) || row.OfFloor != nil {
		t.Errorf("%+v", row)
	}
}

// A rate that the generator was the limit of is no figure of the subject's, so it
// is in no ratio, and the table says so.
func TestLimitedRound(t *testing.T) {
	var r Report
	r.Add(Cell{Subject: "floor-afxdp", Scenario: LossFree, Flows: 1, Round: 1, Delivered: 100, ByGenerator: true})
	r.Add(Cell{Subject: "weir-dsr", Scenario: LossFree, Flows: 1, Round: 1, Delivered: 99})
	floor, row := r.Summary[0], r.Summary[1]
	if floor.Limited != 1 || floor.Failed != 0 || floor.Delivered.Median != 100 || row.OfFloor != nil {
		t.Errorf("%+v\n%+v", floor, row)
	}
	if text := r.table()[1][6]; text != "1, 1 by generator" {
		t.Errorf("rounds are %q", text)
	}
}

// A core that could sleep is in no ratio, and the table says so; where it could in
// one round alone, the others are compared.
func TestIdleRound(t *testing.T) {
	var r Report
	for round, loss := range []float64{-0.01, saturates, 0.5} {
		r.Add(Cell{Subject: "floor-afxdp", Scenario: Core, Flows: 1, Round: round, Delivered: 1, NsPerPkt: 100, Loss: 0.5})
		r.Add(Cell{Subject: "weir-dsr", Scenario: Core, Flows: 1, Round: round, Delivered: 1, NsPerPkt: float64(200 * (round + 1)), Loss: loss})
		r.Add(Cell{Subject: "weir-nat", Scenario: Core, Flows: 1, Round: round, Delivered: 1, NsPerPkt: 300})
		r.Add(Cell{Subject: "weir-nat", Scenario: Flood, Flows: 1, Round: round, Delivered: 1, NsPerPkt: 300})
	}
	dsr, nat, flood := r.Summary[1], r.Summary[2], r.Summary[3]
	if dsr.Idle != 2 || dsr.OfFloor == nil || dsr.OfFloor.Rounds.Min != dsr.OfFloor.Rounds.Max || math.Abs(dsr.OfFloor.Median-100.0/600) > 1e-9 {
		t.Errorf("%+v, of the floor %+v", dsr, dsr.OfFloor)
	}
	if nat.Idle != 3 || nat.OfFloor != nil || nat.NsPerPkt.Median != 300 {
		t.Errorf("%+v", nat)
	}
	if flood.Idle != 0 {
		t.Errorf("%+v", flood)
	}
	if text := r.table()[2][6]; text != "3, 2 idle" {
		t.Errorf("rounds are %q", text)
	}
}

// Latency has a table of its own, with a line for each load. A percentile is in it
// if there are packets enough beyond it in each round.
func TestLatencyTable(t *testing.T) {
	var r Report
	for round, packets := range []uint64{10_000, 100_000} {
		r.Add(Cell{Subject: "weir-dsr", Scenario: Latency, Flows: 1 << 20, Round: round, Delivered: 1, Latencies: []Latencies{
			{Load: 0, Packets: 100, P50: 50_000, P99: 60_000, Max: 70_000},
			{Load: 0.5, Packets: packets, P50: 6_000, P99: 7_000, P999: 8_000, Max: 9_000},
			{Load: 0.9, Packets: packets - 1, P50: 6_000, P99: 7_000, P999: 8_000, Max: 9_000},
		}})
	}
	var b strings.Builder
	if err := measure.WriteMarkdown(&b, r.Tables()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 1 Mi | weir-dsr | afxdp | 0/0/0/0/0 | idle | ",
		"| 100 (100-100) | 50.0 (50.0-50.0) | - | - | 70 (70-70) |",
		"| 50 % |", "| 55000 (10000-100000) | 6.0 (6.0-6.0) | 7.0 (7.0-7.0) | 8.0 (8.0-8.0) | 9 (9-9) |",
		"| 90 % |", "| 54999 (9999-99999) | 6.0 (6.0-6.0) | 7.0 (7.0-7.0) | - | 9 (9-9) |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
