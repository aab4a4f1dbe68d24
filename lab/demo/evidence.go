package demo

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"weir/lab/traffic"
)

// stream is one steady stream of requests: those to one VIP of a service.
type stream struct {
	service string
	vip     netip.AddrPort
}

func (s stream) family() string {
	if s.vip.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// request is a request that has ended, well or not. Its Local address is always
// set: it is chosen before connecting.
type request struct {
	stream int // index of the stream it belongs to
	traffic.Result
}

func (r *request) end() time.Time { return r.Start.Add(r.Duration) }

// course is when what happened. What has not happened has a zero time.
type course struct {
	started  time.Time // the first request
	stopped  time.Time // just before the backend was stopped
	noticed  time.Time // no service sends it anything any more, as the weirs' apis say
	returned time.Time // just before it was started again
	restored time.Time // all services send it new flows again, as the apis say
	asked    time.Time // the weir that is killed was asked for its counters for the last time
	killed   time.Time // just before it was killed
	rerouted time.Time // the router sends it nothing any more, as its kernel says
	revived  time.Time // just before the weir was started again
	rejoined time.Time // the router sends it flows again, as its kernel says
	ended    time.Time // no more requests are started
}

// phase is a time in which nobody has anything to find out: the shares of the
// backends are settled, and no request may fail.
type phase int

const (
	allUp phase = iota
	oneDown
	allBack
	weirDown
	weirBack
	numPhases
)

// phaseOf returns the phase in which a request was started, and false for one
// that was started between two phases.
func (c *course) phaseOf(start time.Time) (phase, bool) {
	for i, t := range []time.Time{c.stopped, c.noticed, c.returned, c.restored, c.killed, c.rerouted, c.revived, c.rejoined} {
		if t.IsZero() || start.Before(t) {
			return phase(i / 2), i%2 == 0
		}
	}
	return weirBack, true
}

// evidence is all that the demo has seen. What the clients have seen and what
// weir has said stand side by side, so that neither is believed alone.
type evidence struct {
	streams  []stream
	backends []string // names, in the order in which they are shown
	victim   string   // the backend that is stopped
	weirs    []string // names
	killed   string   // the weir that is killed
	course   course
	requests []request

	// reached has the client's end of each connection that weir's flow tables
	// had on the victim while it was gone.
	reached map[netip.AddrPort]bool

	// shares is what part of new flows weir means to send to each backend, by
	// phase, stream and name.
	shares [numPhases][]map[string]float64

	newFlows map[string]uint64 // that the weirs have decided, by service

	// decided is how many flows each weir has decided, by phase and name. It has
	// none of one that was not there.
	decided [numPhases]map[string]uint64

	long longReport
}

// account is what the evidence adds up to.
type account struct {
	streams []streamAccount
	cells   []cell // for each service each backend

	caught  int           // requests the victim had or was given before weir noticed
	lost    int           // of these: failed
	rescued int           // of these: answered by another backend
	slowest time.Duration // of the rescued
	faults  []request     // failed without an excuse, in order of their starts
	early   int           // of these: started before the stop

	moved int           // requests under way when the weir was killed, or begun before the router knew
	wait  time.Duration // the longest of these took, of those that were answered
	gap   time.Duration // the longest time after the kill in which no request was answered
}

// streamAccount is what became of a stream's requests.
type streamAccount struct {
	sent, failed int
	answered     [numPhases]int // that were started in the phase
	latency      latency
}

// latency is how long requests took that were answered.
type latency struct{ median, p99 time.Duration }

func latencyOf(took []time.Duration) latency {
	if len(took) == 0 {
		return latency{}
	}
	slices.Sort(took)
	rank := func(q float64) time.Duration { // nearest rank
		return took[max(1, int(math.Ceil(q*float64(len(took)))))-1]
	}
	return latency{rank(0.5), rank(0.99)}
}

// cell is what a backend was given of a service's requests.
type cell struct {
	service, backend string
	shares           [numPhases]share
}

// share compares the requests that one backend answered, of those that were
// started in one phase, with what was to be expected of as many independent
// draws with weir's shares as probabilities.
type share struct {
	got, of            int
	expected, variance float64 // of got
}

// part is the share of all in per cent, 0 of none.
func (s share) part(n float64) float64 {
	if s.of == 0 {
		return 0
	}
	return 100 * n / float64(s.of)
}

// tolerance is by how much got may differ from expected: five standard
// deviations, which chance exceeds once in two million. The 1 is for shares
// near 0 and 1, where the binomial distribution is not a normal one.
func (s share) tolerance() float64 { return 1 + 5*math.Sqrt(s.variance) }

// add adds the evidence up.
func (e *evidence) add() *account {
	a := &account{streams: make([]streamAccount, len(e.streams))}
	took := make([][]time.Duration, len(e.streams))
	for i := range e.requests {
		r := &e.requests[i]
		s := &a.streams[r.stream]
		s.sent++
		phase, settled := e.course.phaseOf(r.Start)
		caught := e.caught(r)
		if caught {
			a.caught++
		}
		if r.Err != nil {
			s.failed++
			if caught && !errors.Is(r.Err, traffic.ErrCorrupt) {
				a.lost++
			} else {
				a.faults = append(a.faults, *r)
				if settled && phase == allUp {
					a.early++
				}
			}
			continue
		}
		took[r.stream] = append(took[r.stream], r.Duration)
		if e.moved(r) {
			a.moved++
			a.wait = max(a.wait, r.Duration)
		}
		if settled {
			s.answered[phase]++
		}
		if caught && r.Backend != e.victim {
			a.rescued++
			a.slowest = max(a.slowest, r.Duration)
		}
	}
	for i := range took {
		a.streams[i].latency = latencyOf(took[i])
	}
	slices.SortStableFunc(a.faults, func(a, b request) int { return a.Start.Compare(b.Start) })
	a.gap = e.gap()
	e.addShares(a)
	return a
}

// moved says whether a request had to do with the killed weir: it was under way
// at some time between the kill and the moment when the router knew.
func (e *evidence) moved(r *request) bool {
	c := &e.course
	return !c.killed.IsZero() && !c.rerouted.IsZero() && r.Start.Before(c.rerouted) && r.end().After(c.killed)
}

// gap is the longest time between two answers from the kill until the weir was
// started again, or the end.
func (e *evidence) gap() (longest time.Duration) {
	c := &e.course
	if c.killed.IsZero() {
		return 0
	}
	last := c.killed
	var ends []time.Time
	for i := range e.requests {
		if r := &e.requests[i]; r.Err == nil && r.end().After(c.killed) && (c.revived.IsZero() || r.end().Before(c.revived)) {
			ends = append(ends, r.end())
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	for _, t := range ends {
		longest, last = max(longest, t.Sub(last)), t
	}
	return longest
}

// caught says whether the victim's stop had a part in what became of a request:
// it was under way at some time between the stop and the moment weir noticed,
// and on its way to the victim.
func (e *evidence) caught(r *request) bool {
	c := &e.course
	if c.stopped.IsZero() || c.noticed.IsZero() || !r.Start.Before(c.noticed) || r.end().Before(c.stopped) {
		return false
	}
	return e.reached[r.Local] || r.Err != nil && r.Backend == e.victim
}

func (e *evidence) addShares(a *account) {
	at := make(map[[2]string]int)
	for _, s := range e.streams {
		for _, b := range e.backends {
			key := [2]string{s.service, b}
			if _, known := at[key]; !known {
				at[key] = len(a.cells)
				a.cells = append(a.cells, cell{service: s.service, backend: b})
			}
		}
	}
	for i, s := range e.streams {
		for p := range numPhases {
			n := a.streams[i].answered[p]
			for _, b := range e.backends {
				want := 0.0
				if e.shares[p] != nil {
					want = e.shares[p][i][b]
				}
				c := &a.cells[at[[2]string{s.service, b}]].shares[p]
				c.of += n
				c.expected += float64(n) * want
				c.variance += float64(n) * want * (1 - want)
			}
		}
	}
	for i := range e.requests {
		r := &e.requests[i]
		p, settled := e.course.phaseOf(r.Start)
		k, known := at[[2]string{e.streams[r.stream].service, r.Backend}]
		if r.Err == nil && settled && known {
			a.cells[k].shares[p].got++
		}
	}
}

// services returns the names of the services in order.
func (e *evidence) services() []string {
	var names []string
	for _, s := range e.streams {
		if !slices.Contains(names, s.service) {
			names = append(names, s.service)
		}
	}
	return names
}

// since returns how long after the start something happened, 0 if it did not.
func (c *course) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(c.started)
}
