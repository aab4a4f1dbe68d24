package ladder

import (
	"fmt"
	"slices"
	"time"
)

// loop does something n times on one thread and returns how long that thread has
// run. With restore it makes the packets and does no more.
type loop func(n int, restore bool) (time.Duration, error)

// meter measures a loop in pairs of slices: restoring alone, and right after it
// everything. Whatever changes slowly, the CPU's frequency say, is in both slices
// of a pair and not in their difference. What comes in bursts is charged to the
// thread that it interrupts, as kernels without CONFIG_IRQ_TIME_ACCOUNTING do with
// interrupts; it spoils the pairs that it hits, and the median over all pairs is
// of the others.
//
// Both slices are of as many packets. So a burst counts as much in either, what a
// call costs by itself is not in the difference, and there is little time between
// two slices with everything, in which others push the flow table out of shared
// caches.
type meter struct {
	loop    loop
	packets int // in each of n
	fewest  int // n: with less, a slice is mostly the call and cold caches

	// longest is that of a slice with everything. A shorter one than a quarter of it
	// is cold caches to a good part, and with longer ones there are fewer pairs.
	longest time.Duration

	slice int // n of each
}

// pair is what the slices of a pair took, in ns per packet.
type pair struct{ restore, gross float64 }

// figures are medians of pairs, in ns per packet.
type figures struct {
	pairs               int
	packets             uint64 // of all slices with everything
	gross, restore, own float64
}

const (
	// fewestPairs is how many pairs the median is of, at least.
	fewestPairs = 8

	// tries is how often a slice's length is tried: the fastest was not interrupted.
	tries = 3

	// belowZero is by how many ns per packet restoring alone may take longer than
	// everything, where that does nearly nothing.
	belowZero = 3

	// mostWindows is how much longer is measured until it does not.
	mostWindows = 4
)

// calibrate finds out how much a slice is, and warms up both.
func (m *meter) calibrate(window time.Duration) error {
	slice := min(max(window/(2*fewestPairs), m.longest/4), m.longest)
	for n := m.fewest; ; n *= 2 {
		var fastest time.Duration
		for try := range tries {
			if _, err := m.loop(n, true); err != nil {
				return err
			}
			took, err := m.loop(n, false)
			if err != nil {
				return err
			}
			if try == 0 || took < fastest {
				fastest = took
			}
		}
		if fastest >= slice/4 {
			m.slice = max(m.fewest, int(float64(n)*float64(slice)/float64(fastest)))
			return nil
		}
	}
}

// measure measures for a time of the thread, both slices together. It goes on
// while own work comes out below zero, and fails if it stays there: nothing that
// is measured takes less than nothing.
func (m *meter) measure(window time.Duration) (figures, error) {
	packets := float64(m.slice * m.packets)
	var pairs []pair
	var ran time.Duration
	for limit := window; ; limit += window {
		for len(pairs) < fewestPairs || ran < limit {
			restore, err := m.loop(m.slice, true)
			if err != nil {
				return figures{}, err
			}
			whole, err := m.loop(m.slice, false)
			if err != nil {
				return figures{}, err
			}
			ran += restore + whole
			pairs = append(pairs, pair{
				restore: float64(restore) / packets,
				gross:   float64(whole) / packets,
			})
		}
		f := figuresOf(pairs)
		f.packets = uint64(len(pairs)) * uint64(m.slice) * uint64(m.packets)
		switch {
		case f.own >= -belowZero:
			return f, nil
		case limit >= mostWindows*window:
			return f, fmt.Errorf("restoring packets takes %.1f ns, and with all that is to be done to them %.1f ns less: run it where nothing else runs", f.restore, -f.own)
		}
	}
}

// figuresOf sums up pairs. Own is the median of differences, which is not the
// difference of medians.
func figuresOf(pairs []pair) figures {
	return figures{
		pairs:   len(pairs),
		gross:   median(pairs, func(p pair) float64 { return p.gross }),
		restore: median(pairs, func(p pair) float64 { return p.restore }),
		own:     median(pairs, func(p pair) float64 { return p.gross - p.restore }),
	}
}

func median(pairs []pair, value func(pair) float64) float64 {
	var values []float64
	for _, p := range pairs {
		values = append(values, value(p))
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
