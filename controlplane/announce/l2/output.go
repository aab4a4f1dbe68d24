package l2

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce"
	"weir/dataplane/packet"
)

// outputs returns what there is to tell.
func (m *machine) outputs(now time.Time) outputs {
	out := outputs{stances: make(map[netip.Addr]announce.Stance, len(m.vips))}
	links := 0
	for _, v := range m.vips {
		links += len(v.links)
	}
	out.status = make([]announce.Status, 0, links)
	for _, v := range m.sorted() {
		stance := announce.Stance{Answers: v.phase == held}
		if stance.Answers && !v.own && m.pools[v.pool].AllActive {
			stance.Members = m.spread(v)
		}
		out.stances[v.addr] = stance
		out.status = m.status(out.status, v, now)
	}
	for _, p := range m.peers {
		out.nodes = append(out.nodes, p.own...)
	}
	slices.SortFunc(out.nodes, netip.Addr.Compare)
	return out
}

// status appends what there is to say of an address, link by link.
func (m *machine) status(all []announce.Status, v *vip, now time.Time) []announce.Status {
	protocol := "arp"
	if v.addr.Is6() {
		protocol = "ndp"
	}
	for _, name := range v.links {
		s := v.sends[name]
		is := announce.Status{
			Address:  netip.PrefixFrom(v.addr, v.addr.BitLen()),
			Protocol: protocol, To: name,
			Sent: s.count, Last: s.last,
		}
		is.State, is.Owner, is.Err = m.state(v, name, s)
		if s.since.IsZero() || is.State != s.state {
			s.state, s.since = is.State, now
		}
		is.Since = s.since
		all = append(all, is)
	}
	return all
}

// state says what has become of an address on one link, who has it if not this
// node, and what is wrong.
func (m *machine) state(v *vip, link string, s *sends) (state announce.State, owner, err string) {
	if _, usable := find(m.interfaces, link); !usable {
		return announce.Down, v.owner, m.trouble(link)
	}
	fault := m.fault(link)
	switch {
	case v.phase == held && s.held && fault == "" && v.leaky.IsValid():
		return announce.Announced, "", "backend " + v.leaky.String() + " claims it on the link: set net.ipv4.conf.all.arp_ignore=1 and arp_announce=2 there, and for IPv6 have it on lo"
	case v.phase == held && s.held && fault == "" && !v.forger.IsZero():
		return announce.Announced, "", "forged or stale claims by " + v.forger.String() + ", which does not answer for it: find out who sends them"
	case v.phase == held && s.held:
		return announce.Announced, "", fault
	case fault != "" && (v.phase == held || v.phase == probing || v.phase == waiting):
		return announce.Down, "", fault
	case v.phase == conflict, v.phase == probing && v.disputed:
		err = "another station has the address"
		if node := m.nodeOf(v.mac); node != "" {
			err += ": " + node + ", where it is configured too"
		}
		return announce.Conflict, v.mac.String(), err
	case v.phase == waiting, v.phase == probing && v.urgency == contested: // and is asked again
		if _, alive := m.alive[v.owner]; alive {
			return announce.Standby, v.owner, "" // it gives the address up, or is going to tell
		}
		return announce.Standby, v.owner, "the node cannot be spoken to, but answers on the link"
	case v.phase == held, v.phase == probing:
		return announce.Probing, "", ""
	case !m.open && !v.own:
		return announce.Probing, "", "" // the other nodes, so far
	}
	return announce.Standby, v.owner, fault
}

// trouble says why a link cannot be used.
func (m *machine) trouble(link string) string {
	for _, i := range m.interfaces {
		switch {
		case i.Name != link:
		case !i.Up:
			return "link is down"
		case !i.Workers:
			return "no workers run"
		}
	}
	return "not among the configured interfaces, or not there"
}

// spread returns the nodes that new flows to an address are spread over: all that
// are as ready as this one, and can be reached on a link of the address.
func (m *machine) spread(v *vip) []announce.Member {
	all := []announce.Member{{Node: m.node, Self: true}}
	for name, p := range m.peers {
		if p.ready[v.addr] != v.ready {
			continue
		}
		if link, mac, ok := m.reach(v, name, p); ok {
			all = append(all, announce.Member{Node: name, Interface: link, MAC: mac})
		}
	}
	if len(all) == 1 {
		return nil
	}
	slices.SortFunc(all, func(a, b announce.Member) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

// reach says by which interface of this node another one is reached, and its MAC
// there: best where the cluster speaks to it, else where both have a prefix in
// common, else by the interface that is called the same on both.
func (m *machine) reach(v *vip, name string, p *peer) (link string, mac packet.MAC, ok bool) {
	best := 0
	for _, mine := range m.interfaces {
		if !mine.Up || !mine.Workers || !slices.Contains(v.links, mine.Name) {
			continue
		}
		for _, its := range p.links {
			if score := near(mine, its, m.alive[name]); score > best {
				link, mac, best = mine.Name, its.MAC, score
			}
		}
	}
	return link, mac, best > 0
}

// near rates the evidence that two interfaces are on the same link.
func near(mine, its Interface, at netip.Addr) int {
	score := 0
	for _, p := range its.Prefixes {
		a := p.Addr()
		if a.IsLinkLocalUnicast() || !slices.ContainsFunc(mine.Prefixes, func(q netip.Prefix) bool { return q.Masked().Contains(a) }) {
			continue
		}
		score = max(score, 2)
		if a == at {
			return 3
		}
	}
	if score == 0 && mine.Name == its.Name {
		return 1
	}
	return score
}
