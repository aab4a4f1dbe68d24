package perf

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weir/perf/checks"
	"weir/perf/connections"
	"weir/perf/flood"
	"weir/perf/ladder"
	"weir/perf/measure"
	"weir/perf/snapshots"
	"weir/perf/soak"
	"weir/perf/wire"
)

// plotter is a report of which there is a chart.
type plotter interface{ Plot(io.Writer) error }

// kind is a kind of results. Their files are DATE-NAME.json; a letter after the
// date tells the runs of a day apart.
type kind struct {
	name string
	read func(path string) (measure.Report, error)
}

func kindOf[R measure.Report]() kind {
	var r R
	return kind{r.Kind(), func(path string) (measure.Report, error) { return measure.ReadFile[R](path) }}
}

// kinds returns all kinds. A measurement that is added goes here, and into
// TestResults.
func kinds() []kind {
	return []kind{
		kindOf[ladder.Report](),
		kindOf[wire.Report](),
		kindOf[connections.Report](),
		kindOf[flood.Report](),
		kindOf[checks.Report](),
		kindOf[snapshots.Report](),
		kindOf[soak.Report](),
		{"loops", wire.ReadEither},
		{"modes", wire.ReadEither},
	}
}

// kindName returns the name of the kind that a file's name has.
func kindName(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	return name[strings.LastIndexByte(name, '-')+1:]
}

// readResult reads a file of any kind.
func readResult(path string) (measure.Report, error) {
	name := kindName(path)
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 || filepath.Ext(path) != ".json" {
		return nil, fmt.Errorf("read report %s: not named as one, such as 2026-11-27-wire.json", path)
	}
	return all[i].read(path)
}

// chartPath returns where the chart of a result is.
func chartPath(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".svg" }

// drawResult writes the chart of a result beside it, and returns its path, which
// is empty if there are no charts of this kind.
func drawResult(path string) (string, error) {
	r, err := readResult(path)
	if err != nil {
		return "", err
	}
	p, ok := r.(plotter)
	if !ok {
		return "", nil
	}
	var b bytes.Buffer
	if err := p.Plot(&b); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(chartPath(path), b.Bytes(), 0o644); err != nil {
		return "", fmt.Errorf("write chart: %w", err)
	}
	return chartPath(path), nil
}
