package l2

import (
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce/election"
)

// claim deals with what another station has said about an address.
func (m *machine) claim(c Claim, now time.Time) {
	v := m.vips[c.Address]
	if v == nil || !slices.Contains(v.links, c.Interface) {
		return
	}
	if slices.ContainsFunc(m.interfaces, func(i Interface) bool { return i.MAC == c.MAC }) {
		return // this node's own words, come round
	}
	node := m.nodeOf(c.MAC)
	if node == "" && m.backends != nil {
		if backend, is := m.backends()[c.MAC]; is {
			m.leak(v, backend, now)
			return
		}
	}
	if node == "" || v.own {
		m.foreign(v, c, now)
		return
	}
	_, alive := m.alive[node]
	switch {
	case v.phase == probing && alive && !c.Probe:
		if !v.queued {
			// It has just given the address up and its workers do not know yet, or
			// it has it and the news are on their way. Both are a matter of
			// milliseconds; if not, the workers do not tell of more than a few
			// answers a second.
			m.line(v, v.urgency, now, now.Add(min(v.interval<<v.answered, againMax)))
			v.answered = min(v.answered+1, 8)
		}
	case v.phase == probing && !alive && (!c.Probe || election.Beats(v.addr, node, m.node)):
		m.log.Warn("a node that cannot be spoken to has the address", "address", v.addr, "node", node)
		m.wait(v, node, now)
	case v.phase == held && c.Probe:
		// The workers answer.
	case v.phase == held && !alive && election.Beats(v.addr, node, m.node):
		m.challenge(v, c, now)
	case v.phase == held:
		// A live node that does not have it any more, or soon will not; or a
		// partitioned one that gives it up when it hears this node.
		v.again(now)
	}
}

// leakMemory is how long it is remembered that a backend has claimed an address.
const leakMemory = 10 * time.Minute

// leak deals with a backend that claims an address, which it has on purpose, but
// is to keep quiet about: all clients would go to it if it were left alone with it,
// and none if nobody took the address.
func (m *machine) leak(v *vip, backend netip.Addr, now time.Time) {
	if v.leaky != backend || now.Sub(v.leakedAt) > leakMemory {
		m.log.Warn("a backend claims a VIP on the link, so that some clients go to it alone",
			"address", v.addr, "backend", backend, "fix", "on the backend: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, and IPv6 VIPs on lo")
	}
	v.leaky, v.leakedAt = backend, now
	if v.phase == held {
		v.again(now)
	}
}

// foreign deals with what a station says that is no node: RFC 5227 sections 2.1.1
// and 2.4.
func (m *machine) foreign(v *vip, c Claim, now time.Time) {
	switch v.phase {
	case probing:
		m.conflict(v, c, now)
	case held:
		if !c.Probe { // else the workers answer
			m.challenge(v, c, now)
		}
	}
}

// conflict gives an address up to a foreign station until it is silent.
func (m *machine) conflict(v *vip, c Claim, now time.Time) {
	mac := c.MAC.String()
	if !v.disputed || v.mac != c.MAC {
		m.log.Error("another station has the address: find it, or take the address out of the configuration",
			"address", v.addr, "mac", mac, "interface", c.Interface, "node", m.nodeOf(c.MAC))
	}
	if now.Sub(v.conflicted) > conflictMemory {
		v.conflicts = 0
	}
	m.become(v, conflict)
	v.mac, v.owner, v.disputed, v.conflicted = c.MAC, mac, true, now
	v.next = now.Add(jitter(min(conflictMin<<v.conflicts, conflictMax)))
	v.conflicts = min(v.conflicts+1, 8)
}

// wait leaves an address to a node that cannot be spoken to, for a while.
func (m *machine) wait(v *vip, node string, now time.Time) {
	m.become(v, waiting)
	v.owner, v.disputed = node, false
	v.next = now.Add(jitter(waitInterval))
}
