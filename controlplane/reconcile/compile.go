package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/via"
	"weir/dataplane/engine"
	"weir/dataplane/limit"
	"weir/dataplane/maglev"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/steer"
)

// input is all that a snapshot depends on.
type input struct {
	config     *config.Config
	hops       map[netip.Addr]nexthop.Hop
	health     map[string]health.Result
	interfaces []engine.InterfaceStatus
	own        []nexthop.Address              // the box's own addresses
	nodes      []netip.Addr                   // addresses of the other nodes
	stances    map[netip.Addr]announce.Stance // of VIPs and SNAT addresses on links; nil: this node answers for all
	mtus       map[netip.Addr]int
	drains     map[member]Drain
	now        time.Time

	// snatSlots says which slots of nat.Space SNAT addresses have, or will have
	// once the snapshot is put in force.
	snatSlots func(addrs [][16]byte) ([]uint16, error)

	// settled asks for how things will be in the end: backends that nobody has
	// looked for yet are taken as found, and what has begun (a drain, a slow
	// start) as over.
	settled bool
}

// output is what is made of an input.
type output struct {
	snap *snapshot.Snapshot
	view *View
	set  steer.Set
	ways map[string]via.Way // by what a check calls it
	next time.Time          // when the same input but for now would make another; zero for never
}

// compiler turns input into snapshots. It remembers from one to the next what
// has to stay the same, and what takes long to make.
type compiler struct {
	slots      *slots[slotKey]
	services   *slots[serviceKey]
	tables     *tables
	paces      *paces
	acls       *acls
	announced  map[netip.Addr]bool   // VIPs that could be served
	homes      map[netip.Addr]string // the interface that each next hop for routers was last on
	generation uint64
}

func newCompiler() *compiler {
	return &compiler{
		slots: newSlots[slotKey](), services: newSlots[serviceKey](),
		tables: newTables(), paces: newPaces(), acls: newACLs(), homes: make(map[netip.Addr]string),
	}
}

// clone returns a compiler that remembers the same, to try something out with.
func (c *compiler) clone() *compiler {
	return &compiler{
		slots: c.slots.clone(), services: c.services.clone(),
		tables: &tables{current: c.tables.current}, paces: c.paces.clone(),
		acls: newACLs(), announced: c.announced, homes: maps.Clone(c.homes), generation: c.generation,
	}
}

// compilation is one snapshot in the making.
type compilation struct {
	*compiler
	in      input
	egress  map[string]uint16 // interface name to index
	workers int               // of the interface that has the most
	spec    snapshot.Spec
	view    *View
	next    time.Time
	awake   map[netip.Addr]bool       // VIPs that have a backend that gets new flows
	ready   map[netip.Addr]*readiness // of VIPs
	order   []netip.Addr              // of VIPs, as in the file
	ways    map[string]via.Way
}

// compile builds the snapshot for in and the view that explains it. An error
// leaves the compiler as it was after the latest snapshot.
func (c *compiler) compile(in input) (output, error) {
	c.generation++
	c.slots.begin()
	c.services.begin()
	c.tables.begin()
	c.paces.begin()
	run := compilation{
		compiler: c,
		in:       in,
		egress:   make(map[string]uint16),
		spec:     snapshot.Spec{Generation: c.generation, NewFlows: rate(in.config.Flows.NewRate)},
		view:     &View{Generation: c.generation},
		awake:    make(map[netip.Addr]bool),
		ready:    make(map[netip.Addr]*readiness),
		ways:     make(map[string]via.Way),
	}
	for i, ifc := range in.interfaces {
		run.egress[ifc.Name] = uint16(i)
		run.workers = max(run.workers, ifc.Workers)
		run.spec.Interfaces = append(run.spec.Interfaces, snapshot.Interface{Name: ifc.Name, MAC: ifc.MAC, MTU: uint32(ifc.MTU)})
	}
	for _, a := range in.own {
		run.spec.Nodes = append(run.spec.Nodes, packet.Addr16(a.Prefix.Addr()))
	}
	for _, a := range in.nodes {
		run.spec.Nodes = append(run.spec.Nodes, packet.Addr16(a))
	}
	run.growBackends()
	errs := []error{run.snat()}
	for i := range in.config.Services {
		if err := run.service(&in.config.Services[i]); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", in.config.Services[i].Name, err))
		}
	}
	errs = append(errs, run.spreads())
	if err := errors.Join(errs...); err != nil {
		return output{}, err
	}
	run.view.Addresses = run.addresses()
	for n := range run.spec.Backends {
		run.spec.Backends[n].Generation = c.slots.generations[n]
	}
	run.policies()
	set := run.steerSet()
	snap, err := snapshot.New(run.spec)
	if err != nil {
		return output{}, err
	}
	c.slots.keep()
	c.services.keep()
	c.tables.keep()
	c.paces.keep()
	c.announced = make(map[netip.Addr]bool)
	for _, a := range run.view.Addresses {
		c.announced[a.Address] = a.Ready
	}
	return output{snap: snap, view: run.view, set: set, ways: run.ways, next: run.next}, nil
}

// wake says that there will be something to do at a moment, if it is one.
func (c *compilation) wake(at time.Time) { c.next = sooner(c.next, at) }

// backend returns the place for a slot in the snapshot, and that in the view.
func (c *compilation) backend(s slot) (*snapshot.Backend, *SlotUse) {
	c.growBackends()
	return &c.spec.Backends[s.number], &c.view.Slots[s.number]
}

// growBackends makes room for all slots there are. Those that turn out to be
// used by nobody stay as they are made here.
func (c *compilation) growBackends() {
	missing := c.slots.size() - len(c.spec.Backends)
	c.spec.Backends = slices.Grow(c.spec.Backends, missing)
	c.view.Slots = slices.Grow(c.view.Slots, missing)
	for n := len(c.spec.Backends); n < c.slots.size(); n++ {
		c.spec.Backends = append(c.spec.Backends, snapshot.Backend{Service: snapshot.None})
		c.view.Slots = append(c.view.Slots, SlotUse{})
	}
}

// families returns which families of VIPs a service has: false IPv4, true IPv6.
func families(s *config.Service) []bool {
	var has [2]bool
	for _, a := range s.Addresses {
		if a.Is6() {
			has[1] = true
		} else {
			has[0] = true
		}
	}
	var all []bool
	if has[0] {
		all = append(all, false)
	}
	if has[1] {
		all = append(all, true)
	}
	return all
}

// Serves tells whether a backend serves VIPs of a family: any does through a
// tunnel or by SNAT, one of the same family if packets keep the client's address.
func Serves(s *config.Service, backend netip.Addr, ipv6 bool) bool {
	mixes := s.Mode == config.ModeIPIP || s.Mode == config.ModeNAT && s.ClientAddress == config.ClientSNAT
	return mixes || backend.Is6() == ipv6
}

// backendsOf returns the indices of the backends that serve VIPs of a family.
func backendsOf(s *config.Service, ipv6 bool) []int {
	var all []int
	for i := range s.Backends {
		if Serves(s, s.Backends[i].Address, ipv6) {
			all = append(all, i)
		}
	}
	return all
}

func (c *compilation) service(s *config.Service) error {
	c.view.Services = append(c.view.Services, Service{Service: s, Backends: make([]Backend, len(s.Backends))})
	view := &c.view.Services[len(c.view.Services)-1]
	for i := range s.Backends {
		view.Backends[i] = c.judge(s, &s.Backends[i])
		c.way(s, &view.Backends[i])
	}
	for _, g := range groups(s) {
		if err := c.group(s, view, g); err != nil {
			return err
		}
	}
	return nil
}

// group is VIPs of a service, of one family, that the same backends serve.
type group struct {
	ipv6 bool
	vips []netip.Addr
	vip  netip.Addr // the only one, if each is judged by itself; else not valid
}

// groups returns the parts that a service is compiled in: one for each VIP if the
// backends have to hold it, so that one that lacks one still serves the others; else
// one for each family. Whether there are checks does not matter, or flows would lose
// their backends when checks are added.
func groups(s *config.Service) []group {
	var all []group
	for _, ipv6 := range families(s) {
		g := group{ipv6: ipv6}
		for _, a := range s.Addresses {
			switch {
			case a.Is6() != ipv6:
			case s.Mode != config.ModeNAT:
				all = append(all, group{ipv6, []netip.Addr{a}, a})
			default:
				g.vips = append(g.vips, a)
			}
		}
		if len(g.vips) > 0 {
			all = append(all, g)
		}
	}
	return all
}

// group compiles one part of a service.
func (c *compilation) group(s *config.Service, view *Service, g group) error {
	index := uint32(len(c.spec.Services))
	members := backendsOf(s, g.ipv6)
	svc := c.newService(s, g.ipv6)
	var weighted []maglev.Backend
	var ofTable []int // index into s.Backends of each of weighted
	for _, i := range members {
		v := &view.Backends[i]
		slot := c.slots.get(keyOf(s, &s.Backends[i], g))
		v.Slots = append(v.Slots, SlotRef{slot.number, slot.generation})
		compiled, use := c.backend(slot)
		compiled.Service, compiled.Addr, compiled.Port = index, packet.Addr16(v.Address), v.Port
		*use = SlotUse{s.Name, v.Address, slot.generation}
		if v.Status == StatusUp || v.Status == StatusDraining {
			var err error
			if compiled.Rewrite, err = c.rewrite(s, v, g.ipv6); err != nil {
				v.Status, v.Reason = StatusUnreachable, err.Error()
			}
		}
		switch v.statusFor(g.vip) {
		case StatusUnreachable, StatusResolving:
			svc.Empty = stats.Unresolved
		case StatusDraining:
			compiled.State = snapshot.Keeps
		case StatusUp:
			compiled.State = snapshot.Active
			weighted = append(weighted, maglev.Backend{Name: v.Address.String(), Weight: v.Weight})
			svc.Members = append(svc.Members, slot.number)
			ofTable = append(ofTable, i)
		}
	}
	inSteps(view, ofTable, weighted)
	table, err := c.tables.get(s.TableSize, weighted)
	if err != nil {
		return err
	}
	svc.Table = table.entries
	for k, i := range ofTable {
		view.Backends[i].Share = max(view.Backends[i].Share, table.shares[k])
	}
	c.spec.Services = append(c.spec.Services, svc)
	c.note(s, g, members, view)
	c.claim(s, g, index, len(weighted) > 0)
	return nil
}

// inSteps gives each backend the part of its weight that it has at the moment,
// exactly: while there is a part, weights count in tenths.
func inSteps(view *Service, ofTable []int, weighted []maglev.Backend) {
	part := func(i int) bool { return view.Backends[i].Level < steps }
	if !slices.ContainsFunc(ofTable, part) {
		return
	}
	for k, i := range ofTable {
		weighted[k].Weight *= uint32(view.Backends[i].Level) // below 2^32, as a weight is at most a million
	}
}

func keyOf(s *config.Service, b *config.Backend, g group) slotKey {
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
	share := func(n int) limit.Rate { return rate(n).Share(max(c.workers, 1)) }
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

// claim gives the service's ports on VIPs to a part of it.
func (c *compilation) claim(s *config.Service, g group, index uint32, usable bool) {
	for _, a := range g.vips {
		c.awake[a] = c.awake[a] || usable
		for _, p := range s.Ports {
			c.spec.VIPs = append(c.spec.VIPs, snapshot.VIPSpec{
				Addr: packet.Addr16(a), Proto: uint8(p.Proto), Lo: p.Lo, Hi: p.Hi, Service: index,
			})
		}
	}
}
