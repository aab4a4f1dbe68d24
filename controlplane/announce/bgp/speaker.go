// Package bgp announces VIPs to routers by BGP (RFC 4271), with gobgp embedded.
//
// The problem it solves: the rest of weir knows only "these addresses can be
// served now". Routers want sessions that are opened, kept and opened again;
// prefixes with the attributes that each of them is configured for; a withdrawal
// at once when an address cannot be served any more; and a warning before this
// node leaves. All of gobgp stays in here.
//
// What routers say is not accepted: no route of theirs is used, put into the
// kernel, or passed on to another router. gobgp keeps it in memory, though, for
// as long as the session is up, so routers had better send nothing.
//
// Sessions are opened once Set has been called for the first time: before that
// nobody knows what is to be announced, and a router would take the end of
// nothing for all there is.
//
// # Graceful restart
//
// Towards a router that restarts, this node always behaves as RFC 4724 asks: it
// says that it knows graceful restart, sends an End-of-RIB marker, and tells the
// router everything again. Peer.GracefulRestart asks the same of the router for
// the case that weir is killed and started again: the router goes on sending
// packets here for up to RestartTime. weir forwards in the process itself, so
// nothing forwards them until it runs again. That is worth it only where there is
// no other node to take over, or where it starts again faster than routers
// spread flows anew. When weir ends in good order (Leave, or the end of Run) the
// routers are told, and keep nothing.
//
// # What gobgp leaks
//
// gobgp has no way to end the goroutine in which a server works, so each Run
// leaves one behind, which holds the server's memory and waits for ever.
package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weir/controlplane/announce"
)

// Name is the word for this way of announcing in the configuration, and the
// protocol in its announce.Status.
const Name = "bgp"

// Session is what has become of the session with a peer.
type Session struct {
	Name    string // of the peer
	Address netip.Addr
	ASN     uint32

	// State is that of BGP's state machine: idle, active (tries to connect),
	// opensent, openconfirm, established.
	State string

	Since    time.Time // when it was established, or was lost
	Prefixes int       // announced to the peer
	Flaps    uint64    // how often it was established and then lost

	// LastError is why the session is not established, or why it was lost last.
	LastError string

	// GracefulRestart says that the router takes part in graceful restarts, as
	// helper at least.
	GracefulRestart bool
}

// phase is how far this node has left. It only grows.
type phase int

const (
	present phase = iota
	leaving       // announced with GRACEFUL_SHUTDOWN
	left          // nothing is announced, sessions are being closed
	gone          // sessions are closed
)

// closeWithin is how long Leave waits for sessions to be closed.
const closeWithin = 3 * time.Second

// Speaker announces by BGP. It is an announce.Announcer. Its methods may be
// called from any goroutine.
type Speaker struct {
	log     *slog.Logger
	changes chan struct{}
	wake    chan struct{} // Run has something to look at
	ended   chan struct{} // closed when Run has ended

	mu       sync.Mutex
	config   *prepared
	ads      []announce.Advertisement
	isSet    bool // Set has been called
	phase    phase
	running  bool
	asked    uint64 // number of calls that Run has to do something for
	done     uint64 // the last of them that gobgp has been told of
	events   []event
	status   []announce.Status // replaced, never changed
	sessions []Session         // the same
	moved    chan struct{}     // closed, and replaced, when one of the above has changed
}

// event is a change of a session's state.
type event struct {
	address string
	state   sessionState
}

// New makes a speaker; it starts nothing. Its error joins all mistakes of the
// configuration.
func New(c Config, log *slog.Logger) (*Speaker, error) {
	p, err := prepare(c)
	if err != nil {
		return nil, err
	}
	return &Speaker{
		log: log, config: p, changes: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		ended: make(chan struct{}), moved: make(chan struct{}),
	}, nil
}

// Name is part of announce.Announcer.
func (s *Speaker) Name() string { return Name }

// Changes is part of announce.Announcer. It also signals changes of Sessions.
func (s *Speaker) Changes() <-chan struct{} { return s.changes }

// Set is part of announce.Announcer.
func (s *Speaker) Set(ads []announce.Advertisement) {
	s.ask(func() { s.ads, s.isSet = ads, true })
}

// Configure makes c the configuration while the speaker runs. Sessions whose own
// settings have changed are closed and opened again, others stay; new attributes
// are announced. ASN, router id and listening address cannot change.
func (s *Speaker) Configure(c Config) error {
	p, err := prepare(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	now := s.config
	s.mu.Unlock()
	if c.ASN != now.ASN || c.RouterID != now.RouterID || c.Listen != now.Listen {
		return errors.New("configure bgp: asn, router id and listen address cannot change while weir runs: restart it")
	}
	s.ask(func() { s.config = p })
	return nil
}

// ask changes what Run works from.
func (s *Speaker) ask(change func()) {
	s.mu.Lock()
	change()
	s.asked++
	s.mu.Unlock()
	s.poke()
}

// poke makes Run look.
func (s *Speaker) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status is part of announce.Announcer. A prefix is Announced to a peer if the
// session is established, its family is negotiated, and gobgp has the route in
// the table that it sends from. Whether the router accepts it, BGP does not tell.
func (s *Speaker) Status() []announce.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.status)
}

// Sessions returns all sessions, sorted by name.
func (s *Speaker) Sessions() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sessions)
}

// Run is part of announce.Announcer. It fails if the listening address cannot be
// had; a router that does not answer is no failure. When ctx ends, sessions are
// closed with Cease, administrative shutdown.
func (s *Speaker) Run(ctx context.Context) error {
	defer close(s.ended)
	s.mu.Lock()
	config := s.config
	s.mu.Unlock()
	bridge := newBridge(s.log, s.poke)
	server, err := startServer(config, bridge, func(address string, state sessionState) {
		s.mu.Lock()
		s.events = append(s.events, event{address, state})
		s.mu.Unlock()
		s.poke()
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
	l := &loop{speaker: s, server: server, bridge: bridge, sessions: make(map[string]*session)}
	l.run(ctx)
	l.shutdown()
	server.stop()
	s.mu.Lock()
	s.running, s.status = false, nil
	s.mu.Unlock()
	return nil
}

// Leave is part of announce.Announcer. All prefixes are announced again with
// the community GRACEFUL_SHUTDOWN, to iBGP peers also with a local preference of
// 0, so that routers choose other ways while this node still forwards; after
// Config.ShutdownDelay they are withdrawn, and the sessions closed. If ctx ends
// before, that is done at once.
func (s *Speaker) Leave(ctx context.Context) error {
	s.mu.Lock()
	first, running, delay := s.phase == present, s.running, s.config.ShutdownDelay
	told := slices.ContainsFunc(s.status, func(st announce.Status) bool { return st.State == announce.Announced })
	if !running {
		s.phase = gone
	}
	s.mu.Unlock()
	if !running {
		return nil
	}
	if !first {
		return s.await(ctx, func() bool { return s.phase == gone })
	}
	var cut error // the delay was not to be had
	if told && delay > 0 {
		s.log.Info("bgp asks routers for other ways", "delay", delay)
		s.become(leaving)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			cut = ctx.Err()
		case <-s.ended:
		}
	}
	s.become(left)
	within, cancel := context.WithTimeoutCause(ctx, closeWithin, errors.New("sessions are not closed yet"))
	defer cancel()
	err := s.await(within, func() bool {
		return s.done == s.asked && !slices.ContainsFunc(s.sessions, func(x Session) bool { return x.State == established.String() })
	})
	s.become(gone)
	if err = cmp.Or(err, cut); err != nil {
		return fmt.Errorf("leave bgp: %w", err)
	}
	return nil
}

func (s *Speaker) become(p phase) {
	s.ask(func() { s.phase = p })
	s.mu.Lock()
	s.broadcast()
	s.mu.Unlock()
}

// broadcast wakes all who await something. The caller holds the lock.
func (s *Speaker) broadcast() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// await waits until is, which is called with the lock held, says so, or until Run
// has ended.
func (s *Speaker) await(ctx context.Context, is func() bool) error {
	for {
		s.mu.Lock()
		ok, moved := is(), s.moved
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-moved:
		case <-s.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
