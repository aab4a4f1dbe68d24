package soak

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/dataplane/afxdp"
	"weir/lab/labtest"
	"weir/perf/balancer"
	"weir/perf/measure"
	"weir/perf/sink"
)

// TestMain makes the test program one that has the command, for Run starts
// itself.
func TestMain(m *testing.M) {
	measure.ServeChild(PlaneCommand())
	os.Exit(m.Run())
}

// In two seconds nothing gets lost, and nothing is left over by forty snapshots.
// What grows slowly shows in longer runs only.
func TestSoak(t *testing.T) {
	labtest.NeedRoot(t)
	for _, mode := range Modes() {
		t.Run(string(mode), func(t *testing.T) {
			report, err := Run(t.Context(), Options{
				For: 2 * time.Second, Every: 50 * time.Millisecond, Mode: mode, Flows: 1000, New: 0.5, Entries: 1 << 14,
			})
			if errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip(err) // the sink needs TCX
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range report.Faults {
				t.Error(f)
			}
			if len(report.Samples) != 40 || report.Rest == nil {
				t.Fatalf("%d samples, want 40 and one at rest: %+v", len(report.Samples), report.Rest)
			}
			rest := report.Rest
			if rest.Snapshots != 41 || rest.NewFlows == 0 || rest.Flows == 0 || rest.Memory == 0 || rest.Heap == 0 || rest.Total == 0 {
				t.Errorf("at rest: %+v", rest)
			}
			if (rest.SNATFlows > 0) != (mode == balancer.NAT) {
				t.Errorf("%d flows have a SNAT port", rest.SNATFlows)
			}
			for _, g := range report.Growth {
				switch g.What {
				case "goroutines", "file descriptors":
					if g.Grew || g.Min == 0 {
						t.Errorf("%+v", g)
					}
				}
			}

			path := filepath.Join(t.TempDir(), "report.json")
			if err := measure.WriteFile(path, report); err != nil {
				t.Fatal(err)
			}
			again, err := measure.ReadFile[Report](path)
			if err != nil {
				t.Fatal(err)
			}
			again.Conclude()
			if !reflect.DeepEqual(again, report) {
				t.Error("the file does not say the same")
			}
			var text strings.Builder
			if err := measure.WriteMarkdown(&text, again.Tables()); err != nil || !strings.Contains(text.String(), "| memory resident |") {
				t.Errorf("%v:\n%s", err, text.String())
			}
		})
	}
}

// A report of a run in which all was well, and what it says when something was
// not.
func TestConclude(t *testing.T) {
	frames := afxdp.Account{Free: 8000, Fill: 4000, Receiving: 10, Received: 20, Send: 30, Sending: 40, Completed: 50}
	for name, test := range map[string]struct {
		change func(r *Report)
		want   string // in the only fault; empty for none
	}{
		"well":            {func(*Report) {}, ""},
		"a frame is lost": {func(r *Report) { f := &r.Samples[9].Frames; f.Free--; f.Held++ }, "1 frames are lost"},
		"a frame is there twice": {
			func(r *Report) { r.Samples[9].Fault = "frame 7 is in two places" }, "frame 7 is in two places",
		},
		"given back too often": {func(r *Report) { r.Samples[9].Frames.Sending = -1 }, "more than it took"},
		"fewer frames":         {func(r *Report) { r.Samples[9].Total-- }, "and there were"},
		"lost at rest":         {func(r *Report) { f := &r.Rest.Frames; f.Free--; f.Held++ }, "at rest: 1 frames are lost"},
		"fewer frames at rest": {func(r *Report) { r.Rest.Total-- }, "at rest: 12149 frames, and there were 12150"},
		"under way at rest":    {func(r *Report) { f := &r.Rest.Frames; f.Free--; f.Sending++ }, "under way"},
		"a packet is missing":  {func(r *Report) { r.Rest.Sent-- }, "were received, "},
		"more than offered":    {func(r *Report) { r.Rest.Refused += 400 }, "were offered"},
		"more than was sent":   {func(r *Report) { r.Rest.Arrived.Segments += 500 }, "arrived"},
		"nothing arrived":      {func(r *Report) { r.Rest.Arrived = sink.Counts{} }, "arrived"},
		"flows have gone":      {func(r *Report) { r.Flows, r.Gone = 5, &Sample{Flows: 5, SNATFlows: 5} }, ""},
		"a flow stays":         {func(r *Report) { r.Flows, r.Gone = 5, &Sample{Flows: 6} }, "6 flows are left"},
		"a port stays":         {func(r *Report) { r.Flows, r.Gone = 5, &Sample{Flows: 4, SNATFlows: 5} }, "5 with a SNAT port"},
		"nothing received": {func(r *Report) {
			for i := range r.Samples {
				r.Samples[i].Received = 0
			}
		}, "nothing was received"},
	} {
		r := Report{Rest: &Rest{Offered: 1000, Refused: 100, Arrived: sink.Counts{Openings: 100, Segments: 500}}}
		for i := range minTurns {
			r.Samples = append(r.Samples, Sample{Seconds: float64(i), Received: uint64(10 * i), Frames: frames, Total: totalOf(frames)})
		}
		r.Rest.Sample = Sample{Received: 700, Sent: 650, Dropped: 50, ReceiveDropped: 150, Frames: afxdp.Account{Free: 8000, Fill: 4096, Receiving: 4, Completed: 50}}
		r.Rest.Total = totalOf(r.Rest.Frames)
		test.change(&r)
		r.Conclude()
		switch {
		case test.want == "" && len(r.Faults) == 0 && r.OK():
		case test.want != "" && len(r.Faults) == 1 && strings.Contains(r.Faults[0], test.want) && !r.OK():
		default:
			t.Errorf("%s: faults %q, OK %v, want %q", name, r.Faults, r.OK(), test.want)
		}
	}
	if r := (Report{}); r.OK() {
		t.Error("a run that did not get to its end is OK")
	}
}

func TestRefused(t *testing.T) {
	for name, opt := range map[string]Options{
		"too short": {For: time.Second},
		"no mode":   {Mode: "bridge"},
	} {
		if _, err := Run(context.Background(), opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
