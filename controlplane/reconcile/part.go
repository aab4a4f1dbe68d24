package reconcile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/via"
	"weir/dataplane/limit"
	"weir/dataplane/maglev"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/steer"
)

// part is what one configured service was compiled to. It depends on the service, on
// what is known of its backends, and on what is in world; not on other services,
// nor on where it is in a snapshot. So it stays until one of these changes. It is
// never changed once the compilation is over.
type part struct {
	config   *config.Service
	backends []Backend
	groups   []compiled
	answers  []steer.Answers // that backends send to clients themselves
	next     time.Time       // when the same but for the time would be another; zero for never
}

// compiled is a group of a part.
type compiled struct {
	service snapshot.Service
	slots   []uint32 // of all its backends
	table   *table

	healthy, hopeful int // backends: of those that may get packets, that are known to answer, and all
}

// placed is a backend that has to be put into its slot. Its Service is not known yet.
type placed struct {
	service int // index of the configured one
	group   int
	slot    slot
	backend snapshot.Backend
}

// part compiles a service, but for its tables, which may not be built yet.
func (c *compilation) part(n int) *part {
	s := &c.in.config.Services[n]
	p := &part{config: s, backends: make([]Backend, len(s.Backends))}
	outer := c.next
	c.next = time.Time{}
	for i := range s.Backends {
		p.backends[i] = c.judge(s, &s.Backends[i])
		c.way(s, &p.backends[i])
	}
	p.next, c.next = c.next, sooner(outer, c.next)
	for i := range c.layout.groups[n] {
		c.group(p, n, i)
	}
	return p
}

// group compiles one group of a service.
func (c *compilation) group(p *part, n, i int) {
	s, g := p.config, &c.layout.groups[n][i]
	members := backendsOf(s, g.ipv6)
	out := compiled{service: c.newService(s, g.ipv6), slots: make([]uint32, 0, len(members))}
	svc := &out.service
	var weighted []maglev.Backend
	var ofTable []int // index into s.Backends of each of weighted
	for _, k := range members {
		v := &p.backends[k]
		slot := c.slots.get(keyOf(s, &s.Backends[k], g))
		v.Slots = append(v.Slots, SlotRef{slot.number, slot.generation})
		out.slots = append(out.slots, slot.number)
		b := snapshot.Backend{Addr: packet.Addr16(v.Address), Port: v.Port, Generation: slot.generation}
		if v.Status == StatusUp || v.Status == StatusDraining {
			var err error
			if b.Rewrite, err = c.rewrite(s, v, g.ipv6); err != nil {
				v.Status, v.Reason = StatusUnreachable, err.Error()
			}
		}
		switch v.statusFor(g.vip) {
		case StatusUnreachable, StatusResolving:
			svc.Empty = stats.Unresolved
		case StatusDraining:
			b.State = snapshot.Keeps
		case StatusUp:
			b.State = snapshot.Active
			weighted = append(weighted, maglev.Backend{Name: v.Address.String(), Weight: v.Weight})
			svc.Members = append(svc.Members, slot.number)
			ofTable = append(ofTable, k)
		}
		if svc.Mode == snapshot.NATKeep && b.State != snapshot.Removed {
			p.answers = append(p.answers, answersOf(s, v)...)
		}
		c.placed = append(c.placed, placed{n, i, slot, b})
	}
	inSteps(p.backends, ofTable, weighted)
	out.table = c.tables.want(s.TableSize, weighted)
	out.healthy, out.hopeful = usableOf(p.backends, members, g.vip)
	p.groups = append(p.groups, out)
	c.unshared = append(c.unshared, unshared{p, i, ofTable})
}

// unshared is a group whose table has to be given out.
type unshared struct {
	part    *part
	group   int
	ofTable []int // index into the part's backends of each that the table is over
}

// share gives a group its table, now that it is built.
func (u *unshared) share() error {
	g := &u.part.groups[u.group]
	if g.table.err != nil {
		return fmt.Errorf("service %s: %w", u.part.config.Name, g.table.err)
	}
	g.service.Table = g.table.entries
	for k, i := range u.ofTable {
		b := &u.part.backends[i]
		b.Share = max(b.Share, g.table.shares[k])
	}
	return nil
}

// answersOf says where a backend's answers come from that go to clients as they are.
func answersOf(s *config.Service, b *Backend) []steer.Answers {
	var all []steer.Answers
	for _, p := range s.Ports {
		if b.Port != 0 {
			if a := (steer.Answers{Addr: b.Address, Proto: uint8(p.Proto), Port: b.Port}); !slices.Contains(all, a) {
				all = append(all, a)
			}
			continue
		}
		for port := int(p.Lo); port <= int(p.Hi); port++ {
			all = append(all, steer.Answers{Addr: b.Address, Proto: uint8(p.Proto), Port: uint16(port)})
		}
	}
	return all
}

// usableOf counts the backends that may get packets for a VIP, and of those the
// healthy ones.
func usableOf(backends []Backend, members []int, vip netip.Addr) (healthy, hopeful int) {
	for _, i := range members {
		b := &backends[i]
		if status := b.statusFor(vip); status != StatusUp && status != StatusDraining {
			continue
		}
		hopeful++
		// A check that cannot be made on this box says nothing about the backend, which
		// gets traffic; so the VIP is served.
		if r, checked := b.healthFor(vip); !checked || r.State == health.Up || r.Unable {
			healthy++
		}
	}
	return healthy, hopeful
}

// inSteps gives each backend the part of its weight that it has at the moment,
// exactly: while there is a part, weights count in tenths.
func inSteps(backends []Backend, ofTable []int, weighted []maglev.Backend) {
	part := func(i int) bool { return backends[i].Level < steps }
	if !slices.ContainsFunc(ofTable, part) {
		return
	}
	for k, i := range ofTable {
		weighted[k].Weight *= uint32(backends[i].Level) // below 2^32, as a weight is at most a million
	}
}

func keyOf(s *config.Service, b *config.Backend, g *group) slotKey {
	key := slotKey{service: s.Name, ipv6: g.ipv6, vip: g.vip, backend: b.Address, tunnel: s.Mode == config.ModeIPIP}
	if key.mode = modeOf(s); key.mode != snapshot.Direct {
		key.port = b.Port
	}
	return key
}

func modeOf(s *config.Service) snapshot.Mode {
	switch {
	case s.Mode != config.ModeNAT:
		return snapshot.Direct
	case s.ClientAddress == config.ClientKeep:
		return snapshot.NATKeep
	}
	return snapshot.NAT
}

// newService returns what is the same for all backends of a service.
func (c *compilation) newService(s *config.Service, ipv6 bool) snapshot.Service {
	svc := snapshot.Service{
		Name: s.Name, Mode: modeOf(s), ID: c.services.get(serviceKey{s.Name, ipv6}).number,
		Limits: c.limits(&s.Limits, ipv6), ACL: c.acls.get(c.in.config, s), Empty: stats.NoBackend,
	}
	if s.Affinity == config.AffinitySource {
		svc.Affinity, svc.AffinityBits = snapshot.AffinitySource, s.AffinityPrefix
		if ipv6 {
			svc.AffinityBits = s.AffinityPrefix6
		}
	}
	return svc
}

// limits shares a service's limits out to the workers of an interface: none of
// them knows what the others take in. A source's packets are not shared out, as
// they may all be of one flow and come to one worker.
func (c *compilation) limits(l *config.Limits, ipv6 bool) snapshot.Limits {
	share := func(n int) limit.Rate { return rate(n).Share(max(c.world.workers, 1)) }
	limits := snapshot.Limits{
		NewFlows: share(l.NewFlows), Packets: share(l.Packets),
		SourceNewFlows: share(l.PerSource.NewFlows), SourcePackets: rate(l.PerSource.Packets),
		SourceBits: l.PerSource.Prefix,
	}
	if ipv6 {
		limits.SourceBits = l.PerSource.Prefix6
	}
	return limits
}

// rate is so many a second, 0 for no limit.
func rate(n int) limit.Rate { return limit.Rate{PerSecond: uint32(n)} }

// keys calls slot and service with each key that a service, as it is configured, has
// in the compiler.
func keys(s *config.Service, slot func(slotKey), service func(serviceKey)) {
	for _, g := range groups(s) {
		service(serviceKey{s.Name, g.ipv6})
		for i := range s.Backends {
			if Serves(s, s.Backends[i].Address, g.ipv6) {
				slot(keyOf(s, &s.Backends[i], &g))
			}
		}
	}
}

// sameService tells whether two configured services are compiled to the same.
func sameService(a, b *config.Service) bool {
	if a == b {
		return true
	}
	if !slices.Equal(a.Backends, b.Backends) { // first, as they are many
		return false
	}
	x, y := *a, *b
	x.Backends, y.Backends = nil, nil
	return reflect.DeepEqual(&x, &y)
}

// noWays returns the keys of the ways that a service does not have any more.
func noWays(before *config.Service, ways map[string]via.Way) []string {
	var gone []string
	for i := range before.Backends {
		if key := WayTo(before.Name, before.Backends[i].Address); before.Mode != config.ModeNAT {
			if _, stays := ways[key]; !stays {
				gone = append(gone, key)
			}
		}
	}
	return gone
}
