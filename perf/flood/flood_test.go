package flood

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/lab/labtest"
	"weir/perf/balancer"
	"weir/perf/measure"
)

// A flood takes no flow that was established before, in any mode, and all frames
// are accounted for. How fast is not asked here.
func TestFlood(t *testing.T) {
	labtest.NeedRoot(t)
	const flows, entries = 300, 4096
	report, err := Run(t.Context(), Options{
		Setup:     measure.Setup{Repeats: 1, Window: 100 * time.Millisecond},
		Rates:     []Rate{0, 200_000},
		Flows:     flows,
		FlowsRate: 20_000,
		Entries:   entries, // of which the flood would take all
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(Modes()); len(report.Cells) != want || len(report.Summary) != want {
		t.Fatalf("%d cells, %d rows, want %d", len(report.Cells), len(report.Summary), want)
	}
	var flood, packets uint64
	for _, c := range report.Cells {
		flood += c.Account.Flood
		packets += c.FlowsArrived
		t.Run(string(c.Mode)+" "+c.Rate.String(), func(t *testing.T) {
			if c.Gone != 0 || c.Moved != 0 || c.Evicted != 0 {
				t.Errorf("%d flows are gone, %d moved, %d trusted ones were evicted", c.Gone, c.Moved, c.Evicted)
			}
			if c.FlowsArrived > c.FlowsSent {
				t.Errorf("flows sent %d packets and %d arrived", c.FlowsSent, c.FlowsArrived)
			}
			if c.MemoryBefore == 0 || c.MemoryAfter == 0 {
				t.Error("no memory used")
			}
			a := c.Account
			if c.Rate == 0 && (a.Flood != 0 || c.Offered != 0 || c.Taken != 0 || a.Balancer.Flows != flows) {
				t.Errorf("without a flood: %+v", c)
			}
			b := a.Balancer
			if b.Received+b.ReceiveDropped > a.Flood+a.Flows-a.Refused {
				t.Errorf("received and dropped is more than what was offered: %+v", a)
			}
			dropped := uint64(0)
			for _, n := range b.Drops {
				dropped += n
			}
			if b.Sent+dropped != b.Received {
				t.Errorf("sent and dropped is not what was received: %+v", a)
			}
			if n := a.Arrived.Openings + a.Arrived.Segments; n > b.Sent || a.Arrived.Datagrams != 0 {
				t.Errorf("more arrived than was sent: %+v", a)
			}
			if b.Capacity != entries || b.Flows > entries || b.Flows < flows {
				t.Errorf("%d flows in a table of %d, want %d in %d", b.Flows, b.Capacity, flows, entries)
			}
			if c.Mode != balancer.Limited && b.Limited != 0 {
				t.Errorf("%d limited without limits", b.Limited)
			}
		})
	}
	// Not asked of each cell: on a busy machine the generator may not get its turn.
	if flood == 0 || packets == 0 {
		t.Errorf("%d frames of floods were sent, and %d packets of flows arrived", flood, packets)
	}
}

// Rows are in the order of modes and rates, and what must not be is not hidden
// in a median.
func TestSummary(t *testing.T) {
	var r Report
	for _, c := range []Cell{
		{Mode: balancer.NAT, Rate: FullSpeed, Seconds: 1},
		{Mode: balancer.NAT, Rate: 0, Seconds: 1},
		{Mode: balancer.DSR, Rate: 5, Seconds: 2, Offered: 10, Refused: 8, Loss: balancer.Loss{Gone: 1}},
		{Mode: balancer.DSR, Rate: 5, Seconds: 2, Offered: 20, MemoryBefore: 5, MemoryAfter: 4},
		{Mode: balancer.DSR, Rate: 5, Seconds: 2, Offered: 30, Evicted: 2, Loss: balancer.Loss{Moved: 3}},
	} {
		r.Add(c)
	}
	type key struct {
		balancer.Mode
		Rate
	}
	var order []key
	for _, row := range r.Summary {
		order = append(order, key{row.Mode, row.Rate})
	}
	if want := []key{{balancer.DSR, 5}, {balancer.NAT, 0}, {balancer.NAT, FullSpeed}}; !slices.Equal(order, want) {
		t.Fatalf("rows %v, want %v", order, want)
	}
	want := Row{
		Mode: balancer.DSR, Rate: 5, Rounds: 3, Offered: measure.Spread{Median: 20, Min: 10, Max: 30}, Gone: 1, Moved: 3, Evicted: 2,
		Refused: measure.Spread{Median: 0, Min: 0, Max: 4}, Memory: measure.Spread{Median: 0, Min: 0, Max: 4}, Growth: measure.Spread{Median: 0, Min: -1, Max: 0},
	}
	if got := r.Summary[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

// What cannot be measured is refused before a network is built, so also without
// root.
func TestOptions(t *testing.T) {
	for _, test := range []struct {
		opt  Options
		want string
	}{
		{Options{Modes: []balancer.Mode{balancer.DSR, "dsr6"}}, `no mode "dsr6": there are [dsr`},
		{Options{Setup: measure.Setup{Repeats: -1}}, "-1 rounds"},
	} {
		if _, err := Run(t.Context(), test.opt); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.opt, err, test.want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, r := range Rates() {
		if got, err := ParseRate(r.String()); err != nil || got != r {
			t.Errorf("%s: %v, %v", r, got, err)
		}
	}
	for _, text := range []string{"", "-1", "1M", "1e6", "4294967296"} {
		if r, err := ParseRate(text); err == nil {
			t.Errorf("%q is %v", text, r)
		}
	}
}
