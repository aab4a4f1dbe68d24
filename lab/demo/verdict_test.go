package demo

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/lab/traffic"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// good returns the evidence of a demo in which all went well: 100 requests a
// second for each of four streams, three of ten to each of b1, b2 and b3, and
// one to b4.
func good() *evidence {
	e := &evidence{
		streams: []stream{
			{"web-dsr", netip.MustParseAddrPort("10.0.0.200:80")}, {"web-dsr", netip.MustParseAddrPort("[fd00::200]:80")},
			{"web-ipip", netip.MustParseAddrPort("10.0.0.201:80")}, {"web-ipip", netip.MustParseAddrPort("[fd00::201]:80")},
		},
		backends: []string{"b1", "b2", "b3", "b4"},
		victim:   "b2",
		course: course{
			started: second(0), stopped: second(10), noticed: second(12),
			returned: second(20), restored: second(21),
			asked: second(22.995), killed: second(23), rerouted: second(23.1),
			revived: second(26), rejoined: second(27), ended: second(30),
		},
		weirs: []string{"lb1", "lb2"}, killed: "lb1",
		long:     longReport{opened: 40, slowest: 200 * time.Millisecond, ended: true},
		reached:  make(map[netip.AddrPort]bool),
		newFlows: map[string]uint64{"web-dsr": 6000, "web-ipip": 6000},
	}
	for p := range numPhases {
		e.decided[p] = map[string]uint64{"lb1": 500, "lb2": 510}
	}
	delete(e.decided[weirDown], "lb1")
	for i := range e.streams {
		for p := range numPhases {
			shares := map[string]float64{"b1": 0.3, "b2": 0.3, "b3": 0.3, "b4": 0.1}
			if p == oneDown {
				shares = map[string]float64{"b1": 0.45, "b3": 0.45, "b4": 0.1}
			}
			e.shares[p] = append(e.shares[p], shares)
		}
		for n := range 3000 {
			local := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.100"), uint16(10000+4*n+i))
			r := request{i, traffic.Result{
				Start: second(float64(n) / 100), Duration: 2 * time.Millisecond, Local: local,
				Backend: []string{"b1", "b1", "b1", "b2", "b2", "b2", "b3", "b3", "b3", "b4"}[n%10],
			}}
			if out := n >= 1000 && n < 2100; out && r.Backend == "b2" {
				r.Backend = []string{"b1", "b3"}[n/10%2]
				if n < 1200 {
					e.reached[local] = true
					r.Duration = time.Second
				}
			}
			e.requests = append(e.requests, r)
		}
	}
	return e
}

func TestGood(t *testing.T) {
	e := good()
	last := e.find(0, 9.9, "b2")
	last.Duration = 200 * time.Millisecond
	e.reached[last.Local] = true
	a := e.add()
	if reasons := judge(e, a); len(reasons) > 0 {
		t.Fatalf("failed: %q", reasons)
	}
	// 60 of the 200 requests that each stream starts in the gap were for b2, and
	// one that was under way at the stop it still answers.
	if a.moved != 40 || a.wait != 2*time.Millisecond || a.gap.Round(time.Millisecond) != 10*time.Millisecond {
		t.Errorf("under way at the kill %d, the longest took %v, longest gap %v", a.moved, a.wait, a.gap)
	}
	if a.caught != 241 || a.lost != 0 || a.rescued != 240 || a.slowest != time.Second {
		t.Errorf("caught %d, lost %d, rescued %d, slowest %v", a.caught, a.lost, a.rescued, a.slowest)
	}
	for i, s := range a.streams {
		want := [numPhases]int{1000, 800, 200, 290, 300}
		if s.sent != 3000 || s.failed != 0 || s.answered != want || s.latency != (latency{2 * time.Millisecond, time.Second}) {
			t.Errorf("stream %d: %+v", i, s)
		}
	}
	if c := a.cells[1].shares; len(a.cells) != 8 || c[allUp].got != 600 || c[allUp].of != 2000 || c[oneDown].got != 0 || c[allBack].got != 120 || c[weirDown].got != 174 || c[weirBack].got != 180 {
		t.Errorf("%d cells, b2 of web-dsr: %+v", len(a.cells), c)
	}
}

var errTimeout = errors.New("connect: i/o timeout")

// find returns the first request of a stream that was started at a second or
// later, and answered by a backend.
func (e *evidence) find(stream int, s float64, backend string) *request {
	i := slices.IndexFunc(e.requests, func(r request) bool {
		return r.stream == stream && !r.Start.Before(second(s)) && r.Backend == backend
	})
	return &e.requests[i]
}

// lose makes a request fail without an answer.
func (r *request) lose() { r.Backend, r.Err, r.Duration = "", errTimeout, 5*time.Second }

// keep keeps the requests for which ok is true.
func (e *evidence) keep(ok func(r *request) bool) {
	e.requests = slices.DeleteFunc(e.requests, func(r request) bool { return !ok(&r) })
}

// move hands every nth of the requests of a phase, to the first service, that
// one backend has answered to another.
func (e *evidence) move(p phase, from, to string, nth int) {
	count := 0
	for i := range e.requests {
		r := &e.requests[i]
		if at, settled := e.course.phaseOf(r.Start); r.stream < 2 && settled && at == p && r.Backend == from {
			if count++; count%nth == 0 {
				r.Backend = to
			}
		}
	}
}

// TestExcused has failures that the stop excuses.
func TestExcused(t *testing.T) {
	for name, change := range map[string]func(*evidence){
		"under way at the stop, half answered": func(e *evidence) {
			r := e.find(0, 9.9, "b2")
			r.Err, r.Duration = errTimeout, 5*time.Second
		},
		"under way at the stop, in the flow table": func(e *evidence) {
			r := e.find(0, 9.9, "b2")
			e.reached[r.Local] = true
			r.lose()
		},
		"started between stop and notice": func(e *evidence) {
			for i := range e.requests {
				if r := &e.requests[i]; e.reached[r.Local] && r.Start.After(second(11)) {
					r.lose()
				}
			}
		},
	} {
		e := good()
		change(e)
		a := e.add()
		if reasons := judge(e, a); len(reasons) > 0 || a.lost == 0 {
			t.Errorf("%s: %d lost, %q", name, a.lost, reasons)
		}
		if got, want := a.cells[1].shares[allUp].got, 600-strings.Count(name, "under way"); got != want {
			t.Errorf("%s: b2 is said to have answered %d, want %d", name, got, want)
		}
	}
}

// TestFailures has one thing wrong at a time, and the reason that has to be
// given.
func TestFailures(t *testing.T) {
	tests := []struct {
		name   string
		change func(*evidence)
		want   string
	}{
		{"nothing at all", func(e *evidence) { *e = evidence{victim: "b2"} }, "no request was ever made"},
		{"no services", func(e *evidence) { e.streams, e.requests = nil, nil }, "there was no service to ask"},
		{"no requests", func(e *evidence) { e.requests = nil }, "web-dsr over IPv4: no request was answered while all backends were up"},
		{"no stop", func(e *evidence) { e.course = course{started: e.course.started} }, "b2 was never stopped"},
		{"no notice", func(e *evidence) {
			e.course = course{started: e.course.started, stopped: e.course.stopped}
		}, "the weirs did not notice that b2 had stopped"},
		{"no return", func(e *evidence) {
			e.course.returned, e.course.restored, e.course.ended = time.Time{}, time.Time{}, time.Time{}
		}, "b2 was never started again"},
		{"not taken back", func(e *evidence) { e.course.restored, e.course.ended = time.Time{}, time.Time{} }, "the weirs did not take b2 back"},
		{"no end", func(e *evidence) { e.course.ended = time.Time{} }, "did not come to its end"},
		{"no kill", func(e *evidence) { e.course.killed = time.Time{} }, "lb1 was never killed"},
		{"the router does not notice", func(e *evidence) {
			c := &e.course
			c.rerouted, c.revived, c.rejoined, c.ended = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		}, "the router did not notice that lb1 was killed"},
		{"not started again", func(e *evidence) { e.course.revived, e.course.rejoined = time.Time{}, time.Time{} }, "lb1 was never started again"},
		{"not used again", func(e *evidence) { e.course.rejoined, e.course.ended = time.Time{}, time.Time{} }, "the router did not take lb1 back"},
		{"failure with the weir", func(e *evidence) { e.find(0, 22.99, "b4").lose() }, "web-dsr over IPv4 failed 23.0 s after the start"},
		{"failure before the router knows", func(e *evidence) { e.find(0, 23.05, "b1").lose() }, "web-dsr over IPv4 failed 23.1 s after the start"},
		{"a weir that idles", func(e *evidence) { e.decided[allUp]["lb2"] = 0 }, "lb2 decided about no connection while all backends were up"},
		{"a weir that idles in the end", func(e *evidence) { e.decided[weirBack]["lb1"] = 0 }, "lb1 decided about no connection after lb1 was back"},
		{"a weir that is not dead", func(e *evidence) { e.decided[weirDown]["lb1"] = 0 }, "lb1 was there while lb1 was gone"},
		{"no long connections", func(e *evidence) { e.long = longReport{} }, "there was no long connection"},
		{"a long connection breaks", func(e *evidence) { e.long.broken = []traffic.Result{{Backend: "b3", Err: errTimeout}} }, "1 of 40 long connections broke, the first"},
		{"long connections are forgotten", func(e *evidence) { e.long.ended = false }, "were not used at the end"},
		{"failure before the stop", func(e *evidence) { e.find(1, 3, "b2").lose() }, "web-dsr over IPv6 failed 3.0 s after the start: connect"},
		{"failure long before the stop, in the flow table", func(e *evidence) {
			r := e.find(0, 4.5, "b2")
			e.reached[r.Local] = true
			r.lose()
		}, "failed 4.5 s after the start"},
		{"failure of another backend's request in the gap", func(e *evidence) { e.find(2, 10.5, "b1").lose() }, "web-ipip over IPv4 failed 10.5 s"},
		{"failure after the notice", func(e *evidence) {
			r := e.find(0, 12, "b1")
			e.reached[r.Local] = true
			r.lose()
		}, "failed 12.0 s after the start"},
		{"failure after the return", func(e *evidence) { e.find(3, 25, "b2").lose() }, "web-ipip over IPv6 failed 25.0 s"},
		{"wrong bytes are never excused", func(e *evidence) {
			r := e.find(0, 10, "b1")
			e.reached[r.Local] = true
			r.Err = fmt.Errorf("read: %w", traffic.ErrCorrupt)
		}, "received bytes differ"},
		{"many failures", func(e *evidence) {
			for i := range 10 {
				e.find(0, float64(i), "b1").lose()
			}
		}, "and 5 more requests"},
		{"a stream without traffic", func(e *evidence) { e.keep(func(r *request) bool { return r.stream != 3 }) },
			"web-ipip over IPv6: no request was answered while all backends were up"},
		{"a phase without traffic", func(e *evidence) {
			e.keep(func(r *request) bool { return r.stream != 1 || r.Start.Before(second(21)) })
		}, "web-dsr over IPv6: no request was answered after b2 was back"},
		{"requests to a dead backend", func(e *evidence) { e.find(0, 15, "b1").Backend = "b2" }, "web-dsr: b2 answered 1 requests while b2 was out"},
		{"weir means to use a dead backend", func(e *evidence) { e.shares[oneDown][0]["b2"] = 0.3 }, "weir meant to send b2"},
		{"the victim gets nothing in the end", func(e *evidence) { e.move(allBack, "b2", "b1", 1) }, "web-dsr: b2 answered none of 400 requests after b2 was back"},
		{"a backend gets nothing", func(e *evidence) { e.move(allUp, "b4", "b1", 1) }, "web-dsr: b4 answered none of 2000"},
		{"a backend gets too little", func(e *evidence) { e.move(allUp, "b1", "b3", 5) }, "web-dsr: b1 answered 24.0 % of the requests while all backends were up, expected were 30.0"},
		{"a backend gets too much", func(e *evidence) { e.move(oneDown, "b1", "b4", 5) }, "web-dsr: b4 answered 19.0 % of the requests while b2 was out, expected were 10.0"},
		{"a stranger answers", func(e *evidence) { e.move(allUp, "b1", "b9", 1) }, "web-dsr: b1 answered none"},
		{"no shares", func(e *evidence) { e.shares = [numPhases][]map[string]float64{} }, "weir gave b1 no share"},
		{"weir was passed by", func(e *evidence) { e.newFlows["web-ipip"] = 5999 }, "not all went through them"},
	}
	for _, test := range tests {
		e := good()
		test.change(e)
		reasons := strings.Join(judge(e, e.add()), "\n")
		if !strings.Contains(reasons, test.want) {
			t.Errorf("%s: want %q in\n%s", test.name, test.want, reasons)
		}
	}
}

func TestLatency(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for _, test := range []struct {
		took []time.Duration
		want latency
	}{
		{nil, latency{}},
		{[]time.Duration{7}, latency{7, 7}},
		{[]time.Duration{9, 1}, latency{1, 9}},
		{hundred, latency{50, 99}},
	} {
		if got := latencyOf(test.took); got != test.want {
			t.Errorf("%v: %v, want %v", test.took, got, test.want)
		}
	}
}
