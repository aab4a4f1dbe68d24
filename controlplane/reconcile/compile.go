package reconcile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
	"weir/dataplane/maglev"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// input is all that a snapshot depends on.
type input struct {
	config     *config.Config
	hops       map[netip.Addr]nexthop.Hop
	health     map[string]health.Result
	interfaces []engine.InterfaceStatus
}

// compiler turns input into snapshots. It remembers slots and tables from one
// to the next.
type compiler struct {
	slots      *slots
	tables     *tables
	generation uint64
}

func newCompiler() *compiler { return &compiler{slots: newSlots(), tables: newTables()} }

// compilation is one snapshot in the making.
type compilation struct {
	*compiler
	in     input
	egress map[string]uint16 // interface name to index
	spec   snapshot.Spec
	view   *View
}

// compile builds the snapshot for in and the view that explains it. An error
// leaves the slots and tables of the latest snapshot as they are.
func (c *compiler) compile(in input) (*snapshot.Snapshot, *View, error) {
	c.generation++
	c.slots.begin()
	c.tables.begin()
	run := compilation{
		compiler: c,
		in:       in,
		egress:   make(map[string]uint16),
		spec:     snapshot.Spec{Generation: c.generation},
		view:     &View{Generation: c.generation},
	}
	for i, ifc := range in.interfaces {
		run.egress[ifc.Name] = uint16(i)
		run.spec.Interfaces = append(run.spec.Interfaces, snapshot.Interface{Name: ifc.Name, MAC: ifc.MAC})
	}
	run.growBackends()
	var errs []error
	for i := range in.config.Services {
		if err := run.service(&in.config.Services[i]); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", in.config.Services[i].Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	for n := range run.spec.Backends {
		run.spec.Backends[n].Generation = c.slots.generations[n]
	}
	snap, err := snapshot.New(run.spec)
	if err != nil {
		return nil, nil, err
	}
	c.slots.keep()
	c.tables.keep()
	return snap, run.view, nil
}

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

// backendsOf returns the indices of the backends that serve VIPs of a family:
// all of them through a tunnel, those of the same family without.
func backendsOf(s *config.Service, ipv6 bool) []int {
	var all []int
	for i := range s.Backends {
		if s.Mode == config.ModeIPIP || s.Backends[i].Address.Is6() == ipv6 {
			all = append(all, i)
		}
	}
	return all
}

func (c *compilation) service(s *config.Service) error {
	c.view.Services = append(c.view.Services, Service{
		Name: s.Name, Mode: s.Mode, Affinity: s.Affinity, TableSize: s.TableSize,
		Addresses: s.Addresses, Ports: s.Ports,
		Backends: make([]Backend, len(s.Backends)),
	})
	view := &c.view.Services[len(c.view.Services)-1]
	for i := range s.Backends {
		view.Backends[i] = c.judge(s, &s.Backends[i])
	}
	for _, family := range families(s) {
		if err := c.family(s, view, family); err != nil {
			return err
		}
	}
	return nil
}

// judge decides what may be sent to a backend, apart from what its families
// have to say.
func (c *compilation) judge(s *config.Service, b *config.Backend) Backend {
	v := Backend{
		Address: b.Address, Weight: b.Weight, Admin: b.State,
		Hop: c.in.hops[b.Address],
	}
	if b.VLAN != 0 {
		v.Hop.VLAN = b.VLAN
	}
	if s.Health != nil {
		v.Check = checkID(s, b)
		v.Health = c.in.health[v.Check]
	}
	// Why there is no way to a backend says more than that its check fails.
	switch reason := c.unreachable(s, &v.Hop); {
	case b.State == config.Disabled:
		v.Status = StatusDisabled
	case reason != "" && v.Hop.State == nexthop.Unresolved:
		v.Status, v.Reason = StatusResolving, reason
	case reason != "":
		v.Status, v.Reason = StatusUnreachable, reason
	case v.Health.State == health.Down:
		v.Status, v.Reason = StatusDown, v.Health.LastError
	case b.State == config.Draining || b.Weight == 0:
		v.Status = StatusDraining
	default:
		v.Status = StatusUp
	}
	return v
}

// unreachable says in words why no frame can be sent to a backend; "" if it can.
func (c *compilation) unreachable(s *config.Service, hop *nexthop.Hop) string {
	if hop.State != nexthop.Resolved {
		if hop.Reason == "" {
			return "its next hop is not known yet"
		}
		return hop.Reason
	}
	egress, ours := c.egress[hop.Interface]
	if !ours {
		return fmt.Sprintf("the route to it leaves by %s, which is not among weir's interfaces", hop.Interface)
	}
	if nic := &c.in.interfaces[egress]; nic.Err != nil || nic.Workers == 0 {
		return fmt.Sprintf("the route to it leaves by %s, which weir cannot work at the moment", hop.Interface)
	}
	if s.Mode == config.ModeDSR && hop.Gateway.IsValid() {
		return fmt.Sprintf("it is behind the router %s, and mode dsr reaches backends on the link only; use mode ipip", hop.Gateway)
	}
	return ""
}

// family compiles the part of a service that one family of its VIPs makes up.
func (c *compilation) family(s *config.Service, view *Service, ipv6 bool) error {
	index := uint32(len(c.spec.Services))
	members := backendsOf(s, ipv6)
	svc := snapshot.Service{Name: s.Name, Empty: stats.NoBackend}
	if s.Affinity == config.AffinitySource {
		svc.Affinity = snapshot.AffinitySource
	}
	var weighted []maglev.Backend
	var ofTable []int // index into s.Backends of each of weighted
	for _, i := range members {
		v := &view.Backends[i]
		slot := c.slots.get(slotKey{s.Name, ipv6, v.Address})
		v.Slots = append(v.Slots, SlotRef{slot.number, slot.generation})
		compiled, use := c.backend(slot)
		compiled.Service = index
		*use = SlotUse{s.Name, v.Address, slot.generation}
		if v.Status == StatusUp || v.Status == StatusDraining {
			var err error
			if compiled.Rewrite, err = c.rewrite(s, &s.Backends[i], &v.Hop, ipv6); err != nil {
				v.Status, v.Reason = StatusUnreachable, err.Error()
			}
		}
		switch v.Status {
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
	table, err := c.tables.get(s.TableSize, weighted)
	if err != nil {
		return err
	}
	svc.Table = table.entries
	for k, i := range ofTable {
		view.Backends[i].Share = max(view.Backends[i].Share, table.shares[k])
	}
	c.spec.Services = append(c.spec.Services, svc)
	c.claim(s, ipv6, index)
	return nil
}

// claim gives the service's ports on its VIPs of one family to it.
func (c *compilation) claim(s *config.Service, ipv6 bool, index uint32) {
	for _, a := range s.Addresses {
		if a.Is6() != ipv6 {
			continue
		}
		for _, p := range s.Ports {
			c.spec.VIPs = append(c.spec.VIPs, snapshot.VIPSpec{
				Addr: packet.Addr16(a), Proto: uint8(p.Proto), Lo: p.Lo, Hi: p.Hi, Service: index,
			})
		}
	}
}

func (c *compilation) rewrite(s *config.Service, b *config.Backend, hop *nexthop.Hop, ipv6 bool) (rewrite.Rewrite, error) {
	link := rewrite.Link{
		Egress: c.egress[hop.Interface],
		Src:    packet.MAC(hop.SrcMAC),
		Dst:    packet.MAC(hop.DstMAC),
		VLAN:   hop.VLAN,
		MTU:    min(hop.MTU, 65535),
	}
	if s.Mode == config.ModeDSR {
		return rewrite.DSR(link, ipv6)
	}
	t := c.tunnel(b, hop)
	if !t.Source.IsValid() {
		return rewrite.Rewrite{}, errors.New("the kernel has no source address for the tunnel to it; give the box one, or set ipip.source")
	}
	return rewrite.IPIP(link, ipv6, t)
}

// tunnel addresses the outer header: from what is configured for the backend's
// family, else from the address the kernel would use.
func (c *compilation) tunnel(b *config.Backend, hop *nexthop.Hop) rewrite.Tunnel {
	source, prefix := c.in.config.IPIP.Source, c.in.config.IPIP.SourcePrefix
	if b.Address.Is6() {
		source, prefix = c.in.config.IPIP.Source6, c.in.config.IPIP.SourcePrefix6
	}
	t := rewrite.Tunnel{Source: hop.Source, Destination: b.Address}
	switch {
	case prefix.IsValid():
		t.Source, t.Spread = prefix.Addr(), true
	case source.IsValid():
		t.Source = source
	}
	return t
}

func checkID(s *config.Service, b *config.Backend) string { return s.Name + " " + b.Address.String() }

// checks returns the health checks that a configuration asks for.
func checks(c *config.Config) []health.Check {
	var all []health.Check
	for i := range c.Services {
		s := &c.Services[i]
		for k := range s.Backends {
			if b := &s.Backends[k]; s.Health != nil && b.State != config.Disabled {
				all = append(all, check(s, b))
			}
		}
	}
	return all
}

func check(s *config.Service, b *config.Backend) health.Check {
	h := s.Health
	check := health.Check{
		ID: checkID(s, b), Address: b.Address,
		Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall,
	}
	if h.TCP != nil {
		check.Kind, check.Port = health.TCP, h.TCP.Port
		return check
	}
	check.Kind, check.Port = health.HTTP, h.HTTP.Port
	check.Path, check.Host, check.Method = h.HTTP.Path, h.HTTP.Host, h.HTTP.Method
	for _, codes := range h.HTTP.Codes {
		check.Codes = append(check.Codes, health.Codes(codes))
	}
	return check
}
