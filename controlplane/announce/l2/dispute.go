package l2

import (
	"time"

	"weir/dataplane/packet"
)

// A claim of an address that this node has may be forged, or a frame that was
// under way for long. RFC 5227 section 2.4(b) lets a host give up at the second
// claim within defendInterval; here, where two forged frames would cut off all
// clients, the claimant has to answer for the address as well: this node goes on
// answering, asks as it did before it took the address, and gives it up to a station
// that answers answersNeeded of disputeProbes questions, each within answerTime.
const (
	disputeProbes   = 3
	answersNeeded   = 2
	disputeInterval = 300 * time.Millisecond // up to a quarter more, so that nobody can hit the answers' time without having been asked
	answerTime      = 200 * time.Millisecond

	// forgedMemory is how long claims by somebody who does not answer are reported.
	forgedMemory = 10 * time.Minute

	// claimantsKept bounds the stations that are counted in one dispute.
	claimantsKept = 16
)

// dispute is the search for a station that claims an address.
type dispute struct {
	mac    packet.MAC // that claimed it last
	probes int        // sent
	at     time.Time  // when the last one was
	next   time.Time  // when there is something to do

	answers map[packet.MAC]answers
}

// answers counts the probes that one station has answered.
type answers struct {
	count int
	last  int // probe
}

// heard takes a claim in, and reports whether its station has answered often
// enough to be believed.
func (d *dispute) heard(mac packet.MAC, now time.Time) bool {
	a, known := d.answers[mac]
	if d.probes > a.last && now.Sub(d.at) <= answerTime && (known || len(d.answers) < claimantsKept) {
		a = answers{a.count + 1, d.probes}
		d.answers[mac] = a
	}
	return a.count >= answersNeeded
}

// challenge deals with a claim of an address that this node has, by a station that
// it would have to leave it to.
func (m *machine) challenge(v *vip, c Claim, now time.Time) {
	within := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < defendInterval }
	switch {
	case v.dispute != nil:
		if v.dispute.heard(c.MAC, now) {
			m.yield(v, c, now)
		}
	case within(v.cleared):
		v.forged = now
		v.again(now) // for those who have believed it
	case within(v.defended) && v.told.Before(v.defended):
		// It cannot have heard the defence.
	case within(v.defended):
		v.dispute = &dispute{mac: c.MAC, next: now, answers: make(map[packet.MAC]answers)}
	default:
		if v.forger.IsZero() {
			m.log.Warn("another station claims an address of this node: defended",
				"address", v.addr, "mac", c.MAC, "interface", c.Interface, "node", m.nodeOf(c.MAC))
		}
		v.defended, v.next = now, now
	}
}

// yield gives an address up to a station that has turned out to have it.
func (m *machine) yield(v *vip, c Claim, now time.Time) {
	node := m.nodeOf(c.MAC)
	if node == "" || v.own {
		m.conflict(v, c, now)
		return
	}
	m.log.Warn("address given up to a node that cannot be spoken to", "address", v.addr, "node", node)
	m.wait(v, node, now)
}

// examine goes on with a dispute.
func (m *machine) examine(v *vip, now time.Time) {
	if !v.forger.IsZero() && now.Sub(v.forged) > forgedMemory {
		v.forger = packet.MAC{}
	}
	d := v.dispute
	switch {
	case d == nil || now.Before(d.next):
	case d.probes == disputeProbes:
		v.dispute = nil
		if v.forger.IsZero() {
			m.log.Warn("forged or stale claims of an address of this node: the claimant does not answer for it, so it is kept",
				"address", v.addr, "mac", d.mac)
		}
		v.forger, v.forged, v.cleared = d.mac, now, now
		v.again(now)
	case m.speechless(v):
		d.next = now.Add(retryInterval)
	case m.disputing.allow(1, now):
		m.send(v, true)
		d.probes++
		d.at, d.next = now, now.Add(jitter(disputeInterval))
	default:
		d.next = m.disputing.next()
	}
}
