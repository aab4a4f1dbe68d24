package ladder

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"weir/perf/measure"
)

// All of it, small and once.
func TestRun(t *testing.T) {
	opt := Options{
		Repeats: 2, Window: time.Millisecond, CPU: -1, Seed: 1,
		Flows: []uint32{1, 1 << 8}, Services: []int{1, 3}, Backends: []int{2, 100}, Entries: 1 << 12, Buffers: 128,
		NoMemory: true,
	}
	report, err := Run(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := opt.complete(); err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, c := range grid(&opt) {
		row, ok := report.Row(c)
		if c.Rung == Kernel && os.Geteuid() != 0 {
			if ok || len(report.Skipped) != 1 {
				t.Errorf("%s was measured without root, or is not said to be left out: %q", c, report.Skipped)
			}
			continue
		}
		want++
		if !ok || row.Rounds != 2 {
			t.Errorf("%s: %d rounds, want 2", c, row.Rounds)
		}
		if row.Gross.Min <= 0 || row.Gross.Min > row.Gross.Median || row.Gross.Median > row.Gross.Max {
			t.Errorf("%s: gross %+v", c, row.Gross)
		}
	}
	for _, s := range report.Samples {
		if s.Pairs < fewestPairs || s.Packets == 0 {
			t.Errorf("%s: %d pairs with %d packets, want %d pairs at least", s.Cell, s.Pairs, s.Packets, fewestPairs)
		}
	}
	if len(report.Summary) != want {
		t.Errorf("%d rows, want %d", len(report.Summary), want)
	}
	for _, rung := range Rungs() {
		if rung == Kernel && len(report.Skipped) > 0 {
			continue
		}
		if !strings.Contains(text(t, report), string(rung)) {
			t.Errorf("no %s in:\n%s", rung, text(t, report))
		}
	}

	path := filepath.Join(t.TempDir(), "report.json")
	if err := measure.WriteFile(path, report); err != nil {
		t.Fatal(err)
	}
	again, err := measure.ReadFile[Report](path)
	if err != nil {
		t.Fatal(err)
	}
	again.SumUp()
	if !reflect.DeepEqual(again.Summary, report.Summary) {
		t.Error("the summary is not that of the samples in the file")
	}
	var markdown bytes.Buffer
	if err := measure.WriteMarkdown(&markdown, again.Tables()); err != nil || !strings.Contains(markdown.String(), "| --- |") {
		t.Errorf("no table for a page: %v", err)
	}
	var chart bytes.Buffer
	if err := again.Plot(&chart); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">dsr4<", ">nat64<", ">go map<", ">256<", ">target for dsr4<"} {
		if !strings.Contains(chart.String(), want) {
			t.Errorf("no %s in the chart", want)
		}
	}
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var b strings.Builder
	if err := measure.WriteText(&b, r.Tables()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOptions(t *testing.T) {
	for name, opt := range map[string]Options{
		"flows":    {Flows: []uint32{3}},
		"services": {Services: []int{1<<16 + 1}},
		"backends": {Backends: []int{0}},
		"buffers":  {Buffers: 65},
		"entries":  {Entries: -1},
		"repeats":  {Repeats: -1},
		"window":   {Window: -time.Second},
		"protocol": {Protocols: []Protocol{"sctp"}},
		"rung":     {Rungs: []Rung{"ring"}},
		"mode":     {Modes: []Mode{"dsr"}},
	} {
		if report, err := Run(context.Background(), opt); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(name, "s")) {
			t.Errorf("%s: accepted, or the error does not say what is wrong: %v, %d samples", name, err, len(report.Samples))
		}
	}
}

// A run that is ended has what was measured until then.
func TestEnded(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	report, err := Run(ctx, Options{CPU: -1, NoMemory: true, Rungs: []Rung{Parse}})
	if err != context.Canceled {
		t.Errorf("error %v, want that of the context", err)
	}
	if len(report.Samples) > 0 {
		t.Errorf("%d samples", len(report.Samples))
	}
}

// What memory is said to be taken is about what packages flow and nat say they
// take.
func TestMemory(t *testing.T) {
	opt := Options{CPU: -1}
	if err := opt.complete(); err != nil {
		t.Fatal(err)
	}
	l := &ladder{opt: &opt, tables: make(map[int][]uint16)}
	all, err := l.memory()
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[string]int64)
	for _, m := range all {
		sizes[strings.Fields(m.What)[0]] = m.Bytes
		if m.Bytes <= 0 {
			t.Errorf("%s: %d bytes", m.What, m.Bytes)
		}
	}
	for what, want := range map[string][2]int64{
		"flow":   {placesPerFlow * million * 64, placesPerFlow * million * 96},
		"index":  {placesPerFlow * million * 15, placesPerFlow * million * 33},
		"Maglev": {2 * 65537, 2*65537 + 64<<10},
	} {
		if got := sizes[what]; got < want[0] || got > want[1] {
			t.Errorf("%s: %d bytes, want %d to %d", what, got, want[0], want[1])
		}
	}
}
