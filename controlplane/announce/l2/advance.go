package l2

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce/election"
	"weir/dataplane/packet"
)

// How an address is asked for before it is taken. RFC 5227 section 1.1 has a host
// wait for up to 1 s, send 3 probes 1 to 2 s apart, and wait for 2 s more: 6 s, in
// which nobody would serve the VIP. A host that boots can afford it; here clients
// wait, all weirs are known to each other, and stations on a wire answer ARP within
// milliseconds. So there are as many probes, closer together.
const (
	probeCount = 3
	// probeQuick is the time between probes, and after the last, for an address
	// that one of the nodes had: nobody else could take it meanwhile.
	probeQuick = 100 * time.Millisecond
	// probeSlow is the same for an address that no node is known to have had.
	probeSlow = 200 * time.Millisecond

	// defendInterval: a second claim within it puts an address in dispute
	// (RFC 5227 section 2.4(b), DEFEND_INTERVAL).
	defendInterval = 10 * time.Second

	// After a conflict an address is asked for again after conflictMin, and then
	// less and less often, up to conflictMax apart. A conflict that comes within
	// conflictMemory of another one counts as the same.
	conflictMin    = 10 * time.Second
	conflictMax    = 60 * time.Second
	conflictMemory = 5 * time.Minute

	// waitInterval is the time between two attempts to take an address from a node
	// that cannot be spoken to, but answers on the link.
	waitInterval = time.Second

	// againMax bounds the time until an address is asked for again that a live node
	// has answered for. The workers tell of one answer a second in any case.
	againMax = time.Second

	// repeatInterval is the least time between announcements that answer another
	// node's.
	repeatInterval = time.Second
)

// advance takes an address as far as it can go now.
func (m *machine) advance(v *vip, now time.Time) {
	u := unowned
	if v.phase == conflict && (!now.Before(v.next) || !v.own && m.nodeOf(v.mac) != "") {
		// Time to try again; or the station has turned out to be a node.
		m.become(v, idle)
		u = contested
	}
	if v.phase == conflict {
		return
	}
	if v.leaky.IsValid() && now.Sub(v.leakedAt) > leakMemory {
		v.leaky = netip.Addr{}
	}
	rival := m.holder(v)
	if !m.open && !v.own || m.leaving || v.ready == election.None || m.elect(v) != m.node {
		if v.phase == held {
			m.note("addresses given up: "+m.reason(v), v.addr)
		}
		m.become(v, idle)
		v.owner = rival
		return
	}
	switch v.phase {
	case idle:
		if v.owner != "" {
			u = orphaned
		}
		m.line(v, u, now, now)
	case waiting:
		if !now.Before(v.next) {
			m.line(v, contested, now, now)
		}
	}
	if v.phase == probing && !v.queued && !now.Before(v.next) {
		switch {
		case v.probes == probeCount:
			m.hold(v, now)
		case m.speechless(v):
			m.line(v, v.urgency, now, now)
		default:
			m.probe(v, now)
		}
	}
	if v.phase == held {
		m.examine(v, now)
		if v.rival && rival == "" || m.healed && v.left == 0 {
			v.burst(now) // who has heard another node is to hear the last word
		}
		v.rival = rival != ""
	}
}

// note keeps something to be logged at the end of the step: what happens to one
// address mostly happens to many.
func (m *machine) note(what string, a netip.Addr) { m.notes[what] = append(m.notes[what], a) }

// logged is the number of addresses that are named in one line of the log.
const logged = 8

// report logs what has been noted.
func (m *machine) report() {
	for _, what := range slices.Sorted(maps.Keys(m.notes)) {
		all := m.notes[what]
		m.log.Info(what, "count", len(all), "addresses", all[:min(len(all), logged)])
	}
	clear(m.notes)
}

// reason says why this node does not have an address that it had.
func (m *machine) reason(v *vip) string {
	switch {
	case m.leaving:
		return "leaving"
	case v.ready == election.None:
		return "link down or no workers"
	}
	return "another node has it"
}

func (m *machine) become(v *vip, p phase) {
	v.phase, v.next, v.rival, v.queued, v.dispute = p, time.Time{}, false, false, nil
	if p == idle {
		v.owner = ""
	}
	for _, s := range v.sends {
		s.held = false
	}
}

// hold takes an address.
func (m *machine) hold(v *vip, now time.Time) {
	m.become(v, held)
	v.owner, v.defended, v.cleared, v.forger = "", time.Time{}, time.Time{}, packet.MAC{}
	v.burst(now.Add(settle))
	m.seen[v.addr] = true
	m.note("addresses taken", v.addr)
	v.disputed = false
}

// again announces an address that is held because another node has spoken for it,
// at once or when that is not too soon.
func (v *vip) again(now time.Time) {
	at := v.told.Add(repeatInterval)
	if at.Before(now) {
		at = now
	}
	if v.next.IsZero() || at.Before(v.next) {
		v.next = at
	}
}

// send has the address asked for, or announced, on all its links that can be used
// and have not failed.
func (m *machine) send(v *vip, probe bool) {
	for _, name := range v.links {
		i, usable := find(m.interfaces, name)
		if !usable || m.faults[name] != nil {
			continue
		}
		frame := Frame
		if probe {
			frame = Probe
		}
		m.frames[name] = append(m.frames[name], message{addr: v.addr, frame: frame(v.addr, i.MAC), probe: probe})
	}
}

// sent takes note of what became of frames.
func (m *machine) sent(name string, frames []message, err error, now time.Time) {
	if err != nil {
		m.fail(name, err, now)
	} else {
		m.works(name, now)
	}
	for _, f := range frames {
		v := m.vips[f.addr]
		if v == nil || v.sends[name] == nil {
			continue
		}
		s := v.sends[name]
		switch {
		case err != nil && f.probe && v.phase == probing:
			m.line(v, v.urgency, now, now) // nobody has been asked
		case err == nil && !f.probe:
			s.held = s.held || v.phase == held
			s.count, s.last = s.count+1, now
		}
	}
}
