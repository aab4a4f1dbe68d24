package wire

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/lab/labtest"
	"weir/perf/loops"
	"weir/perf/measure"
)

// All loops do all there is to do, and no frame is counted that was not there.
// How fast is not asked here.
func TestLoops(t *testing.T) {
	labtest.NeedRoot(t)
	report, err := Run(t.Context(), Options{
		Setup:     measure.Setup{Repeats: 1, Window: 50 * time.Millisecond},
		Step:      10 * time.Millisecond,
		Scenarios: []Scenario{Overload, SendOnly},
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(loops.Kinds()); len(report.Cells) != want || len(report.Summary) != want {
		t.Fatalf("%d cells, %d rows, want %d", len(report.Cells), len(report.Summary), want)
	}
	for _, c := range report.Cells {
		t.Run(string(c.Loop)+" "+string(c.Scenario), func(t *testing.T) {
			a := c.Account
			if a.Offered == 0 && c.Scenario != SendOnly {
				t.Skip("the machine is so busy that the generator did not get its turn")
			}
			if a.Delivered == 0 {
				t.Fatalf("nothing delivered: %+v", c)
			}
			if a.Delivered > a.Sent {
				t.Errorf("delivered more than was sent: %+v", a)
			}
			if c.Scenario == SendOnly {
				return
			}
			// On a busy machine the kernel loses some on the way that no counter has.
			if a.Received+a.ReceiveDropped > a.Offered-a.Refused {
				t.Errorf("received and dropped is more than what was offered: %+v", a)
			}
			// GivenUp may have frames that Sent has as well: the driver's.
			if a.Sent > a.Received || a.Sent+a.GivenUp < a.Received {
				t.Errorf("sent and given up is not what was received: %+v", a)
			}
		})
	}
}

// A data plane in place of a loop forwards, and two workers share the work.
func TestModes(t *testing.T) {
	labtest.NeedRoot(t)
	report, err := Run(t.Context(), Options{
		Setup:     measure.Setup{Repeats: 1, Window: 50 * time.Millisecond},
		Step:      10 * time.Millisecond,
		Kinds:     Balancers(),
		Scenarios: []Scenario{Overload},
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := len(Balancers()); len(report.Cells) != want || len(report.Summary) != want {
		t.Fatalf("%d cells, %d rows, want %d", len(report.Cells), len(report.Summary), want)
	}
	for _, c := range report.Cells {
		t.Run(string(c.Loop), func(t *testing.T) {
			a := c.Account
			if a.Offered == 0 {
				t.Skip("the machine is so busy that the generator did not get its turn")
			}
			if a.Delivered == 0 || a.Delivered > a.Sent || a.Sent > a.Received || a.Received+a.ReceiveDropped > a.Offered-a.Refused {
				t.Errorf("%+v", a)
			}
			if (a.HandedOver > 0) != (c.Loop == WeirKeep2) {
				t.Errorf("%d frames were handed over", a.HandedOver)
			}
		})
	}
}

// A round without a loss-free rate counts as failed and not in the medians.
func TestFailedRound(t *testing.T) {
	var r Report
	r.Add(Cell{Loop: loops.Own, Scenario: LossFree, Delivered: 10, Loss: MaxLoss})
	r.Add(Cell{Loop: loops.Own, Scenario: LossFree, Delivered: 99, Loss: 2 * MaxLoss})
	r.Add(Cell{Loop: loops.Own, Scenario: Overload, Delivered: 20, Loss: 0.5})
	if len(r.Summary) != 2 {
		t.Fatalf("summary %+v", r.Summary)
	}
	if row := r.Summary[0]; row.Scenario != Overload || row.Rounds != 1 || row.Failed != 0 {
		t.Errorf("%+v", row)
	}
	if row := r.Summary[1]; row.Rounds != 2 || row.Failed != 1 || row.Delivered != (measure.Spread{Median: 10, Min: 10, Max: 10}) {
		t.Errorf("%+v", row)
	}
}
