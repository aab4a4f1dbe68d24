package ladder

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"weir/dataplane/forward"
)

// Rows with few buffers are those that say so, and there are none where all have
// as few.
func TestFew(t *testing.T) {
	few := fewBuffers(forward.BatchSize)
	for _, buffers := range []int{few, 2 * few} {
		opt := Options{CPU: -1, Flows: []uint32{1 << 8}, Buffers: buffers}
		if err := opt.complete(); err != nil {
			t.Fatal(err)
		}
		r := Report{Batch: forward.BatchSize}
		for _, c := range grid(&opt) {
			if c.Rung == Kernel {
				continue
			}
			r.Samples = append(r.Samples, Sample{Cell: c, Gross: 50, Restore: 10})
			if c.Buffers != buffers && !c.Few || c.Few && c.Buffers != few || c.Buffers < forward.BatchSize {
				t.Errorf("%s: %d buffers, few %v", c, c.Buffers, c.Few)
			}
		}
		r.SumUp()
		if marked := strings.Contains(text(t, r), " buffers"); marked != (buffers > few) {
			t.Errorf("of %d buffers, rows are marked as of few: %v", buffers, marked)
		}
		var chart bytes.Buffer
		if err := r.Plot(&chart); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(chart.String(), ">dsr4<") {
			t.Errorf("with %d buffers there is nothing in the chart", buffers)
		}
	}
}

// Earlier reports have their few buffers by their number alone, later ones by the
// mark alone.
func TestReadEarlier(t *testing.T) {
	cells := []Cell{
		{Rung: Hit, Buffers: 4096},
		{Rung: Hit, Buffers: 64},
		{Rung: Miss, Buffers: 128, Few: true},
	}
	for batch, want := range map[int][]bool{0: {false, true, false}, 64: {false, false, true}} {
		r := Report{Batch: batch}
		for _, c := range cells {
			r.Samples = append(r.Samples, Sample{Cell: c})
			r.Summary = append(r.Summary, Row{Cell: c})
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var again Report
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		var samples, rows []bool
		for i := range cells {
			samples, rows = append(samples, again.Samples[i].Few), append(rows, again.Summary[i].Few)
		}
		if !slices.Equal(samples, want) || !slices.Equal(rows, want) {
			t.Errorf("batches of %d: few are %v of the samples and %v of the rows, want %v", batch, samples, rows, want)
		}
	}
}
