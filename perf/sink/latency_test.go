package sink

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/perf/measure"
)

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

// The program's clock is the system's, and its buckets are those of the histogram.
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
			least, most := measure.BucketOf(ago), measure.BucketOf(last-first+ago)
			latest := after.Latency.Since(&before.Latency)
			got := slices.Index(latest.Buckets[:], 1)
			if latest.Count() != 1 || got < least || got > most {
				t.Fatalf("%v, %d ns ago: bucket %d of %d values, want %d to %d", k, ago, got, latest.Count(), least, most)
			}
			// Each one is later than all before it, or close to one.
			if value := uint64(after.Latency.Max); after.Latency.Max > before.Latency.Max &&
				(value < ago || value > last-first+ago || measure.BucketOf(value) != got) {
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
