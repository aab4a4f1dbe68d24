package checks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/perf/measure"
)

// Each kind of check arrives where it is meant to, as often as it is meant to,
// and all backends are up. What it costs is not asked here.
func TestChecks(t *testing.T) {
	labtest.NeedRoot(t)
	weir := filepath.Join(t.TempDir(), "weir")
	build := exec.Command("go", "build", "-o", weir, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	const backends = 20
	report, err := Run(t.Context(), Options{
		Setup:    measure.Setup{Repeats: 1, Window: 500 * time.Millisecond},
		Weir:     weir,
		Backends: backends,
		Interval: 200 * time.Millisecond,
		WarmUp:   time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := 5; len(report.Cells) != want || len(report.Summary) != want {
		t.Fatalf("%d cells, %d rows, want %d", len(report.Cells), len(report.Summary), want)
	}
	if !strings.HasPrefix(report.Weir, "weir version ") {
		t.Errorf("what was measured is %q", report.Weir)
	}
	for _, c := range report.Cells {
		t.Run(fmt.Sprintf("%d %s %s", c.Checked, c.Kind, c.To), func(t *testing.T) {
			if c.Up != backends || c.Passed != c.Checked {
				t.Errorf("%d of %d backends are up, and %d of %d checked ones have passed", c.Up, backends, c.Passed, c.Checked)
			}
			s := c.Served
			if c.To != ToVIP && s.VIP != 0 || c.To != ToBackend && s.Own != 0 || c.Kind != HTTP && s.Answered != 0 {
				t.Errorf("somebody was asked who should not have been: %+v", s)
			}
			// A window has two intervals and a half.
			if n := c.made(); n < uint64(c.Checked) {
				t.Errorf("%d checks were made of %d backends", n, c.Checked)
			}
			if c.StartCPU == 0 || c.Memory == 0 || c.Config == 0 || c.Ready == 0 {
				t.Errorf("something was not measured: %+v", c)
			}
		})
	}
}

// Rows are in the order of measuring a round, a check costs what is more than
// without any, and what must not be is not hidden in a median.
func TestSummary(t *testing.T) {
	r := Report{Backends: 10}
	for _, c := range []Cell{
		{Kind: HTTP, To: ToVIP, Checked: 10, CPU: 0.3, Made: 10, Up: 10, Passed: 10},
		{Kind: TCP, To: ToVIP, Checked: 2, CPU: 0.25, Made: 2, Up: 10, Passed: 1, Logged: 1},
		{Kind: TCP, To: ToVIP, Checked: 2, CPU: 0.75, Made: 2, Up: 8, Passed: 2, Logged: 2},
		{Kind: None, CPU: 0.25, Up: 10},
	} {
		r.Add(c)
	}
	var order []Kind
	for _, row := range r.Summary {
		order = append(order, row.Kind)
	}
	if want := []Kind{None, TCP, HTTP}; !slices.Equal(order, want) {
		t.Fatalf("rows %v, want %v", order, want)
	}
	want := Row{
		Kind: TCP, To: ToVIP, Checked: 2, Rounds: 2, NotUp: 2, Logged: 3,
		CPU: measure.Spread{Median: 0.5, Min: 0.25, Max: 0.75}, Made: measure.Spread{Median: 2, Min: 2, Max: 2}, PerCheck: measure.Spread{Median: 0.125, Min: 0, Max: 0.25},
	}
	if got := r.Summary[1]; !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

// The times of a process are those of its threads: what getrusage says of the same
// time is between a read before it and one behind it, as far as the scheduler's
// account, which is as of each core's last tick, and the ticks themselves go.
func TestReadWeir(t *testing.T) {
	const slack, spend = 100 * time.Millisecond, 500 * time.Millisecond
	used := func() time.Duration {
		t.Helper()
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	read := func() weirTime {
		t.Helper()
		w, err := readWeir(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	outerBegin := used()
	before := read()
	begin := used()
	// Two threads at once.
	var done atomic.Bool
	var spent sync.WaitGroup
	for range 2 {
		spent.Go(func() {
			for !done.Load() {
			}
		})
	}
	for used() < begin+spend {
	}
	end := used()
	after := read()
	outerEnd := used()
	done.Store(true)
	spent.Wait()
	if ran := after.since(before).Ran; ran < end-begin-slack || ran > outerEnd-outerBegin+slack {
		t.Errorf("ran %v, while getrusage has %v to %v", ran, end-begin, outerEnd-outerBegin)
	}
	since := after.ticks.Since(before.ticks)
	// USER_HZ is 100 on all architectures that Go knows.
	if ticked := time.Duration((since.User + since.Kernel) * float64(10*time.Millisecond)); ticked < end-begin-slack || ticked > outerEnd-outerBegin+slack {
		t.Errorf("%v of ticks, while getrusage has %v to %v", ticked, end-begin, outerEnd-outerBegin)
	}
}
