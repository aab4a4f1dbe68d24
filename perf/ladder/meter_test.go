package ladder

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a loop that takes what it is told to take, and what comes in between.
type model struct {
	restore, gross float64 // ns per packet
	calls          int
	ran            time.Duration

	// speed is by what all times are multiplied, after a time; nil for 1.
	speed func(ran time.Duration) float64

	// stall returns what is added to a slice.
	stall func(call int, restore bool, slice time.Duration) time.Duration

	// What the means of all slices would say.
	slices                 int
	stalled                int
	restoreTime, grossTime time.Duration
	restored, packets      int
}

const modelBatch = 64

func (m *model) loop(n int, restore bool) (time.Duration, error) {
	ns := m.gross
	if restore {
		ns = m.restore
	}
	if m.speed != nil {
		ns *= m.speed(m.ran)
	}
	took := time.Duration(float64(n*modelBatch) * ns)
	if m.stall != nil {
		if stall := m.stall(m.calls, restore, took); stall > 0 {
			took += stall
			m.stalled++
		}
	}
	m.calls++
	m.ran += took
	m.slices++
	if restore {
		m.restoreTime += took
		m.restored += n * modelBatch
	} else {
		m.grossTime += took
		m.packets += n * modelBatch
	}
	return took, nil
}

// means returns own work as the difference of two means.
func (m *model) means() float64 {
	return float64(m.grossTime)/float64(m.packets) - float64(m.restoreTime)/float64(m.restored)
}

// Stalls in less than half of the pairs do not move the figures, however long they
// are and wherever they come, and neither does a speed that changes. They do move
// the means.
func TestStalls(t *testing.T) {
	const restore, gross = 14.0, 57.0
	const burst = 4 * time.Millisecond
	for name, test := range map[string]struct {
		speed       func(time.Duration) float64
		calibrating func(call int, restore bool, slice time.Duration) time.Duration
		measuring   func(call int, restore bool, slice time.Duration) time.Duration
		meanOff     float64 // by how many ns per packet the mean is off, at least
		own         float64 // by how much own may be
	}{
		"nothing": {own: 0.1},
		"a burst in one slice of restoring": {own: 0.1, meanOff: 1, measuring: func(call int, _ bool, _ time.Duration) time.Duration {
			if call == 6 {
				return burst
			}
			return 0
		}},
		"a burst in every third slice": {own: 0.1, meanOff: 1, measuring: func(call int, restore bool, _ time.Duration) time.Duration {
			if restore && call/2%3 == 0 {
				return burst
			}
			return 0
		}},
		"bursts in gross": {own: 0.1, meanOff: 1, measuring: func(call int, restore bool, _ time.Duration) time.Duration {
			if !restore && call/2%3 == 0 {
				return burst
			}
			return 0
		}},
		"the first slices of each size": {own: 0.1, calibrating: func(call int, _ bool, _ time.Duration) time.Duration {
			if call/2%tries < tries-1 {
				return burst
			}
			return 0
		}},
		"all calibration, the slices are the least": {own: 0.1, calibrating: func(int, bool, time.Duration) time.Duration { return burst }},
		"restoring is calibrated to the least": {own: 0.1, calibrating: func(_ int, restore bool, _ time.Duration) time.Duration {
			if restore {
				return burst
			}
			return 0
		}},
		"everything is calibrated to the least": {own: 0.1, calibrating: func(_ int, restore bool, _ time.Duration) time.Duration {
			if !restore {
				return burst
			}
			return 0
		}},
		"the speed changes by a fifth meanwhile": {own: 5, speed: func(ran time.Duration) float64 {
			return 1 + 0.2*min(1, ran.Seconds()/0.1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, window := range []time.Duration{5 * time.Millisecond, 30 * time.Millisecond, 80 * time.Millisecond} {
				m := &model{restore: restore, gross: gross, speed: test.speed, stall: test.calibrating}
				subject := meter{loop: m.loop, packets: modelBatch, fewest: fewestBatches, longest: longestSlice}
				if err := subject.calibrate(window); err != nil {
					t.Fatal(err)
				}
				if subject.slice < fewestBatches {
					t.Fatalf("slices of %d batches, want %d at least", subject.slice, fewestBatches)
				}
				*m = model{restore: restore, gross: gross, speed: test.speed, stall: test.measuring}
				f, err := subject.measure(window)
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(f.own-(gross-restore)) > test.own {
					t.Errorf("%v: own work %.2f ns, want %g", window, f.own, gross-restore)
				}
				if test.own < 1 && (math.Abs(f.gross-gross) > 0.1 || math.Abs(f.restore-restore) > 0.1) {
					t.Errorf("%v: gross %.2f and restoring %.2f ns, want %g and %g", window, f.gross, f.restore, gross, restore)
				}
				if off := math.Abs(m.means() - (gross - restore)); off < test.meanOff {
					t.Errorf("%v: the means are off by %.2f ns only: the test shows nothing", window, off)
				}
				if f.pairs < fewestPairs || f.pairs*2 != m.slices || int(f.packets) != m.packets || m.restored != m.packets {
					t.Errorf("%v: %d pairs with %d packets, and there were %d slices with %d and %d", window, f.pairs, f.packets, m.slices, m.packets, m.restored)
				}
				// The shortest slices are longer than the shortest window.
				if most := max(window, 2*fewestPairs*longestSlice/4) * 3 / 2; m.stalled == 0 && m.ran > most {
					t.Errorf("%v: took %v", window, m.ran)
				}
			}
		})
	}
}

// Random stalls, of up to five times a slice's length in one slice of ten, are
// not in the figures.
func TestRandomStalls(t *testing.T) {
	const window = 80 * time.Millisecond
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		// Neighbours make everything take up to a fiftieth longer, too.
		m := &model{restore: 14 + 10*random.Float64(), gross: 25 + 1000*random.Float64()}
		m.stall = func(_ int, _ bool, slice time.Duration) time.Duration {
			if random.IntN(10) == 0 {
				return time.Duration(5 * random.Float64() * float64(slice))
			}
			return time.Duration(0.02 * random.Float64() * float64(slice))
		}
		subject := meter{loop: m.loop, packets: modelBatch, fewest: fewestBatches, longest: longestSlice}
		if err := subject.calibrate(window); err != nil {
			t.Fatal(err)
		}
		f, err := subject.measure(window)
		if err != nil {
			t.Fatal(err)
		}
		if off := math.Abs(f.own - (m.gross - m.restore)); off > 0.03*m.gross {
			t.Errorf("seed %d: own work %.1f ns, want %.1f", seed, f.own, m.gross-m.restore)
		}
	}
}

// What comes out below zero is measured for longer, and is no figure if it stays
// there. Next to nothing may be a bit below.
func TestBelowZero(t *testing.T) {
	const window = 80 * time.Millisecond
	for name, test := range map[string]struct {
		gross   float64
		until   int // call; to this one all restoring takes twice as long
		ok      bool
		windows float64 // how long it takes, about
	}{
		"nothing to do":    {gross: 14, ok: true, windows: 1},
		"next to nothing":  {gross: 14 - belowZero + 1, ok: true, windows: 1},
		"less":             {gross: 14 - belowZero - 1, windows: mostWindows},
		"less at first":    {gross: 20, until: 28, ok: true, windows: 2},
		"less all the way": {gross: 20, until: math.MaxInt, windows: mostWindows},
	} {
		m := &model{restore: 14, gross: test.gross}
		subject := meter{loop: m.loop, packets: modelBatch, fewest: fewestBatches, longest: longestSlice}
		if err := subject.calibrate(window); err != nil {
			t.Fatal(err)
		}
		*m = model{restore: 14, gross: test.gross, stall: func(call int, restore bool, slice time.Duration) time.Duration {
			if restore && call < test.until {
				return slice
			}
			return 0
		}}
		f, err := subject.measure(window)
		if (err == nil) != test.ok {
			t.Errorf("%s: own work %.1f ns, error %v", name, f.own, err)
		}
		if test.ok && f.own < -belowZero {
			t.Errorf("%s: own work %.1f ns", name, f.own)
		}
		if got := m.ran.Seconds() / window.Seconds(); got < test.windows-1 || got > test.windows+1 {
			t.Errorf("%s: took %.1f windows, want about %g", name, got, test.windows)
		}
	}
}

// Medians are those of an even number of pairs too, and own work is not the
// difference of two of them.
func TestFiguresOf(t *testing.T) {
	for name, test := range map[string]struct {
		pairs               []pair
		gross, restore, own float64
	}{
		"one":      {[]pair{{10, 30}}, 30, 10, 20},
		"even":     {[]pair{{10, 30}, {12, 36}}, 33, 11, 22},
		"paired":   {[]pair{{10, 50}, {20, 60}, {30, 40}}, 50, 20, 40}, // 30 by the medians
		"unsorted": {[]pair{{30, 90}, {10, 20}, {20, 50}}, 50, 20, 30},
		"negative": {[]pair{{30, 10}}, 10, 30, -20},
	} {
		f := figuresOf(test.pairs)
		if f.gross != test.gross || f.restore != test.restore || f.own != test.own || f.pairs != len(test.pairs) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// A slice is as long as it is to be if one of the tries was not interrupted, and
// not less than the least if all were.
func TestCalibrate(t *testing.T) {
	for _, gross := range []float64{20, 57, 1100} {
		for window, want := range map[time.Duration]time.Duration{
			time.Millisecond:      longestSlice / 4,
			32 * time.Millisecond: 2 * time.Millisecond,
			80 * time.Millisecond: longestSlice,
			time.Second:           longestSlice,
		} {
			for free := range tries + 1 { // the last: none
				m := &model{restore: 14, gross: gross, stall: func(call int, _ bool, _ time.Duration) time.Duration {
					if call/2%tries == free {
						return 0
					}
					return 4 * time.Millisecond
				}}
				subject := meter{loop: m.loop, packets: modelBatch, fewest: fewestBatches, longest: longestSlice}
				if err := subject.calibrate(window); err != nil {
					t.Fatal(err)
				}
				one := gross * modelBatch * fewestBatches // ns
				if got := gross * modelBatch * float64(subject.slice); free < tries && math.Abs(got-float64(want)) > 0.01*float64(want)+one {
					t.Errorf("%g ns, window %v, try %d free: a slice of %v, want %v", gross, window, free, time.Duration(got), want)
				}
				if subject.slice < fewestBatches {
					t.Errorf("%g ns, window %v, try %d free: a slice of %d batches", gross, window, free, subject.slice)
				}
			}
		}
	}
}

// What a call costs by itself is not in own work.
func TestCall(t *testing.T) {
	const window = 80 * time.Millisecond
	for _, call := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond} {
		m := &model{restore: 7, gross: 20, stall: func(int, bool, time.Duration) time.Duration { return call }}
		subject := meter{loop: m.loop, packets: modelBatch, fewest: fewestBatches, longest: longestSlice}
		if err := subject.calibrate(window); err != nil {
			t.Fatal(err)
		}
		f, err := subject.measure(window)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(f.own-13) > 0.1 {
			t.Errorf("with a call of %v: own work %.2f ns, want 13", call, f.own)
		}
	}
}

// A loop that fails ends it, wherever it is.
func TestMeterFails(t *testing.T) {
	failed := errors.New("failed")
	ends := 0
	for last := 0; ; last++ {
		m := &model{restore: 14, gross: 57}
		subject := meter{packets: modelBatch, fewest: fewestBatches, longest: longestSlice, loop: func(n int, restore bool) (time.Duration, error) {
			if m.calls == last {
				return 0, failed
			}
			return m.loop(n, restore)
		}}
		err := subject.calibrate(time.Millisecond)
		if err == nil {
			_, err = subject.measure(time.Millisecond)
		}
		if err == nil {
			break
		}
		if ends++; err != failed {
			t.Fatalf("call %d: %v", last, err)
		}
	}
	if ends < 2*fewestPairs {
		t.Errorf("failed in %d calls only", ends)
	}
}

// Own work is the sample's own; earlier reports have means alone.
func TestOwn(t *testing.T) {
	for name, test := range map[string]struct {
		sample Sample
		want   float64
	}{
		"pairs":      {newSample(Cell{Rung: Hit}, figures{pairs: 8, gross: 50, restore: 20, own: 31}), 31},
		"no own":     {newSample(Cell{Rung: Parse}, figures{pairs: 8, gross: 50, restore: 50}), 0},
		"earlier":    {Sample{Cell: Cell{Rung: Hit}, Gross: 50, Restore: 20}, 30},
		"restoring":  {newSample(Cell{Rung: Restore}, figures{pairs: 8, gross: 50, restore: 49, own: 1}), 50},
		"as earlier": {Sample{Cell: Cell{Rung: Restore}, Gross: 50, Restore: 49}, 50},
	} {
		if got := test.sample.Own(); got != test.want {
			t.Errorf("%s: %g, want %g", name, got, test.want)
		}
	}
}
