package bgp

import (
	"net/netip"
	"strings"
	"time"

	"weir/controlplane/announce"
)

// gobgp holds a session that has ended idle for this long, and connects within
// two seconds after that. It cannot be configured.
const gobgpIdle = 7 * time.Second

// hurried is how often in a row a session is opened anew before gobgp would do
// so by itself. After that it is left alone, for twice as long each time, up to
// slowest: a session that comes up only to be refused or lost costs the router
// more than one that is not there.
const (
	hurried = 3
	slowest = time.Minute
)

// session is what is known of the session with a peer.
type session struct {
	peer      preparedPeer
	vrf       string // its table; empty for none yet
	opened    bool   // gobgp knows the peer
	closing   bool   // this node ends it for good
	state     sessionState
	facts     facts // as of when it was established last
	since     time.Time
	flaps     uint64
	lastError string
	wasUp     bool // has been established, or is not the first of its name
	failures  int  // to open it or keep it, in a row
	redialAt  time.Time
	resting   bool // until redialAt gobgp does not know the peer
	told      map[netip.Prefix]*told
}

// told is a route in a peer's table.
type told struct {
	route route
	err   error // gobgp did not take it
	anew  bool  // put there since it was counted last

	state announce.State
	since time.Time
	sent  uint64
	last  time.Time
}

func newSession(p preparedPeer, now time.Time) *session {
	return &session{peer: p, state: idle, since: now, told: make(map[netip.Prefix]*told)}
}

// restarting reports whether the router may still have what it was told before
// this node was started.
func (x *session) restarting() bool { return x.peer.GracefulRestart && !x.wasUp }

func (x *session) up(now time.Time) {
	x.since, x.wasUp, x.redialAt, x.resting = now, true, time.Time{}, false
	for _, t := range x.told {
		t.anew = true // all of it is sent
	}
}

// lost takes note of the end of a session that was established.
func (x *session) lost(n note, now time.Time) {
	if now.Sub(x.since) > x.peer.ConnectRetry {
		x.failures = 0 // it was a real session
	}
	x.since = now
	switch {
	case n.notification != "":
		x.lastError = n.notification
	case strings.HasPrefix(n.reason, "hold-timer-expired"):
		x.lastError = "this node ended it: hold timer expired"
	case n.reason == "read-failed" || n.reason == "graceful-restart":
		x.lastError = "connection lost: the router closed it without a notification, as when it restarts"
	case n.reason == "write-failed":
		x.lastError = "connection lost while sending"
	default:
		x.lastError = "session ended: " + n.reason
	}
	x.failed(now)
}

// refused takes note of a connection that did not become a session.
func (x *session) refused(n note, now time.Time) {
	switch {
	case n.notification != "":
		x.lastError = "OPEN not accepted: " + n.notification
	case n.reason == "read-failed":
		x.lastError = "the router closed the connection before the session was up: is this node's address a neighbour there, with this ASN?"
	case n.reason == "invalid-msg":
		x.lastError = "the router did not accept the OPEN, its log says why: are the ASNs right on both sides, and is the router id unique?"
	default:
		x.lastError = "session not opened: " + n.reason
	}
	x.failed(now)
}

// failed decides when to try again.
func (x *session) failed(now time.Time) {
	x.failures++
	retry := x.peer.ConnectRetry
	if n := x.failures - hurried; n > 0 {
		rest := max(retry, gobgpIdle)
		for ; n > 1 && rest < slowest; n-- {
			rest *= 2
		}
		x.redialAt, x.resting = now.Add(max(retry, min(rest, slowest))), true
		return
	}
	switch {
	case retry >= gobgpIdle:
	case x.failures == 1:
		x.redialAt = now
	default:
		x.redialAt = now.Add(max(retry-2*time.Second, 0)) // gobgp connects within two seconds
	}
}

// status returns what has become of each prefix.
func (x *session) status(now time.Time) []announce.Status {
	all := make([]announce.Status, 0, len(x.told))
	for prefix, t := range x.told {
		state, err := announce.Down, ""
		offered := x.facts.ipv4
		family := "IPv4"
		if prefix.Addr().Is6() {
			offered, family = x.facts.ipv6, "IPv6"
		}
		switch {
		case x.state != established && x.lastError != "":
			err = x.lastError
		case x.state != established:
			err = "session is " + x.state.String()
		case t.err != nil:
			err = t.err.Error()
		case !offered:
			err = "the router does not take " + family + " prefixes in this session"
		default:
			state, err = announce.Announced, t.route.note
		}
		if t.state != state {
			t.state, t.since = state, now
		}
		if state == announce.Announced && t.anew {
			t.sent, t.last = t.sent+1, now
		}
		t.anew = t.anew && state != announce.Announced
		all = append(all, announce.Status{
			Address: prefix, Protocol: Name, To: x.peer.Name, State: state,
			Since: t.since, Sent: t.sent, Last: t.last, Err: err,
		})
	}
	return all
}

func (x *session) session(status []announce.Status) Session {
	s := Session{
		Name: x.peer.Name, Address: x.peer.Address, ASN: x.peer.ASN, State: x.state.String(), Since: x.since,
		Flaps: x.flaps, LastError: x.lastError, GracefulRestart: x.state == established && x.facts.gracefulRestart,
	}
	for _, st := range status {
		if st.State == announce.Announced {
			s.Prefixes++
		}
	}
	return s
}
