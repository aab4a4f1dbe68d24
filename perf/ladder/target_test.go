package ladder

import (
	"testing"

	"weir/dataplane/forward"
	"weir/perf/measure"
)

func TestTargets(t *testing.T) {
	at := func(r Rung, m Mode, flows uint32) Cell {
		return Cell{Rung: r, Mode: m, Protocol: UDP, Flows: flows, Services: 1, Backends: usualBackends, Buffers: 4096}
	}
	services := func(n int) Cell {
		c := at(Hit, DSR4, 1<<16)
		c.Services, c.Backends = n, fewBackends
		return c
	}
	few := at(Hit, DSR4, 1<<10)
	few.Buffers, few.Few = fewBuffers(forward.BatchSize), true
	tcp := at(Hit, NAT44, 1<<10)
	tcp.Protocol = TCP
	r := Report{Summary: []Row{
		{Cell: at(Hit, DSR4, 1<<10), Own: measure.Spread{Median: 20}},
		{Cell: at(Hit, DSR4, 1<<16), Own: measure.Spread{Median: 50}},
		{Cell: services(1), Own: measure.Spread{Median: 40}},
	}}
	for _, test := range []struct {
		cell Cell
		want float64
	}{
		{at(Hit, DSR4, 1), 0},
		{at(Hit, DSR4, 1<<10), 30},
		{at(Hit, DSR4, 1<<16), 60},
		{at(Hit, DSR4, 1<<20), 90},
		{at(Hit, DSR6, 1<<10), 20 + 15},
		{at(Hit, IPIP4in4, 1<<16), 50 + 10},
		{at(Hit, IPIP6in6, 1<<16), 50 + 10 + 15},
		{at(Hit, NAT44, 1<<10), 20 + 25},
		{at(Hit, NAT44Answer, 1<<10), 20 + 25},
		{at(Hit, NAT46, 1<<10), 20 + 25 + 15},
		{at(Hit, NAT64, 1<<10), 20 + 25 + 15},
		{at(Hit, NAT66, 1<<20), 0}, // there is no DSR to compare it with
		{tcp, 0},
		{few, 30},
		{at(Miss, DSR4, 0), 150},
		{at(Miss, NAT66, 0), 150},
		{at(Worker, DSR4, 1<<10), 0},
		{at(Map, DSR4, 1<<10), 0},
		{services(1), 0},
		{services(10_000), 44},
	} {
		if got := r.target(test.cell); got < test.want-1e-9 || got > test.want+1e-9 {
			t.Errorf("%s: %v, want %v", test.cell, got, test.want)
		}
	}
}

func TestMissed(t *testing.T) {
	for _, test := range []struct {
		own, target float64
		want        bool
	}{{10, 0, false}, {10, 10, false}, {10, 9, true}, {-1, 9, false}} {
		r := Row{Own: measure.Spread{Median: test.own}, Target: test.target}
		if r.Missed() != test.want {
			t.Errorf("%v of %v: missed %v", test.own, test.target, r.Missed())
		}
	}
}
