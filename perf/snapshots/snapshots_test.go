package snapshots

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"weir/perf/measure"
)

// All is measured, every change ends in a snapshot of its own, and the worker has
// adopted those that it was there for.
func TestRun(t *testing.T) {
	const changes = 6
	report, err := Run(t.Context(), Options{Setup: measure.Setup{Repeats: 2}, Services: 3, Backends: 4, Changes: changes, Adopts: changes})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Cells) != 8 || len(report.Summary) != 4 || len(report.Away) != 6 || len(report.Workers) != 3 {
		t.Fatalf("%d cells, %d rows, and of workers %d and %d", len(report.Cells), len(report.Summary), len(report.Away), len(report.Workers))
	}
	for _, c := range report.Cells {
		want := changes
		if c.Change == All {
			want = 1
		}
		if len(c.Took) != want || c.CPU <= 0 || c.Allocated <= 0 {
			t.Errorf("%s: %+v", c.Change, c)
		}
		for _, took := range c.Took {
			if took <= 0 {
				t.Errorf("%s took %v", c.Change, took)
			}
		}
	}
	for _, a := range report.Away {
		if a.Longest <= 0 || a.Watched <= 0 || a.While == Collecting && a.Cycles < collections {
			t.Errorf("while %s: %+v", a.While, a)
		}
		// One that has to wait for its CPU may miss a snapshot.
		if n := len(a.Adopts); n > changes || a.While == Changing && n == 0 || a.While == Quiet && n > 0 {
			t.Errorf("while %s: %d snapshots adopted", a.While, n)
		}
	}
	var text, again bytes.Buffer
	if err := measure.WriteMarkdown(&text, report.Tables()); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var read Report
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if err := measure.WriteMarkdown(&again, read.Tables()); err != nil || text.String() != again.String() {
		t.Errorf("from the file it is another report, error %v:\n%s\n%s", err, text.String(), again.String())
	}
	if n := strings.Count(text.String(), "\n| "); n < 9 {
		t.Errorf("%d lines of tables:\n%s", n, text.String())
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Setup: measure.Setup{Repeats: -1}}, {Services: -1}, {Backends: 5000}, {Services: 16384, Backends: 4096}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v was measured", o)
		}
	}
}
