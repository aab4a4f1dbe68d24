package l2

import (
	"cmp"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/election"
	"weir/controlplane/cluster"
	"weir/dataplane/packet"
)

// phase is where an address is on its way to this node.
type phase uint8

const (
	idle     phase = iota // not ready for it, or another node is to have it
	probing               // asking whether anybody has it
	held                  // this node answers for it
	waiting               // a node that cannot be spoken to has it, as the link says
	conflict              // a foreign station has it
)

// vip is one address that this node is to announce.
type vip struct {
	addr  netip.Addr
	pool  string
	own   bool     // not subject to election
	links []string // where it belongs, sorted
	ready election.Readiness

	phase phase
	owner string     // the node or the MAC address that has it, if that is not this node
	mac   packet.MAC // of the last foreign station that had it
	next  time.Time  // when there is something to do in this phase; zero for never

	queued   bool          // in line to be asked for; nothing has been sent
	urgency  urgency       // in line
	lined    time.Time     // when it got there
	answered int           // how often a live node has answered, in probing
	probes   int           // sent, in probing
	interval time.Duration // between them
	left     int           // announcements of the burst still to come, when held
	told     time.Time     // last announcement or defence
	rival    bool          // another node says that it holds it too

	defended   time.Time  // last claim that was answered by a defence
	dispute    *dispute   // nil for none
	cleared    time.Time  // when a dispute ended well, last
	forger     packet.MAC // whose claims are not to be believed; zero for nobody's
	forged     time.Time  // when the last of them came
	conflicts  int        // in a row
	conflicted time.Time  // when the last one began
	disputed   bool       // there has been a conflict since it was held last

	leaky    netip.Addr // backend that claims it; not valid for none
	leakedAt time.Time  // when it did so last

	sends map[string]*sends // by interface
}

// sends is what has been sent for an address on a link.
type sends struct {
	held  bool // since the address is held this time
	count uint64
	last  time.Time

	state announce.State // as in Status
	since time.Time      // when it became that
}

// machine decides. It belongs to Run's goroutine, and knows no time but that
// which it is told.
type machine struct {
	node      string
	log       *slog.Logger
	clustered bool

	version uint64 // of the inputs
	started time.Time
	open    bool // addresses may be taken
	leaving bool
	leave   time.Time // when leaving began
	taken   time.Time // when others had all
	handed  bool      // and it is done

	interfaces []Interface // sorted by name
	pools      map[string]PoolConfig
	vips       map[netip.Addr]*vip
	order      []*vip                           // of vips, sorted; nil if it has to be made
	peers      map[string]*peer                 // nodes that live and have told their state
	alive      map[string]netip.Addr            // nodes that live
	macs       map[packet.MAC]station           // of nodes, also of those that are gone
	faults     map[string]*fault                // by interface
	changed    bool                             // an interface has failed or works again
	addresses  []netip.Addr                     // of this node
	backends   func() map[packet.MAC]netip.Addr // that are on weir's links; nil if nobody has said
	seen       map[netip.Addr]bool              // addresses that some node has held
	healed     bool                             // a node has come, perhaps from the other side of a partition
	states     map[string]string                // what peers were decoded from

	asking, speaking, disputing pacer

	next      time.Time // when step wants to be called again
	frames    map[string][]message
	published []byte
	notes     map[string][]netip.Addr // for the log
}

func newMachine(node string, log *slog.Logger, clustered bool) *machine {
	return &machine{
		node: node, log: log, clustered: clustered,
		vips:   make(map[netip.Addr]*vip),
		peers:  make(map[string]*peer),
		alive:  make(map[string]netip.Addr),
		macs:   make(map[packet.MAC]station),
		faults: make(map[string]*fault),
		seen:   make(map[netip.Addr]bool),
		states: make(map[string]string),
		frames: make(map[string][]message),
		notes:  make(map[string][]netip.Addr),

		asking:    pacer{window: probeWindow, most: probeBatch},
		speaking:  pacer{window: announceWindow, most: announceBatch},
		disputing: pacer{window: probeWindow, most: probeBatch},
	}
}

// message is a frame to be sent for an address.
type message struct {
	addr  netip.Addr
	frame []byte
	probe bool
}

// take returns the frames to send, by interface, and forgets them.
func (m *machine) take() map[string][]message {
	frames := m.frames
	m.frames = make(map[string][]message)
	return frames
}

// step brings everything up to date.
func (m *machine) step(now time.Time, in inputs, members []cluster.Member) {
	if m.started.IsZero() {
		m.started = now
	}
	m.learn(members, now)
	m.opening(now, members)
	m.configure(now, in)
	m.backends, m.addresses = in.backends, in.addresses
	for _, c := range in.claims {
		m.claim(c, now)
	}
	for _, v := range m.sorted() {
		m.advance(v, now)
	}
	m.ask(now)
	m.speak(now)
	m.retry(now)
	m.report()
	m.handing(now)
	m.schedule(now)
}

// sorted returns all addresses in order.
func (m *machine) sorted() []*vip {
	if m.order == nil {
		m.order = slices.SortedFunc(maps.Values(m.vips), func(a, b *vip) int { return a.addr.Compare(b.addr) })
	}
	return m.order
}

// learn takes in what the other nodes say.
func (m *machine) learn(members []cluster.Member, now time.Time) {
	clear(m.alive)
	m.healed = false
	current := make(map[string]bool)
	for _, is := range members {
		if is.Self || !is.Alive {
			continue
		}
		m.alive[is.Name] = is.Address.Addr()
		if !is.Current {
			continue
		}
		state := string(is.State[Topic])
		if p := m.peers[is.Name]; p != nil && m.states[is.Name] == state {
			current[is.Name] = true
			m.meet(is.Name, p, now)
			continue
		}
		p := &peer{}
		if state != "" {
			var err error
			if p, err = decodeState([]byte(state)); err != nil {
				m.log.Warn("cannot read what a node publishes", "node", is.Name, "error", err)
				p = &peer{}
			}
		}
		m.healed = m.healed || m.peers[is.Name] == nil
		m.peers[is.Name], m.states[is.Name], current[is.Name] = p, state, true
		m.meet(is.Name, p, now)
		for a := range p.held {
			m.seen[a] = true
		}
	}
	maps.DeleteFunc(m.peers, func(name string, _ *peer) bool { return !current[name] })
	maps.DeleteFunc(m.macs, func(_ packet.MAC, s station) bool { return now.Sub(s.seen) > stationMemory })
}

// stationMemory is how long it is remembered which MAC addresses a node had that is
// dead, or has others now: as long as the cluster remembers the node.
const stationMemory = time.Hour

// station is a node, as the owner of a MAC address.
type station struct {
	node string
	seen time.Time // when it was alive and said so, last
}

// meet takes note of the MAC addresses of a live node.
func (m *machine) meet(name string, p *peer, now time.Time) {
	for _, l := range p.links {
		m.macs[l.MAC] = station{name, now}
	}
}

// nodeOf returns the node that a MAC address belongs to; empty for none.
func (m *machine) nodeOf(mac packet.MAC) string { return m.macs[mac].node }

// opening decides whether addresses may be taken. A node that has just started
// waits until it knows what the others have, or is sure enough to be alone.
func (m *machine) opening(now time.Time, members []cluster.Member) {
	if m.open {
		return
	}
	others := slices.DeleteFunc(slices.Clone(members), func(is cluster.Member) bool { return is.Self || !is.Alive })
	joined := len(others) > 0 && !slices.ContainsFunc(others, func(is cluster.Member) bool { return !is.Current })
	m.open = !m.clustered || joined || now.Sub(m.started) >= startTime
	if m.open && m.clustered && !joined {
		m.log.Warn("no other node tells what addresses it has: going on without", "waited", now.Sub(m.started))
	}
}

// configure makes vips what they are to be.
func (m *machine) configure(now time.Time, in inputs) {
	if in.version == m.version && !m.changed {
		return
	}
	m.version, m.changed = in.version, false
	before := m.interfaces
	m.interfaces = slices.SortedFunc(slices.Values(in.interfaces), func(a, b Interface) int { return cmp.Compare(a.Name, b.Name) })
	m.mend(before)
	m.pools = in.config.Pools
	m.order = nil
	if in.leaving && !m.leaving {
		m.leaving, m.leave = true, now
	}
	wanted := make(map[netip.Addr]bool)
	want := func(addr netip.Addr, pool string, own bool) {
		wanted[addr] = true
		v := m.vips[addr]
		if v == nil || v.own != own {
			v = &vip{addr: addr, own: own, sends: make(map[string]*sends)}
			m.vips[addr] = v
		}
		v.pool = pool
		m.place(v, before, now)
	}
	for _, a := range in.own {
		want(a, "", true)
	}
	for _, ad := range in.ads {
		if v := m.vips[ad.Address]; v == nil || !v.own || !slices.Contains(in.own, ad.Address) {
			want(ad.Address, ad.Pool, false)
		}
	}
	maps.DeleteFunc(m.vips, func(a netip.Addr, v *vip) bool {
		if !wanted[a] && v.phase == held {
			m.note("addresses given up: not served any more", a)
		}
		return !wanted[a]
	})
}

// place works out where an address belongs and how ready this node is for it.
func (m *machine) place(v *vip, before []Interface, now time.Time) {
	links := slices.Clone(m.pools[v.pool].Interfaces)
	if len(links) == 0 {
		for _, i := range m.interfaces {
			if slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(v.addr) }) {
				links = append(links, i.Name)
			}
		}
	}
	if len(links) == 0 {
		for _, i := range m.interfaces {
			links = append(links, i.Name)
		}
	}
	slices.Sort(links)
	was := v.links
	v.links = slices.Compact(links)

	up, mute := 0, false
	fresh := false // some link has to be told anew
	for _, name := range v.links {
		i, usable := find(m.interfaces, name)
		if !usable {
			continue
		}
		up++
		mute = mute || m.mute(name)
		old, was1 := find(before, name)
		fresh = fresh || !was1 || old.MAC != i.MAC || !slices.Contains(was, name)
	}
	switch {
	case up == 0:
		v.ready = election.None
	case up < len(v.links) || mute:
		v.ready = election.Partly
	default:
		v.ready = election.Fully
	}
	if fresh && v.phase == held {
		v.burst(now)
	}
	maps.DeleteFunc(v.sends, func(name string, _ *sends) bool { return !slices.Contains(v.links, name) })
	for _, name := range v.links {
		if v.sends[name] == nil {
			v.sends[name] = &sends{}
		}
	}
}

// find returns an interface by name, and whether it can be used.
func find(all []Interface, name string) (Interface, bool) {
	for _, i := range all {
		if i.Name == name {
			return i, i.Up && i.Workers
		}
	}
	return Interface{}, false
}

// burst has the address announced at once and a few times more.
func (v *vip) burst(at time.Time) {
	v.left, v.next = burst, at
}

// elect says which node is to have the address; empty for nobody.
func (m *machine) elect(v *vip) string {
	all := []election.Candidate{{Node: m.node, Ready: v.ready, Holds: v.phase == held}}
	if !v.own {
		for name, p := range m.peers {
			all = append(all, election.Candidate{Node: name, Ready: p.ready[v.addr], Holds: p.held[v.addr]})
		}
	}
	return election.Elect(v.addr, all)
}

// holder returns the live node other than this one that says it has the address,
// the one with the best rank if there are several.
func (m *machine) holder(v *vip) string {
	holder := ""
	for name, p := range m.peers {
		if p.held[v.addr] && !v.own && (holder == "" || election.Beats(v.addr, name, holder)) {
			holder = name
		}
	}
	return holder
}

// schedule works out when to be called again.
func (m *machine) schedule(now time.Time) {
	m.next = now.Add(Interval)
	soonest := func(t time.Time) {
		if !t.IsZero() && t.Before(m.next) {
			m.next = t
		}
	}
	for _, v := range m.vips {
		soonest(m.due(v, now))
		if v.dispute != nil {
			soonest(v.dispute.next)
		}
	}
	for _, f := range m.faults {
		soonest(f.retry)
	}
	if !m.open {
		soonest(m.started.Add(startTime))
	}
	if m.leaving && !m.handed {
		soonest(m.leave.Add(handTime))
		if !m.taken.IsZero() {
			soonest(m.taken.Add(2 * settle))
		}
	}
}

// handing decides, once this node has begun to leave, whether all addresses that
// another node is ready for have been taken over and announced.
func (m *machine) handing(now time.Time) {
	if !m.leaving || m.handed {
		return
	}
	var missing []string
	for _, v := range m.sorted() {
		if !v.own && m.holder(v) == "" && m.wantedElsewhere(v) {
			missing = append(missing, v.addr.String())
		}
	}
	switch {
	case len(missing) > 0 && now.Sub(m.leave) >= handTime:
		m.log.Warn("no other node has taken over in time", "addresses", strings.Join(missing, " "), "waited", handTime)
		m.handed = true
	case len(missing) > 0:
		m.taken = time.Time{}
	case len(m.alive) == 0:
		m.handed = true
	case m.taken.IsZero():
		m.taken = now
	default:
		m.handed = now.Sub(m.taken) >= 2*settle
	}
}

// wantedElsewhere reports whether another node is ready for an address.
func (m *machine) wantedElsewhere(v *vip) bool {
	for _, p := range m.peers {
		if p.ready[v.addr] != election.None {
			return true
		}
	}
	return false
}

// jitter lengthens a time by up to a quarter, so that two stations that do the
// same at the same time do not do so for ever.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/4) }
