package generator

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"weir/lab/labtest"
)

// exact returns the probabilities of flows by the law itself.
func exact(flows uint32, exponent float64) []float64 {
	p := make([]float64, flows)
	sum := 0.
	for flow := len(p) - 1; flow >= 0; flow-- { // the small ones first, for precision
		p[flow] = math.Pow(float64(flow+1), -exponent)
		sum += p[flow]
	}
	for flow := range p {
		p[flow] /= sum
	}
	return p
}

// implied returns the probabilities of flows that the program draws with.
func (p *popularity) implied(flows uint32) []float64 {
	bins := make([]float64, len(p.slots))
	for at, s := range p.slots {
		own := float64(s.Own) / (1 << 32)
		bins[at] += own / float64(len(p.slots))
		bins[s.Other] += (1 - own) / float64(len(p.slots))
	}
	all := make([]float64, flows)
	for bin, share := range bins {
		from, to := p.first[bin], p.first[bin+1]
		for flow := from; flow < to; flow++ {
			all[flow] = share / float64(to-from)
		}
	}
	return all
}

// The table has the probabilities that the law gives, each of them.
func TestPopularity(t *testing.T) {
	for _, flows := range []uint32{1, 2, 3, 1000, maxBins, maxBins + 1, 1 << 20} {
		for _, exponent := range []float64{0.01, 0.9, 1, 1.0000001, 3} {
			p := newPopularity(flows, exponent)
			if len(p.first) != len(p.slots)+1 || len(p.slots) > maxBins || p.first[len(p.slots)] != flows {
				t.Fatalf("%d flows: %d slots, %d bins, the end at %d", flows, len(p.slots), len(p.first)-1, p.first[len(p.first)-1])
			}
			want, got := exact(flows, exponent), p.implied(flows)
			distance := 0.
			for flow := range want {
				d := math.Abs(got[flow] - want[flow])
				distance += d / 2
				// A slot knows 2^32 parts of 1/65536: what is rarer is coarse.
				if d > want[flow]*1e-3 && d > 1e-9 {
					t.Fatalf("%d flows, exponent %g: flow %d has %g, want %g", flows, exponent, flow, got[flow], want[flow])
				}
			}
			if distance > 1e-4 {
				t.Errorf("%d flows, exponent %g: the whole is %g off", flows, exponent, distance)
			}
		}
	}
}

// As many flows as there can be are in bins that cover all of them.
func TestMostFlows(t *testing.T) {
	first := firstOfBins(MaxFlows)
	for bin := range len(first) - 1 {
		if from, to := float64(first[bin]), float64(first[bin+1]); from >= to || to-from > 1 && (to-from)/from > 0.0005 {
			t.Fatalf("bin %d is from %g to %g", bin, from, to)
		}
	}
	if first[0] != 0 || first[len(first)-1] != MaxFlows || len(first)-1 > maxBins || len(first) < maxBins/2 {
		t.Errorf("%d bins from %d to %d", len(first)-1, first[0], first[len(first)-1])
	}
}

// chiSquare compares counts of flows with what the law gives: it is near the
// number of classes, which it returns too, and by more than a few times the root
// of twice that only if the law is another. Flows that are seldom are one class.
func chiSquare(counts map[uint32]int, n int, p []float64) (sum float64, classes int) {
	restWant, restGot := 0., n
	for flow := range p {
		want := p[flow] * float64(n)
		if want < 10 {
			restWant += want
			continue
		}
		got := counts[uint32(flow)]
		restGot -= got
		classes++
		sum += (float64(got) - want) * (float64(got) - want) / want
	}
	if restWant >= 10 {
		classes++
		sum += (float64(restGot) - restWant) * (float64(restGot) - restWant) / restWant
	}
	return sum, classes
}

// flowOf is the number of the flow with a source, the other way round than source.
func flowOf(t *testing.T, from netip.AddrPort) uint32 {
	t.Helper()
	a, first := from.Addr().AsSlice(), FlowSources().Addr().AsSlice()
	if !FlowSources().Contains(from.Addr()) {
		a[len(a)-4], a[len(a)-3] = a[len(a)-4]+198, a[len(a)-3]+18
	}
	a, n := a[len(a)-4:], uint32(0)
	for i := range a {
		n = n<<8 + uint32(a[i]-first[i])
	}
	if from.Port() < 1024 || from.Port() >= 1024+16384 {
		t.Fatalf("from %s", from)
	}
	return n*16384 + uint32(from.Port()) - 1024
}

// What arrives is distributed by the law.
func TestZipfArrives(t *testing.T) {
	w := newWire(t)
	for i, test := range []struct {
		flows    uint32
		exponent float64
	}{{10, 1}, {1000, 0.9}, {100_000, 1.1}, {1 << 20, 1}} {
		t.Run(fmt.Sprintf("%d^%g", test.flows, test.exponent), func(t *testing.T) {
			opt := options
			opt.Flows, opt.Zipf, opt.Seed = test.flows, test.exponent, 7
			if i%2 == 1 {
				opt.To = netip.MustParseAddrPort("[2001:db8::1]:9")
			}
			frames, _, _ := w.arrived(t, opt, 5_000, 100_000)
			counts, beyond := make(map[uint32]int), 0
			for _, b := range frames {
				flow := flowOf(t, see(t, b).from)
				if flow >= test.flows {
					t.Fatalf("flow %d of %d", flow, test.flows)
				}
				if flow >= 1<<16 {
					beyond++
				}
				counts[flow]++
			}
			sum, classes := chiSquare(counts, len(frames), exact(test.flows, test.exponent))
			if d := float64(classes); classes < 9 || math.Abs(sum-d) > 5*math.Sqrt(2*d) {
				t.Errorf("chi-square is %.1f with %d classes", sum, classes)
			}
			if test.flows == 1<<20 && beyond == 0 {
				t.Error("no flow beyond the first 65536")
			}
			if other, _ := chiSquare(counts, len(frames), exact(test.flows, test.exponent*1.2)); other < 2*sum {
				t.Errorf("chi-square is %.1f, and %.1f for another exponent", sum, other)
			}
		})
	}
}

// What is drawn depends on the seed only, and the share of new connections does
// not change which flows are drawn.
func TestDraws(t *testing.T) {
	labtest.NeedRoot(t)
	stayOnOneCPU(t) // each has a counter of its own
	draw := func(seed uint64, share float64) (all string, flows []netip.AddrPort) {
		opt := options
		opt.TCP, opt.Zipf, opt.SYNShare, opt.Flows, opt.Seed = true, 0.01, share, MaxFlows, seed
		g, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := g.SetRate(Unlimited); err != nil {
			t.Fatal(err)
		}
		for range 500 {
			_, b := once(t, g)
			s := see(t, b)
			all += string(b)
			flows = append(flows, s.from)
		}
		return all, flows
	}
	first, flows := draw(1, 0.5)
	if again, _ := draw(1, 0.5); again != first {
		t.Error("the same seed gives other frames")
	}
	if other, _ := draw(2, 0.5); other == first {
		t.Error("another seed gives the same frames")
	}
	_, without := draw(1, 0)
	same, high, within := 0, 0, 0. // of bins, which are wide with so many flows
	bins := firstOfBins(MaxFlows)
	for i := range flows {
		if flows[i] == without[i] {
			same++
		}
		flow := flowOf(t, without[i])
		if flow >= MaxFlows/2 {
			high++
		}
		bin, _ := slices.BinarySearch(bins, flow+1)
		from, to := bins[bin-1], bins[bin]
		within += (float64(flow-from) + 0.5) / float64(to-from) / float64(len(flows))
	}
	if within < 0.45 || within > 0.55 {
		t.Errorf("flows are at %.2f of their bin on average", within)
	}
	if same < 200 || same > 300 || high < 200 || high > 300 {
		t.Errorf("%d of 500 frames are of the same flow, %d of the second half of all", same, high)
	}
	_, all := draw(1, 1)
	for i, from := range all {
		if !OpeningSources().Contains(from.Addr()) {
			t.Fatalf("frame %d is not a new connection", i)
		}
	}
}
