package perf

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"weir/perf/checks"
	"weir/perf/connections"
	"weir/perf/flood"
	"weir/perf/ladder"
	"weir/perf/measure"
	"weir/perf/snapshots"
	"weir/perf/soak"
	"weir/perf/wire"
)

// pages are those with tables in them.
var pages = []string{"README.md", "../README.md"}

// summaries returns what a report says of its single values, and what it has to
// say, which is made from them anew.
var summaries = map[string]func(measure.Report) (got, want any){
	"ladder": func(r measure.Report) (any, any) {
		got := r.(ladder.Report)
		again := got
		again.SumUp()
		return got.Summary, again.Summary
	},
	"wire": wires,
	"connections": func(r measure.Report) (any, any) {
		got, again := r.(connections.Report), connections.Report{}
		for _, c := range got.Cells {
			again.Add(c)
		}
		return got.Summary, again.Summary
	},
	"flood": func(r measure.Report) (any, any) {
		got, again := r.(flood.Report), flood.Report{}
		for _, c := range got.Cells {
			again.Add(c)
		}
		return got.Summary, again.Summary
	},
	"checks": func(r measure.Report) (any, any) {
		got := r.(checks.Report)
		again := checks.Report{Backends: got.Backends}
		for _, c := range got.Cells {
			again.Add(c)
		}
		return got.Summary, again.Summary
	},
	"snapshots": func(r measure.Report) (any, any) {
		got, again := r.(snapshots.Report), snapshots.Report{}
		for _, c := range got.Cells {
			again.Add(c)
		}
		for _, a := range got.Away {
			again.AddAway(a)
		}
		return []any{got.Summary, got.Workers}, []any{again.Summary, again.Workers}
	},
	"soak": func(r measure.Report) (any, any) {
		got := r.(soak.Report)
		again := got
		again.Conclude()
		return []any{got.Growth, got.Faults}, []any{again.Growth, again.Faults}
	},
	"loops": earlier,
	"modes": earlier,
}

func wires(r measure.Report) (any, any) {
	got, again := r.(wire.Report), wire.Report{}
	for _, c := range got.Cells {
		again.Add(c)
	}
	return got.Summary, again.Summary
}

func earlier(r measure.Report) (any, any) {
	if _, ok := r.(wire.Report); ok {
		return wires(r)
	}
	got, again := r.(wire.Earlier), wire.Earlier{}
	for _, c := range got.Cells {
		again.Add(c)
	}
	return got.Summary, again.Summary
}

// What is committed can be read, and its summary is that of its single values.
func TestResults(t *testing.T) {
	for _, k := range kinds() {
		if summaries[k.name] == nil {
			t.Errorf("nobody looks at the summaries of %s", k.name)
		}
	}
	paths, err := filepath.Glob("results/*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no results: %v", err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, ".svg") {
			continue
		}
		t.Run(path, func(t *testing.T) {
			r, err := readResult(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := summaries[kindName(path)](r); !reflect.DeepEqual(got, want) {
				t.Error("the summary is not that of the single values")
			}
		})
	}
}

// A chart is that of the file beside it.
func TestCharts(t *testing.T) {
	paths, err := filepath.Glob("results/*.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		source := strings.TrimSuffix(path, ".svg") + ".json"
		r, err := readResult(source)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		p, ok := r.(plotter)
		if !ok {
			t.Errorf("%s: there are no charts of this kind", path)
			continue
		}
		var want bytes.Buffer
		if err := p.Plot(&want); err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not the chart of %s: run make perf-page (%v)", path, source, err)
		}
	}
}

// Tables on the pages are those of the files that they name, and charts exist.
func TestPages(t *testing.T) {
	for _, path := range pages {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := fillPage(path, got)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its results make: run make perf-page", path)
		}
		for _, line := range strings.Split(string(want), "\n") {
			_, chart, ok := strings.Cut(line, "![chart of ")
			if !ok {
				continue
			}
			_, chart, _ = strings.Cut(chart, "](")
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), strings.TrimSuffix(chart, ")"))); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
