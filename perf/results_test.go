package perf

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"weir/perf/checks"
	"weir/perf/flood"
	"weir/perf/measure"
	"weir/perf/wire"
)

// What is committed can be read, its summary is that of its cells, and the
// tables on the page are made from it.
func TestResults(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"results/*-loops.json", "results/*-modes.json"} {
		checkResults(t, string(page), pattern, func(r wire.Earlier) (again wire.Earlier) {
			for _, c := range r.Cells {
				again.Add(c)
			}
			return again
		}, func(r wire.Earlier) any { return r.Summary })
	}
	checkResults(t, string(page), "results/*-wire.json", func(r wire.Report) (again wire.Report) {
		for _, c := range r.Cells {
			again.Add(c)
		}
		return again
	}, func(r wire.Report) any { return r.Summary })
	checkResults(t, string(page), "results/*-flood.json", func(r flood.Report) (again flood.Report) {
		for _, c := range r.Cells {
			again.Add(c)
		}
		return again
	}, func(r flood.Report) any { return r.Summary })
	checkResults(t, string(page), "results/*-checks.json", func(r checks.Report) checks.Report {
		again := checks.Report{Backends: r.Backends}
		for _, c := range r.Cells {
			again.Add(c)
		}
		return again
	}, func(r checks.Report) any { return r.Summary })
}

func checkResults[R report](t *testing.T, page, pattern string, again func(R) R, summary func(R) any) {
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no results %s: %v", pattern, err)
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			report, err := measure.ReadFile[R](path)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(summary(again(report)), summary(report)) {
				t.Error("the summary is not that of the cells")
			}
			var table strings.Builder
			if err := report.WriteMarkdown(&table); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(page, path) && !strings.Contains(page, table.String()) {
				t.Errorf("README.md does not have this table for %s:\n%s", path, table.String())
			}
		})
	}
}
