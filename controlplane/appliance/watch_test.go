package appliance

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"weir/dataplane/stats"
)

func TestTellsOfTroubleOnce(t *testing.T) {
	var log bytes.Buffer
	w := newWatcher(slog.New(slog.NewTextHandler(&log, nil)))
	var now stats.Counters
	expect := func(what string, want ...string) {
		t.Helper()
		w.look(&now)
		text := log.String()
		log.Reset()
		if strings.Count(text, "\n") != len(want) {
			t.Errorf("%s: logged %q, want %d lines", what, text, len(want))
		}
		for _, each := range want {
			if !strings.Contains(text, each) {
				t.Errorf("%s: logged %q, want %q", what, text, each)
			}
		}
	}
	expect("nothing")
	now.Drops[stats.NoService] = 7
	expect("nothing that somebody has to be told of")
	now.Drops[stats.AddressConflict] = 3
	expect("a conflict", "another station claims a VIP by ARP or NDP; find it, or packets go there\" count=3 reason=address_conflict")
	now.Drops[stats.PortsExhausted], now.Drops[stats.AddressConflict] = 100, 4
	expect("exhaustion, too", "level=WARN msg=\"no SNAT port is free")
	for range 20 {
		now.Drops[stats.PortsExhausted] += 10
		now.Drops[stats.AddressConflict]++
		expect("both go on")
	}
	for range calm - 1 {
		expect("a pause")
	}
	now.Drops[stats.PortsExhausted]++
	expect("not over yet", "level=INFO msg=\"trouble is over\" reason=address_conflict count=24")
	for range calm - 1 {
		expect("a pause")
	}
	expect("over", "reason=ports_exhausted count=301")
	expect("nothing")
	now.FlowsUnrecorded = 5
	now.Drops[stats.PortsExhausted]++
	expect("again, and something else", "no SNAT port is free", "reason=unrecorded")

	now.Drops[stats.PortsExhausted] = 0 // a worker that does not answer takes its counts along
	expect("less than before")
	now.Drops[stats.PortsExhausted] = 1
	expect("the same trouble")
}
