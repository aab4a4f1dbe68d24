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

	// slack is by how much the half's end may be above its beginning: what the
	// collector and the kernel do at some time or other.
	slack func(mean float64) float64
}

const mebi = 1 << 20

func quantities() []quantity {
	bytes := func(mean float64) float64 { return max(mebi, mean/100) }
	one := func(float64) float64 { return 1 }
	return []quantity{
		{"memory resident", "bytes", func(s *Sample) float64 { return float64(s.Memory) }, bytes},
		{"heap in use", "bytes", func(s *Sample) float64 { return float64(s.Heap) }, bytes},
		{"goroutines", "", func(s *Sample) float64 { return float64(s.Goroutines) }, one},
		{"file descriptors", "", func(s *Sample) float64 { return float64(s.FDs) }, one},
		{"frames with the kernel for receiving", "", func(s *Sample) float64 { return float64(s.Frames.Receiving) }, func(float64) float64 { return 64 }},
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
	g.Grew = slope > significant*stderr && g.End-g.Begin > q.slack((g.Begin+g.End)/2)
	return g
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
