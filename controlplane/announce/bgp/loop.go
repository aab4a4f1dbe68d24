package bgp

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce"
)

// loop makes gobgp agree with what is configured and set. Only the goroutine of
// Run touches it.
type loop struct {
	speaker  *Speaker
	server   *server
	bridge   *bridge
	sessions map[string]*session // by the peer's name
}

// view is what the loop works from in one round.
type view struct {
	config *prepared
	ads    []announce.Advertisement
	open   bool // sessions may be opened
	phase  phase
	asked  uint64
	events []event
}

func (l *loop) view() view {
	s := l.speaker
	s.mu.Lock()
	defer s.mu.Unlock()
	v := view{s.config, s.ads, s.isSet && s.phase < left, s.phase, s.asked, s.events}
	s.events = nil
	return v
}

func (l *loop) run(ctx context.Context) {
	for {
		next := l.round()
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-l.speaker.wake:
		case <-timer:
		}
	}
}

// round looks at everything once, and returns when to look again though nothing
// has happened; zero for never.
func (l *loop) round() time.Time {
	v := l.view()
	l.configure(v)
	l.hear(v)
	l.announce(v)
	if v.open {
		l.open() // only now: a router takes what it gets first for all there is
	}
	if v.phase >= left {
		l.close("weir leaves")
	}
	next := l.redial(v)
	l.publish(v)
	return next
}

// configure makes the peers those of the configuration.
func (l *loop) configure(v view) {
	wanted := make(map[string]*preparedPeer)
	for i := range v.config.peers {
		wanted[v.config.peers[i].Name] = &v.config.peers[i]
	}
	// What goes, goes first: an address may have got another name.
	before := make(map[string]*session)
	for name, x := range l.sessions {
		if p := wanted[name]; p != nil && sameSession(p, &x.peer) {
			x.peer = *p
			continue
		}
		l.remove(x)
		delete(l.sessions, name)
		before[name] = x
	}
	for name, p := range wanted {
		x := l.sessions[name]
		if x == nil {
			x = newSession(*p, time.Now())
			if old := before[name]; old != nil {
				x.flaps, x.lastError, x.wasUp = old.flaps, old.lastError, old.wasUp
			}
			var err error
			if x.vrf, err = l.server.addVRF(); err != nil {
				l.speaker.log.Error("bgp peer cannot be added", "peer", name, "error", err)
				continue
			}
			l.sessions[name] = x
		}
	}
}

// open has gobgp open the sessions that it does not know yet.
func (l *loop) open() {
	for _, x := range l.sessions {
		if x.opened || x.resting {
			continue
		}
		if err := l.server.addPeer(&x.peer, x.vrf, x.restarting()); err != nil {
			if x.lastError != err.Error() {
				l.speaker.log.Error("bgp session cannot be opened", "peer", x.peer.Name, "error", err)
			}
			x.lastError = err.Error()
			continue
		}
		x.opened = true
		if x.peer.Password != "" && l.listens() && new(net.ListenConfig).MultipathTCP() {
			l.speaker.log.Error("bgp accepts no sessions with a password: the listener is one of Multipath TCP, which has no MD5; the program has to be built with go:debug multipathtcp=0", "peer", x.peer.Name)
		}
	}
}

// remove forgets a peer and its routes.
func (l *loop) remove(x *session) {
	log := l.speaker.log.With("peer", x.peer.Name)
	if x.opened {
		if err := l.server.removePeer(&x.peer, x.vrf, l.listens()); err != nil {
			log.Error("bgp session cannot be closed", "error", err)
		}
	}
	if err := l.server.removeVRF(x.vrf); err != nil {
		log.Error("bgp routes cannot be taken back", "error", err)
	}
	if x.state == established {
		log.Info("bgp session down", "address", x.peer.Address, "reason", "it was configured anew")
	}
	l.bridge.take(x.peer.Address.String())
}

func (l *loop) listens() bool {
	s := l.speaker
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config.Listen.IsValid()
}

// hear follows the sessions' states.
func (l *loop) hear(v view) {
	now := time.Now()
	for _, e := range v.events {
		for _, x := range l.sessions {
			if x.opened && x.peer.Address.WithZone("").String() == e.address {
				l.change(x, e.state, now)
			}
		}
	}
	if l.bridge.takeOver() {
		l.restartOthers(now)
	}
	for _, x := range l.sessions {
		err := l.bridge.takeConnect(x.peer.Address.String())
		if err == nil || x.state == established {
			continue
		}
		if words := connectError(&x.peer, err); words != x.lastError {
			l.speaker.log.Warn("bgp session cannot be opened", "peer", x.peer.Name, "error", words)
			x.lastError = words
		}
	}
}

// change follows one session into another state.
func (l *loop) change(x *session, state sessionState, now time.Time) {
	log := l.speaker.log.With("peer", x.peer.Name, "address", x.peer.Address)
	was := x.state
	if state == established || was == established {
		// The event may be from before the session was opened anew, so it counts
		// only if gobgp says the same.
		f, err := l.server.inspect(&x.peer)
		if err != nil {
			log.Error("bgp session cannot be inspected", "error", err)
			return
		}
		if (state == established) != (f.state == established) {
			return
		}
		x.facts = f
	}
	if was == established {
		x.lost(l.bridge.take(x.peer.Address.String()), now)
		if !x.closing {
			x.flaps++
			log.Warn("bgp session down", "reason", x.lastError, "flaps", x.flaps)
		} else {
			log.Info("bgp session down", "reason", "this node leaves")
		}
	} else if (was == openSent || was == openConfirm) && state == idle && !x.closing {
		before := x.lastError
		x.refused(l.bridge.take(x.peer.Address.String()), now)
		if x.lastError != before {
			log.Warn("bgp session cannot be opened", "error", x.lastError)
		}
	}
	x.state = state
	if state == established {
		first := !x.wasUp
		x.up(now)
		log.Info("bgp session up", "asn", x.peer.ASN, "graceful restart", x.facts.gracefulRestart)
		if first && x.peer.GracefulRestart {
			l.restartOthers(now)
		}
	}
}

// restartOthers has sessions opened anew that were not up yet since this node has
// started. Once the first router has said all it has to say, gobgp holds the restart
// to be over, and would say so to the others, which would drop what they kept.
func (l *loop) restartOthers(now time.Time) {
	for _, x := range l.sessions {
		if x.opened && x.restarting() && x.state != established {
			x.redialAt = now
		}
	}
}

// announce makes the peers' tables what they have to be: first nothing that
// should not be there, then everything that should.
func (l *loop) announce(v view) {
	var wanted map[string]map[netip.Prefix]route
	if v.open {
		wanted = plan(v.config, v.ads, v.phase == leaving)
	}
	for _, x := range l.sessions {
		for prefix, t := range x.told {
			if _, ok := wanted[x.peer.Name][prefix]; ok {
				continue
			}
			if err := l.server.withdraw(x.vrf, prefix, &t.route); err != nil {
				l.speaker.log.Error("bgp prefix cannot be withdrawn", "peer", x.peer.Name, "error", err)
			}
			delete(x.told, prefix)
		}
	}
	for _, x := range l.sessions {
		for prefix, r := range wanted[x.peer.Name] {
			t, ok := x.told[prefix]
			if ok && t.err == nil && t.route.same(&r) {
				t.route.note = r.note
				continue
			}
			if !ok {
				t = &told{}
				x.told[prefix] = t
			}
			t.route, t.anew = r, true
			if t.err = l.server.announce(x.vrf, prefix, &r); t.err != nil {
				l.speaker.log.Error("bgp prefix cannot be announced", "peer", x.peer.Name, "error", t.err)
			}
			if r.note != "" {
				l.speaker.log.Warn("bgp prefix is not announced quite as configured", "peer", x.peer.Name, "prefix", prefix, "reason", r.note)
			}
		}
	}
}

// close ends all sessions with a farewell.
func (l *loop) close(text string) {
	for _, x := range l.sessions {
		if !x.opened || x.closing {
			continue
		}
		x.closing = true
		if err := l.server.shutdownPeer(&x.peer, text); err != nil {
			l.speaker.log.Error("bgp session cannot be closed", "peer", x.peer.Name, "error", err)
		}
	}
}

// shutdown ends all sessions, and waits a moment for it.
func (l *loop) shutdown() {
	l.close("weir ends")
	timeout := time.After(time.Second)
	for {
		l.hear(l.view())
		if !slices.ContainsFunc(slices.Collect(maps.Values(l.sessions)), func(x *session) bool { return x.state == established }) {
			return
		}
		select {
		case <-l.speaker.wake:
		case <-timeout:
			return
		}
	}
}

// redial opens sessions anew whose time has come, and returns when the next is
// due.
func (l *loop) redial(v view) (next time.Time) {
	if !v.open {
		return next
	}
	now := time.Now()
	again := false
	for _, x := range l.sessions {
		if x.resting && x.opened {
			l.part(x) // gobgp would go on trying
		}
		switch {
		case x.redialAt.IsZero():
		case x.state == established || x.state == openSent || x.state == openConfirm:
			x.redialAt = time.Time{}
		case x.redialAt.After(now):
			if next.IsZero() || x.redialAt.Before(next) {
				next = x.redialAt
			}
		default:
			x.redialAt, x.resting = time.Time{}, false
			again = !x.opened || l.part(x) || again
		}
	}
	if again {
		l.open()
	}
	return next
}

// part has gobgp forget a peer, and says whether it did. Its routes stay where they
// are.
func (l *loop) part(x *session) bool {
	if err := l.server.removePeer(&x.peer, x.vrf, false); err != nil {
		l.speaker.log.Error("bgp session cannot be opened anew", "peer", x.peer.Name, "error", err)
		return false
	}
	x.opened, x.state = false, idle
	return true
}

// publish makes the results visible, and wakes whoever waits for them.
func (l *loop) publish(v view) {
	var status []announce.Status
	var sessions []Session
	now := time.Now()
	for _, x := range l.sessions {
		of := x.status(now)
		status = append(status, of...)
		sessions = append(sessions, x.session(of))
	}
	slices.SortFunc(status, func(a, b announce.Status) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.To, b.To))
	})
	slices.SortFunc(sessions, func(a, b Session) int { return cmp.Compare(a.Name, b.Name) })
	s := l.speaker
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.status, status) || !slices.Equal(s.sessions, sessions) {
		select {
		case s.changes <- struct{}{}:
		default:
		}
	}
	s.status, s.sessions, s.done = status, sessions, v.asked
	s.broadcast()
}
