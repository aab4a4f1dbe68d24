package via

import (
	"net"
	"sync"
	"time"
)

// linger is for how long at least a socket stays after it was closed by its user.
// A server's last words arrive then, a FIN or a banner. With no socket for them
// the kernel would answer a reset of its own, without a mark: it would ask the
// link by ARP who has the VIP.
const linger = 50 * time.Millisecond

// endpoint is the near end of a socket, or of an echo request, with the
// identifier for a port. IPv4 is IPv4-mapped, as in packet.Tuple.
type endpoint struct {
	addr  [16]byte
	port  uint16
	proto uint8
}

// flow is one socket that packets can come from.
type flow struct {
	at  endpoint
	way *Way

	// before is the flow that had the same port, as long as its last packet may
	// still be in the device: what comes before this one's SYN is that one's.
	before *flow
}

// flows knows where the packets of each socket have to go, and outlives the
// sockets by as much as their last packets need. Users of sockets begin and end
// flows; the goroutine of Run finds them and winds them up.
type flows struct {
	wake func() // ends the sleep of Run

	mu      sync.Mutex
	ways    map[endpoint]*flow
	ended   []*flow       // of closed sockets: the last packets may still be in the device
	closing [2][]net.Conn // to be closed: at the next turn, and at the one after it
	running bool
	stopped bool // Run is to end
	over    bool // it has ended
}

func newFlows(wake func()) *flows {
	return &flows{wake: wake, ways: make(map[endpoint]*flow)}
}

// begin registers a socket before its first packet.
func (s *flows) begin(at endpoint, w *Way) *flow {
	f := &flow{at: at, way: w}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.before = s.ways[at]; f.before != nil {
		f.before.before = nil
	}
	s.ways[at] = f
	return f
}

// end is called once the socket is closed. What it sent last, a reset, has been
// put into the device but perhaps not been read from it.
func (s *flows) end(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		s.forget(f)
		return
	}
	if len(s.ended) == 0 {
		s.wake()
	}
	s.ended = append(s.ended, f)
}

// forget takes a flow out, unless its port has been given out again.
func (s *flows) forget(f *flow) {
	switch now := s.ways[f.at]; {
	case now == f:
		delete(s.ways, f.at)
	case now != nil && now.before == f:
		now.before = nil
	}
}

// find returns the way of the socket with this end; nil if there is none. opens
// says that the packet may be a flow's first: packets of a port are found in the
// order in which they were sent.
func (s *flows) find(at endpoint, opens bool) *Way {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.ways[at]
	switch {
	case f == nil:
		return nil
	case opens:
		f.before = nil
	case f.before != nil:
		f = f.before
	}
	return f.way
}

// takeEnded returns the flows that have ended so far. Once the device has been
// read empty after that, they can be forgotten.
func (s *flows) takeEnded() []*flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.ended
	s.ended = nil
	return ended
}

func (s *flows) forgetAll(ended []*flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range ended {
		s.forget(f)
	}
}

// close closes a connection a little later, or at once if nobody would.
func (s *flows) close(c net.Conn) error {
	s.mu.Lock()
	if !s.running {
		s.mu.Unlock()
		return c.Close()
	}
	if len(s.closing[0])+len(s.closing[1]) == 0 {
		s.wake()
	}
	s.closing[1] = append(s.closing[1], c)
	s.mu.Unlock()
	return nil
}

// turn closes those connections that have waited for a whole turn. It reports
// whether there is anything left to come back for.
func (s *flows) turn() bool {
	s.mu.Lock()
	due := s.closing[0]
	s.closing[0], s.closing[1] = s.closing[1], nil
	s.mu.Unlock()
	for _, c := range due {
		_ = c.Close() // a reset has no errors to report
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.closing[0])+len(s.closing[1])+len(s.ended) > 0
}

// start says that turn and takeEnded are going to be called.
func (s *flows) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = !s.stopped
}

// stop has Run end.
func (s *flows) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.wake()
}

// isStopped tells whether stop was called.
func (s *flows) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// isOver tells whether Run has ended: there are no ways any more.
func (s *flows) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// finish closes what is left, for good.
func (s *flows) finish() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.pause()
}

// pause closes what is left. From now on, until start, connections close at once.
func (s *flows) pause() {
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
	s.turn()
	s.turn()
	s.forgetAll(s.takeEnded())
}

// isEmpty tells whether no socket is known any more.
func (s *flows) isEmpty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ways)+len(s.ended)+len(s.closing[0])+len(s.closing[1]) == 0
}
