package perf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weir/perf/connections"
	"weir/perf/ladder"
	"weir/perf/measure"
	"weir/perf/wire"
)

// results writes a few results as a run does, and returns their paths by kind.
func results(t *testing.T, dir string) map[string]string {
	t.Helper()
	var w wire.Report
	for _, c := range []wire.Cell{
		{Subject: "weir-dsr", Scenario: wire.Core, Flows: 1 << 10, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 200, WorkerWaited: 0.5},
		{Subject: "floor-afxdp", Scenario: wire.Core, Flows: 1 << 10, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 150},
		{Subject: "nft-dnat", Scenario: wire.Core, Flows: 1 << 10, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 700},
		{Subject: "weir-dsr", Scenario: wire.Core, Flows: 1 << 20, Round: 1, Delivered: 1, Loss: 0.5, NsPerPkt: 300},
		{Subject: "weir-dsr", Scenario: wire.Flood, Flows: 1 << 10, Round: 1, Delivered: 5e6, NsPerPkt: 500},
		{Subject: "nft-dnat", Scenario: wire.Flood, Flows: 1 << 10, Round: 1, Delivered: 1e6, NsPerPkt: 900},
		{Subject: "weir-dsr", Scenario: wire.Latency, Flows: 1 << 10, Round: 1, Delivered: 1, Latencies: []wire.Latencies{{Load: 0.5, Packets: 1000, P99: 77_000}}},
	} {
		w.Add(c)
	}
	cell := ladder.Cell{Rung: ladder.Hit, Mode: ladder.DSR4, Protocol: ladder.UDP, Flows: 1 << 16, Services: 1, Backends: 100, Entries: 1 << 20, Buffers: 4096}
	few, naive := cell, cell
	few.Buffers = 64
	naive.Rung, naive.Entries = ladder.Map, 0
	l := ladder.Report{Samples: []ladder.Sample{
		{Cell: cell, Round: 1, Gross: 45, Restore: 5}, {Cell: few, Round: 1, Gross: 15, Restore: 5}, {Cell: naive, Round: 1, Gross: 105, Restore: 5},
	}}
	l.SumUp()
	c := connections.Report{Rate: 2000}
	for _, cell := range []connections.Cell{
		{Subject: connections.WeirNAT, Load: connections.Paced, Process: 20e-6, Kernel: 20e-6},
		{Subject: connections.HAProxy, Load: connections.Paced, Process: 80e-6, Kernel: 20e-6},
		{Subject: connections.Nginx, Load: connections.Closed, Process: 80e-6, Kernel: 20e-6},
	} {
		c.Add(cell)
	}
	paths := make(map[string]string)
	for kind, r := range map[string]measure.Report{"wire": w, "ladder": l, "connections": c} {
		paths[kind] = filepath.Join(dir, "2026-11-27b-"+kind+".json")
		if err := measure.WriteFile(paths[kind], r); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// The command writes into a page what its marks stand for, and nothing else.
func TestPageCommand(t *testing.T) {
	dir := t.TempDir()
	paths := results(t, dir)
	page := filepath.Join(dir, "page.md")
	write(t, page, "# Title\n<!-- perf wire 2026-11-27b-wire.json rows=core rows=weir-dsr,nft-dnat columns=\"subject,worker core ns/packet,flows\" -->\nold\n"+
		"<!-- /perf -->\n<!-- another -->\n\n<!-- perf plot 2026-11-27b-wire.json -->\n<!-- /perf -->\nend, without a newline")
	if err := run(t, "page", page, paths["wire"]); err != nil {
		t.Fatal(err)
	}
	r, err := measure.ReadFile[wire.Report](paths["wire"])
	if err != nil {
		t.Fatal(err)
	}
	var whole, chart strings.Builder
	if err := measure.WriteMarkdown(&whole, r.Tables()); err != nil {
		t.Fatal(err)
	}
	conditions, _, _ := strings.Cut(whole.String(), "\n")
	want := "# Title\n<!-- perf wire 2026-11-27b-wire.json rows=core rows=weir-dsr,nft-dnat columns=\"subject,worker core ns/packet,flows\" -->\n\n" +
		"From [2026-11-27b-wire.json](2026-11-27b-wire.json). " + conditions + "\n\n" +
		`| subject | worker core ns/packet | flows |
| --- | --- | --- |
| weir-dsr | 200 (200-200) | 1 Ki |
| nft-dnat | 700 (700-700) | 1 Ki |
| weir-dsr | 300 (300-300) | 1 Mi |

<!-- /perf -->
<!-- another -->

<!-- perf plot 2026-11-27b-wire.json -->

![chart of 2026-11-27b-wire.json](2026-11-27b-wire.svg)

<!-- /perf -->
end, without a newline`
	if got := read(t, page); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if err := run(t, "page", page); err != nil {
		t.Fatal(err)
	}
	if got := read(t, page); got != want {
		t.Errorf("not the same when it is written again:\n%s", got)
	}
	if err := r.Plot(&chart); err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(dir, "2026-11-27b-wire.svg")) != chart.String() {
		t.Error("the chart is not that of the report")
	}
	if err := run(t, "page"); err == nil {
		t.Error("no pages, and no error")
	}
	if err := run(t, "page", paths["connections"]); err == nil {
		t.Error("a chart of what has none")
	}
}

// What a mark can stand for.
func TestMarks(t *testing.T) {
	dir := t.TempDir()
	results(t, dir)
	whole := func(mark string) string {
		page, err := fillPage(filepath.Join(dir, "page.md"), []byte(beginMark+mark+markEnd+"\n"+endMark+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return string(page)
	}
	for _, test := range []struct {
		mark             string
		has, doesNotHave []string
	}{
		{"wire 2026-11-27b-wire.json", []string{"| core |", "| flood |", "| nft-dnat |", "How long packets", "| 77.0 "}, nil},
		{"wire 2026-11-27b-wire.json tables=1", []string{"| core |", "| flood |"}, []string{"How long packets", "77.0"}},
		{"wire 2026-11-27b-wire.json tables=2", []string{"How long packets", "77.0", "veth, UDP"}, []string{"| core |"}},
		{"wire 2026-11-27b-wire.json rows=flood", []string{"| 5.00 "}, []string{"| core |", "How long packets", "77.0"}},
		{"wire 2026-11-27b-wire.json columns=\"p99 µs\"", []string{"| 77.0 (77.0-77.0) |"}, []string{"subject", "| core"}},
		{"ladder 2026-11-27b-ladder.json rows=hit,none", []string{"| hit |", "Own work", "Gross"}, []string{"go map"}},
		{"ladder 2026-11-27b-ladder.json tables=2", []string{"| hit |", "Gross"}, []string{"Own work"}},
		{"connections 2026-11-27b-connections.json", []string{"| weir-nat |", "haproxy"}, nil},
		{"summary 2026-11-27b-ladder.json 2026-11-27b-connections.json", []string{"go map", "haproxy", "(2026-11-27b-ladder.json), ["}, []string{"floor"}},
	} {
		got := whole(test.mark)
		for _, want := range test.has {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", test.mark, want, got)
			}
		}
		for _, absent := range test.doesNotHave {
			if strings.Contains(strings.ReplaceAll(got, test.mark, ""), absent) {
				t.Errorf("%s: %q in\n%s", test.mark, absent, got)
			}
		}
	}
}

// A mark that cannot be filled in is an error with its line, and the page stays.
func TestBadMarks(t *testing.T) {
	dir := t.TempDir()
	results(t, dir)
	write(t, filepath.Join(dir, "2026-11-27-flood.json"), "{")
	page := filepath.Join(dir, "page.md")
	const begin, end = "<!-- perf wire 2026-11-27b-wire.json -->\n", "<!-- /perf -->\n"
	for _, test := range []struct{ text, want string }{
		{begin, "page.md:1: no end"},
		{begin + begin + end, "page.md:2: the one in line 1"},
		{"\n" + end, "page.md:2: an end without"},
		{"<!-- perf wire 2026-11-27b-wire.json\n" + end, "does not end"},
		{"<!-- perf wire -->\n" + end, "names no file"},
		{"<!-- perf  -->\n" + end, "without a measurement"},
		{"<!-- perf wire 2026-11-28-wire.json -->\n" + end, "no such file"},
		{"<!-- perf flood 2026-11-27-flood.json -->\n" + end, "read report"},
		{"<!-- perf wire page.md -->\n" + end, "not named as one"},
		{"<!-- perf wire 2026-11-27b-ladder.json -->\n" + end, "is no result of wire"},
		{"<!-- perf wire 2026-11-27b-wire.json 2026-11-27b-wire.json -->\n" + end, "names 2 files"},
		{"<!-- perf summary 2026-11-27b-wire.json 2026-11-28-wire.json -->\n" + end, "no such file"},
		{"<!-- perf plot 2026-11-27b-connections.json -->\n" + end, "no charts"},
		{"<!-- perf wire 2026-11-27b-wire.json rows=nobody -->\n" + end, "no such rows"},
		{"<!-- perf wire 2026-11-27b-wire.json columns=flows,nothing -->\n" + end, "no such rows"},
		{"<!-- perf wire 2026-11-27b-wire.json tables=1,3 -->\n" + end, "no such rows"},
		{"<!-- perf wire 2026-11-27b-wire.json tables=0 -->\n" + end, "count from 1"},
		{"<!-- perf wire 2026-11-27b-wire.json view=all -->\n" + end, "no option"},
		{"<!-- perf wire 2026-11-27b-wire.json columns=\"a -->\n" + end, "quote"},
	} {
		write(t, page, test.text)
		err := run(t, "page", page)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.text, err, test.want)
		}
		if read(t, page) != test.text {
			t.Errorf("%q: the page was changed", test.text)
		}
	}
}

// What is compared is the same but for the one thing.
func TestSummary(t *testing.T) {
	dir := t.TempDir()
	paths := results(t, dir)
	var b strings.Builder
	if err := showAll(&b, []string{paths["ladder"], paths["wire"], paths["connections"]}); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), summaryNote+"\n")
	var got []string
	for line := range strings.Lines(text) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"what weir beside it weir does waited %",
		"own work, ns per packet, 64 Ki flows dsr4 40.0 (40.0-40.0) go map 100.0 (100.0-100.0) 2.50 times -",
		"worker's core from wire to wire, ns per packet, 1 Ki flows weir-dsr 200 (200-200) floor-afxdp 150 (150-150) 0.75 times 50.0 (50.0-50.0) disturbed",
		"worker's core from wire to wire, ns per packet, 1 Ki flows weir-dsr 200 (200-200) nft-dnat 700 (700-700) 3.50 times 50.0 (50.0-50.0) disturbed",
		"CPU µs per connection, 2000 a second weir-nat 40.0 (40.0-40.0) haproxy 100.0 (100.0-100.0) 2.50 times -",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	s := summarize(nil)
	if !s.empty() {
		t.Error("a summary of nothing")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
