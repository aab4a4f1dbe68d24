package soak

import (
	"math"
	"slices"
)

// Growth is how a quantity went on in the second half of a run, after all that a
// program takes once has been taken.
type Growth struct {
	What  string  `json:"what"`
	Unit  string  `json:"unit"`
	Begin float64 `json:"begin"` // of the half, on the line fitted
	End   float64 `json:"end"`
	Slope float64 `json:"slope_per_minute"`
	Error float64 `json:"slope_error_per_minute"` // standard error
	Min   float64 `json:"min"`                    // of the values themselves
	Max   float64 `json:"max"`
	Grew  bool    `json:"grew"`
}

// quantity is something of a sample that must not grow for ever. (Flows are not
// among them: how many there are goes with the packets that the machine has time
// for. That they go is looked at in the end.)
type quantity struct {
	what, unit string
	value      func(*Sample) float64

	// slack is by how much the half's end may be above its beginning, in which so
	// many snapshots were applied.
	slack func(snapshots int) float64
}

const mebi = 1 << 20

// leak is the smallest one to be seen, in bytes for each snapshot: half of what
// the smallest thing that is worth the name takes.
const leak = 512

func quantities() []quantity {
	bytes := func(snapshots int) float64 { return float64(leak * snapshots) }
	one := func(int) float64 { return 1 }
	return []quantity{
		{"memory resident", "bytes", func(s *Sample) float64 { return float64(s.Memory) }, bytes},
		{"heap in use", "bytes", func(s *Sample) float64 { return float64(s.Heap) }, bytes},
		{"goroutines", "", func(s *Sample) float64 { return float64(s.Goroutines) }, one},
		{"file descriptors", "", func(s *Sample) float64 { return float64(s.FDs) }, one},
		{"frames with the kernel for receiving", "", func(s *Sample) float64 { return float64(s.Frames.Receiving) }, func(int) float64 { return 64 }},
	}
}

// significant is how many standard errors above zero a slope has to be.
const significant = 3

// growthOf fits a line to the second half of the samples.
func growthOf(samples []Sample, q quantity) Growth {
	half := samples[len(samples)/2:]
	var x, y []float64
	for i := range half {
		x = append(x, half[i].Seconds/60)
		y = append(y, q.value(&half[i]))
	}
	slope, at, stderr := fit(x, y)
	g := Growth{
		What: q.what, Unit: q.unit, Slope: slope, Error: stderr, Min: slices.Min(y), Max: slices.Max(y),
		Begin: at(x[0]), End: at(x[len(x)-1]),
	}
	slack := q.slack(half[len(half)-1].Snapshots - half[0].Snapshots)
	g.Grew = slope > significant*stderr && g.End-g.Begin > slack && steady(y, slack)
	return g
}

// steady tells a leak, which goes on for as long as the program runs, from a step
// that the collector or the kernel takes at some time: the median of each third
// is above that of the one before, by most of what slack leaves for a third. One
// step is in a single third, and moves one of the medians at most.
func steady(y []float64, slack float64) bool {
	n := len(y) / 3
	if n == 0 {
		return false
	}
	first, second, third := median(y[:n]), median(y[n:len(y)-n]), median(y[len(y)-n:])
	return min(second-first, third-second) > slack/4
}

func median(y []float64) float64 {
	sorted := slices.Sorted(slices.Values(y))
	return sorted[len(sorted)/2]
}

// fit returns the slope of the line that fits best by least squares, its values,
// and the slope's standard error. With fewer than three different x it is level.
func fit(x, y []float64) (slope float64, at func(x float64) float64, stderr float64) {
	n := float64(len(x))
	var sx, sy, sxx, sxy, rest float64
	for i := range x {
		sx += x[i]
		sy += y[i]
	}
	mx, my := sx/n, sy/n
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	if len(x) < 3 || sxx == 0 {
		return 0, func(float64) float64 { return my }, 0
	}
	slope = sxy / sxx
	at = func(x float64) float64 { return my + slope*(x-mx) }
	for i := range x {
		rest += (y[i] - at(x[i])) * (y[i] - at(x[i]))
	}
	return slope, at, math.Sqrt(rest / (n - 2) / sxx)
}
