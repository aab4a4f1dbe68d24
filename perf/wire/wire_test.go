package wire

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/lab/labtest"
	"weir/perf/loops"
	"weir/perf/measure"
	"weir/perf/peers"
)

// Every subject does what it is there for in every scenario, all of its frames
// are accounted for, and what arrives is right. How fast is not asked here.
func TestRun(t *testing.T) {
	labtest.NeedRoot(t)
	for _, test := range []struct {
		subjects  []string
		scenarios []Scenario
		tcp       bool
	}{
		{flooded(), []Scenario{Core, Flood}, false},
		{flooded(), []Scenario{Flood}, true},
		{[]string{"weir-dsr", "nft-dnat"}, []Scenario{LossFree}, false},
		{[]string{"weir-nat-6", "weir-dsr-gc", "xdp-tx-thread"}, []Scenario{Latency}, false},
		{[]string{"weir-nat"}, []Scenario{Latency}, true},
		{[]string{"floor-afxdp", "asavie"}, []Scenario{Send}, false},
	} {
		report, err := Run(t.Context(), Options{
			Setup:     measure.Setup{Repeats: 1, Window: 20 * time.Millisecond},
			Subjects:  test.subjects,
			Scenarios: test.scenarios,
			TCP:       test.tcp,
			Flows:     []uint32{256},
			Step:      5 * time.Millisecond,
			Steps:     2,
			Verify:    true,
		})
		if errors.Is(err, ebpf.ErrNotSupported) {
			t.Skip(err) // the sink needs TCX
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Cells) != len(report.Summary) {
			t.Errorf("%d cells, %d rows", len(report.Cells), len(report.Summary))
		}
		measured := make(map[string]bool)
		for _, c := range report.Cells {
			measured[c.Subject] = true
			t.Run(fmt.Sprintf("%s %s, tcp %v", c.Subject, c.Scenario, test.tcp), func(t *testing.T) { checkCell(t, &c) })
		}
		for _, name := range test.subjects {
			if why := report.LeftOut[name]; !measured[name] && why == "" {
				t.Errorf("%s was not measured", name)
			} else if why != "" && name != string(peers.IPVS) && name != string(loops.Testpmd) {
				t.Errorf("%s was left out: %s", name, why)
			}
		}
	}
}

// flooded returns the names of all that a flood is measured of.
func flooded() []string {
	return Names(slices.DeleteFunc(Subjects(), func(s Subject) bool { return !s.can(Flood) }))
}

func checkCell(t *testing.T, c *Cell) {
	a := c.Account
	if a.Delivered == 0 {
		t.Fatalf("nothing arrived: %+v", a)
	}
	if c.Wrong != "" {
		t.Errorf("%s: %+v", c.Wrong, a)
	}
	if counts := c.subject.mode != "" || c.subject.peer == peers.NftDNAT; counts != (c.Known != nil) {
		t.Errorf("it tells what it knows: %v, want %v", c.Known != nil, counts)
	} else if counts && *c.Known != int(c.Flows) {
		t.Errorf("%d flows are known of %d", *c.Known, c.Flows)
	}
	if c.subject.mode != "" && (a.Decided < uint64(c.Flows) || c.Unknown != 0) { // 256 flows all have room
		t.Errorf("%d flows were decided of %d, and a share of %g of the packets had an unknown one", a.Decided, c.Flows, c.Unknown)
	}
}

// Latency has all loads, and its percentiles are in order.
func TestLatencies(t *testing.T) {
	labtest.NeedRoot(t)
	report, err := Run(t.Context(), Options{
		Setup:     measure.Setup{Repeats: 1, Window: 50 * time.Millisecond},
		Subjects:  []string{"weir-dsr"},
		Scenarios: []Scenario{Latency},
		Flows:     []uint32{16},
		Step:      5 * time.Millisecond,
		Steps:     2,
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, packets := report.Cells[0], uint64(0)
	if len(c.Latencies) != len(Loads()) {
		t.Fatalf("%d loads, want %d", len(c.Latencies), len(Loads()))
	}
	for i, l := range c.Latencies {
		if l.Load != Loads()[i] || l.P50 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || l.Reordered != 0 || l.Packets > 0 && l.P50 <= 0 {
			t.Errorf("%+v", l)
		}
		packets += l.Packets
	}
	if packets == 0 { // not asked of each: on a busy machine the generator may not get its turn
		t.Error("nothing arrived at any load")
	}
}

// What there is not is refused before anything is built.
func TestRefused(t *testing.T) {
	for name, opt := range map[string]Options{
		"subject":  {Subjects: []string{"katran"}},
		"scenario": {Scenarios: []Scenario{Flood, "overload"}},
		"Zipf TCP": {TCP: true, Zipf: 1},
		"pair":     {Subjects: []string{"weir-dsr"}, Scenarios: []Scenario{Send}},
	} {
		if err := opt.complete(); err != nil {
			continue
		}
		if _, err := opt.cells(); err == nil {
			t.Errorf("a %s that there is not was accepted", name)
		}
	}
}

// Each subject is one thing, has a name of its own and a floor that exists, and
// can be measured in some way.
func TestSubjects(t *testing.T) {
	seen := make(map[string]Subject)
	for _, s := range Subjects() {
		if _, twice := seen[s.Name]; twice {
			t.Errorf("there are two %s", s.Name)
		}
		seen[s.Name] = s
		kinds := 0
		for _, is := range []bool{s.loop != "", s.mode != "", s.peer != ""} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Errorf("%s is %d things", s.Name, kinds)
		}
	}
	for _, s := range seen {
		floor, ok := seen[s.Floor]
		if (s.mode != "") != ok || ok && (floor.loop != loops.Own || floor.Driver != s.Driver || floor.IPv6 != s.IPv6) {
			t.Errorf("%s has the floor %q", s.Name, s.Floor)
		}
		if !s.can(Latency) || s.can(Flood) == s.collected || s.can(Send) && s.loop == "" {
			t.Errorf("%s cannot what it should, or can what it should not", s.Name)
		}
	}
	if _, err := subjects([]string{"weir-dsr", "katran"}); err == nil {
		t.Error("a subject that does not exist was found")
	}
}
