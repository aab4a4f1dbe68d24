package ladder

import (
	"fmt"
	"slices"
	"time"
)

// loop does something n times on one thread and returns how long that thread has
// run. With restore it makes the packets and does no more.
type loop func(n int, restore bool) (time.Duration, error)

// meter measures a loop in pairs of slices that are about as long: restoring
// alone, and right after it everything. Whatever changes slowly, the CPU's
// frequency say, is in both slices of a pair and not in their difference. What
// comes in bursts is charged to the thread that it interrupts, as kernels without
// CONFIG_IRQ_TIME_ACCOUNTING do with interrupts; it spoils the pairs that it hits,
// and the median over all pairs is of the others.
type meter struct {
	loop    loop
	packets int // in each of n
	fewest  int // n: with less, a slice is mostly the call and cold caches

	// longest is that of a slice. A shorter one than a quarter of it is cold caches to
	// a good part, and with longer ones there are fewer pairs.
	longest time.Duration

	// same has both slices do the same number, and restoring take less time: where a
	// call costs much by itself, so that this is not in the difference.
	same bool

	restores, whole int // n of a slice
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
func (m *meter) calibrate(window time.Duration) (err error) {
	slice := min(max(window/(2*fewestPairs), m.longest/4), m.longest)
	if m.whole, err = m.timesFor(slice, false); err != nil {
		return err
	}
	if m.same {
		m.restores = m.whole
		_, err = m.loop(m.restores, true)
		return err
	}
	m.restores, err = m.timesFor(slice, true)
	return err
}

// timesFor returns how many times take about that long.
func (m *meter) timesFor(slice time.Duration, restore bool) (int, error) {
	for n := m.fewest; ; n *= 2 {
		var fastest time.Duration
		for try := range tries {
			took, err := m.loop(n, restore)
			if err != nil {
				return 0, err
			}
			if try == 0 || took < fastest {
				fastest = took
			}
		}
		if fastest >= slice/4 {
			return max(m.fewest, int(float64(n)*float64(slice)/float64(fastest))), nil
		}
	}
}

// measure measures for a time of the thread, both slices together. It goes on
// while own work comes out below zero, and fails if it stays there: nothing that
// is measured takes less than nothing.
func (m *meter) measure(window time.Duration) (figures, error) {
	var pairs []pair
	var ran time.Duration
	for limit := window; ; limit += window {
		for len(pairs) < fewestPairs || ran < limit {
			restore, err := m.loop(m.restores, true)
			if err != nil {
				return figures{}, err
			}
			whole, err := m.loop(m.whole, false)
			if err != nil {
				return figures{}, err
			}
			ran += restore + whole
			pairs = append(pairs, pair{
				restore: float64(restore) / float64(m.restores*m.packets),
				gross:   float64(whole) / float64(m.whole*m.packets),
			})
		}
		f := figuresOf(pairs)
		f.packets = uint64(len(pairs)) * uint64(m.whole) * uint64(m.packets)
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
