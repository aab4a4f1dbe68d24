package sink

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// edges returns the lowest value of each bucket, made by counting.
func edges() (low []uint64) {
	width, at := uint64(1), uint64(0)
	for at < 1<<(exponentMax+1) {
		for range perPower {
			low = append(low, at)
			at += width
		}
		if at >= 2*perPower {
			width *= 2
		}
	}
	return low
}

func TestBuckets(t *testing.T) {
	low := edges()
	if len(low) != buckets {
		t.Fatalf("%d buckets, want %d", len(low), buckets)
	}
	for bucket, from := range low {
		to := uint64(1) << (exponentMax + 1)
		if bucket+1 < buckets {
			to = low[bucket+1]
		}
		for _, value := range []uint64{from, (from + to) / 2, to - 1} {
			if got := bucketOf(value); got != bucket {
				t.Errorf("%d is in bucket %d, want %d", value, got, bucket)
			}
		}
		if got := highestOf(bucket); got != time.Duration(to-1) {
			t.Errorf("bucket %d ends with %d, want %d", bucket, got, to-1)
		}
		if width := to - from; width > 1 && float64(width)/float64(from) > 1./16 {
			t.Errorf("bucket %d is from %d to %d", bucket, from, to)
		}
	}
	if got := bucketOf(1 << 63); got != buckets-1 {
		t.Errorf("a great value is in bucket %d, want %d", got, buckets-1)
	}
}

// add does what the program does.
func (h *Histogram) add(value time.Duration) {
	h.Buckets[bucketOf(uint64(value))]++
	h.Max = max(h.Max, value)
}

func TestPercentile(t *testing.T) {
	var none Histogram
	if none.Percentile(50) != 0 || none.Count() != 0 {
		t.Error("there is something in an empty histogram")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, count := range []int{1, 2, 10, 1000, 100_000} {
		var h Histogram
		var values []time.Duration
		for range count {
			v := time.Duration(1) << random.IntN(45) // also beyond the last bucket
			v += time.Duration(random.Int64N(int64(v)))
			values = append(values, v)
			h.add(v)
		}
		slices.Sort(values)
		if int(h.Count()) != count || h.Max != values[count-1] {
			t.Errorf("%d values up to %v, want %d up to %v", h.Count(), h.Max, count, values[count-1])
		}
		for _, p := range []float64{-1, 0, 1, 10, 50, 90, 99, 99.9, 99.999, 100, 101} {
			below := 0 // the exact one by its definition: the first that p per cent are not above
			for below < count-1 && float64(below+1) < p/100*float64(count) {
				below++
			}
			exact, got := values[below], h.Percentile(p)
			if exact >= 1<<(exponentMax+1) {
				if got != h.Max {
					t.Errorf("%d values, %g %%: %d, want %d", count, p, got, h.Max)
				}
			} else if got < exact || float64(got) > float64(exact)*(1+1./16) {
				t.Errorf("%d values, %g %%: %d, want %d", count, p, got, exact)
			}
		}
	}
}

func TestSince(t *testing.T) {
	var before Histogram
	for _, v := range []time.Duration{3, 100, 1000, 50_000} {
		before.add(v)
	}
	for _, test := range []struct {
		name  string
		later []time.Duration
		most  time.Duration
	}{
		{"nothing", nil, 0},
		{"a greater one", []time.Duration{7, 60_001}, 60_001},
		{"a smaller one", []time.Duration{7, 1000}, 1023}, // of its bucket
		{"beyond the last bucket", []time.Duration{1 << 50}, 1 << 50},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, want := before, Histogram{Max: test.most}
			for _, v := range test.later {
				all.add(v)
				want.Buckets[bucketOf(uint64(v))]++
			}
			if got := all.Since(&before); got != want {
				t.Errorf("%d values up to %v, want %d up to %v", got.Count(), got.Max, want.Count(), want.Max)
			}
		})
	}
}

func monotonic(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

// stampOf is struct stamp in the generator's bpf/stamp.h.
func stampOf(number uint32, sent uint64) []byte {
	b := binary.BigEndian.AppendUint32([]byte("weir"), number)
	return binary.BigEndian.AppendUint64(b, sent)
}

// The program's clock is the system's, and its buckets are those of this package.
func TestLatency(t *testing.T) {
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Verify: true, Latency: true})
		before := read(t, s)
		for n := range 40 * 8 {
			ago := uint64(1) << (n / 8)
			ago += ago * uint64(n%8) / 8
			if n == 0 {
				ago = 0
			}
			first := monotonic(t)
			if ago > first {
				break // the machine is too young
			}
			k := kindOf(n % kinds)
			if !run(t, s, hook, frameOf(k, stampOf(uint32(n+1), first-ago))) {
				t.Fatalf("%v is left alone", k)
			}
			last := monotonic(t)
			after := read(t, s)
			least, most := bucketOf(ago), bucketOf(last-first+ago)
			latest := after.Latency.Since(&before.Latency)
			got := slices.Index(latest.Buckets[:], 1)
			if latest.Count() != 1 || got < least || got > most {
				t.Fatalf("%v, %d ns ago: bucket %d of %d values, want %d to %d", k, ago, got, latest.Count(), least, most)
			}
			// Each one is later than all before it, or close to one.
			if value := uint64(after.Latency.Max); after.Latency.Max > before.Latency.Max &&
				(value < ago || value > last-first+ago || bucketOf(value) != got) {
				t.Fatalf("%v, %d ns ago: %d ns in bucket %d", k, ago, value, got)
			}
			before = after
		}
		if before.Bad != (Bad{}) || before.Reordered != 0 || before.Latency.Count() < 100 {
			t.Errorf("%+v, %d reordered, %d values", before.Bad, before.Reordered, before.Latency.Count())
		}

		// A clock that is ahead is no time at all.
		run(t, s, hook, frameOf(Kind{}, stampOf(1000, monotonic(t)+1e12)))
		after := read(t, s)
		if latest := after.Latency.Since(&before.Latency); latest.Buckets[0] != 1 || latest.Max != 0 {
			t.Errorf("a stamp of the future: %d at 0, up to %v", latest.Buckets[0], latest.Max)
		}
	})
}

func TestReordered(t *testing.T) {
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Latency: true})
		for i, test := range []struct {
			number uint32
			want   uint64
		}{{1, 0}, {2, 0}, {5, 0}, {3, 1}, {4, 2}, {5, 2}, {6, 2}, {1 << 30, 2}, {1<<31 + 1, 2}, {1<<32 - 1, 2}, {0, 2}, {1<<32 - 1, 3}, {1, 3}} {
			run(t, s, hook, frameOf(Kind{}, stampOf(test.number, monotonic(t))))
			if r := read(t, s); r.Reordered != test.want {
				t.Errorf("after frame %d, number %d: %d reordered, want %d", i, test.number, r.Reordered, test.want)
			}
		}
	})
}

// Without a whole stamp inside the packet a frame is bad, whatever else it is.
func TestNoStamp(t *testing.T) {
	stamp := stampOf(1, 1)
	wrong := append([]byte("weis"), stamp[4:]...)
	padded := append(frameOf(Kind{}, stamp[:15]), stamp[15])
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s, want := openOn(t, host, Options{Hook: hook, Verify: true, Latency: true}), Reading{}
		for name, frame := range map[string][]byte{
			"another magic number": frameOf(Kind{Tunnel: InIPv6, Protocol: Segment}, wrong),
			"not all of it":        frameOf(Kind{Family: IPv6}, stamp[:15]),
			"the rest in padding":  padded,
			"nothing":              frameOf(Kind{Protocol: Opening}, nil),
		} {
			run(t, s, hook, frame)
			want.Bad.Stamp++
			if r := read(t, s); r != want {
				t.Errorf("%s: %+v, %+v", name, r.Good(), r.Bad)
			}
		}
	})
}
