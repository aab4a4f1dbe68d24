package generator

import "math"

// maxBins is how many bins there can be, and slots: SLOTS in bpf/generator.c.
const maxBins = 1 << 16

// slot is struct slot in bpf/generator.c.
type slot struct{ Own, Other uint32 }

// popularity is a table to draw flows from by Zipf's law. A bin is a range of
// flows that are drawn with the same probability: one flow each, up to maxBins;
// with more flows so are the first half of the bins, and the others have ranges
// whose last flow is nearly as popular as their first one (0.03 % for 2^31 flows
// and the exponent 1).
type popularity struct {
	slots []slot   // one per bin
	first []uint32 // the first flow of each bin, and of one beyond
}

func newPopularity(flows uint32, exponent float64) popularity {
	first := firstOfBins(flows)
	weights := make([]float64, len(first)-1)
	for bin := range weights {
		if n := first[bin+1] - first[bin]; n == 1 {
			weights[bin] = math.Pow(float64(first[bin])+1, -exponent)
		} else {
			weights[bin] = between(float64(first[bin])+0.5, float64(first[bin+1])+0.5, exponent)
		}
	}
	return popularity{slots: alias(weights), first: first}
}

// firstOfBins divides flows into bins.
func firstOfBins(flows uint32) []uint32 {
	const single = maxBins / 2
	var first []uint32
	if flows <= maxBins {
		for flow := range flows + 1 {
			first = append(first, flow)
		}
		return first
	}
	for flow := range uint32(single) {
		first = append(first, flow)
	}
	ratio := math.Pow(float64(flows)/single, 1./single)
	edge, last := float64(single), first[len(first)-1]
	for range single {
		if at := uint32(math.Round(edge)); at > last { // the first of them would be less than one flow long
			first, last = append(first, at), at
		}
		edge *= ratio
	}
	return append(first, flows)
}

// between is the integral of x^-exponent: the midpoint rule backwards, for a sum
// of values half way between whole numbers.
func between(from, to, exponent float64) float64 {
	// (to^(1-s) - from^(1-s)) / (1-s), which for s near 1 becomes a logarithm.
	e := 1 - exponent
	log := math.Log(to / from)
	if math.Abs(e*log) < 1e-12 {
		return math.Pow(from, e) * log
	}
	return math.Pow(from, e) * math.Expm1(e*log) / e
}

// alias makes the table by which one draw of a slot, all alike, and one within
// it give bins by their weights (Vose: A Linear Algorithm for Generating Random
// Numbers with a Given Distribution, 1991).
func alias(weights []float64) []slot {
	total := 0.
	for _, w := range weights {
		total += w
	}
	share := make([]float64, len(weights)) // of what a slot holds
	var less, more []uint32
	for bin, w := range weights {
		share[bin] = w / total * float64(len(weights))
		if share[bin] < 1 {
			less = append(less, uint32(bin))
		} else {
			more = append(more, uint32(bin))
		}
	}
	slots := make([]slot, len(weights))
	for len(less) > 0 && len(more) > 0 {
		poor, rich := less[len(less)-1], more[len(more)-1]
		less = less[:len(less)-1]
		slots[poor] = slot{Own: uint32(min(share[poor]*(1<<32), math.MaxUint32)), Other: rich}
		share[rich] -= 1 - share[poor]
		if share[rich] < 1 {
			more = more[:len(more)-1]
			less = append(less, rich)
		}
	}
	for _, full := range append(less, more...) { // all of itself, but for rounding
		slots[full] = slot{Own: math.MaxUint32, Other: full}
	}
	return slots
}
