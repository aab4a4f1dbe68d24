package reconcile

import (
	"fmt"
	"slices"

	"weir/controlplane/config"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

// assemble makes the snapshot's spec and the view of the parts, and of the latest
// snapshot what has not changed since.
func (c *compilation) assemble() {
	c.awake = make([]bool, len(c.layout.vips))
	c.spec.Services = make([]snapshot.Service, 0, len(c.parts))
	c.view.Services = make([]Service, 0, len(c.parts))
	for n, p := range c.parts {
		c.view.Services = append(c.view.Services, Service{Service: p.config, Backends: p.backends})
		for i := range p.groups {
			g := &p.groups[i]
			c.tables.stay(g.table)
			c.spec.Services = append(c.spec.Services, g.service)
			for _, vip := range c.layout.groups[n][i].numbers {
				c.awake[vip] = c.awake[vip] || len(g.service.Members) > 0
			}
		}
	}
	c.spec.VIPs = c.layout.claims
	c.view.Addresses = c.addresses()
	c.policies()
	if c.last != nil {
		c.spec.Before = c.last.snap
		if slices.Equal(c.spec.SNAT, c.last.snat) {
			c.spec.SNAT = c.last.snat
		}
	}
	c.backends()
}

// backends puts those backends into their slots that are others than in the latest
// snapshot.
func (c *compilation) backends() {
	size, old := c.slots.size(), 0
	if c.last != nil {
		old = c.last.snap.Slots()
		c.view.Slots = c.last.view.Slots
	}
	c.spec.Slots = size
	own := old < size // whether view.Slots may be written
	if own {
		c.view.Slots = append(make([]SlotUse, 0, size), c.view.Slots...)[:size]
	}
	place := func(slot uint32, b snapshot.Backend, is SlotUse) {
		c.spec.Placed = append(c.spec.Placed, snapshot.Placed{Slot: slot, Backend: b})
		if c.view.Slots[slot] == is {
			return
		}
		if !own {
			c.view.Slots, own = slices.Clone(c.view.Slots), true
		}
		c.view.Slots[slot] = is
	}
	for i := range c.placed {
		p := &c.placed[i]
		p.backend.Service = c.layout.starts[p.service] + uint32(p.group)
		place(p.slot.number, p.backend, SlotUse{c.in.config.Services[p.service].Name, packet.NetipAddr(p.backend.Addr), p.slot.generation})
	}
	c.renumber(place)
	for _, p := range c.before {
		keys(p.config, func(key slotKey) {
			if n, goes := c.slots.goes(key); goes {
				place(n, snapshot.Backend{Service: snapshot.None, Generation: c.last.snap.Backend(n).Generation}, SlotUse{})
			}
		}, func(key serviceKey) { c.services.goes(key) })
	}
}

// renumber tells the backends of parts that have stayed where their service is now.
func (c *compilation) renumber(place func(uint32, snapshot.Backend, SlotUse)) {
	if c.last == nil || c.last.layout == c.layout {
		return
	}
	touched := make([]bool, len(c.parts))
	for _, n := range c.touched {
		touched[n] = true
	}
	for n, p := range c.parts {
		if touched[n] {
			continue
		}
		for i := range p.groups {
			index := c.layout.starts[n] + uint32(i)
			for _, slot := range p.groups[i].slots {
				if b := *c.last.snap.Backend(slot); b.Service != index {
					b.Service = index
					place(slot, b, c.view.Slots[slot])
				}
			}
		}
	}
}

// addresses returns all VIPs, and whether they can be served here. One service that
// has enough healthy backends is enough for a VIP that several share: the others
// would not be served better if it went away.
func (c *compilation) addresses() []Address {
	routed := c.unroutable()
	all := slices.Clone(c.layout.vips)
	// Of the service that is nearest to being served, by VIP.
	type nearest struct {
		known        bool
		min, healthy int
	}
	near := make([]nearest, len(all))
	for n, p := range c.parts {
		for i := range p.groups {
			g := &p.groups[i]
			for _, vip := range c.layout.groups[n][i].numbers {
				// What has not been checked yet does not bring an address up, but does not
				// take it down either: a reload may have replaced all backends.
				a, enough := &all[vip], g.healthy
				if c.announced[a.Address] {
					enough = g.hopeful
				}
				a.Ready = a.Ready || enough >= p.config.MinBackends
				if r := &near[vip]; !r.known || p.config.MinBackends-g.healthy < r.min-r.healthy {
					*r = nearest{true, p.config.MinBackends, g.healthy}
				}
			}
		}
	}
	for n := range all {
		all[n].routed = routed
		if !all[n].Ready {
			all[n].Reason = fmt.Sprintf("%d of its backends are healthy, and min_backends is %d", near[n].healthy, near[n].min)
		}
	}
	return all
}

// policies says how each VIP behaves as a host. One service with a backend that gets
// new flows is enough for a ping.
func (c *compilation) policies() {
	c.spec.Policies = make([]snapshot.VIPPolicy, len(c.layout.policies))
	for n := range c.layout.policies {
		p := &c.layout.policies[n]
		c.spec.Policies[n] = snapshot.VIPPolicy{
			Addr: p.addr, Reject: p.reject, Silent: c.silent(c.layout.vips[n].Address),
			Mute: p.ping == config.PingNever || p.ping == config.PingHealthy && !c.awake[n],
		}
	}
}

// steerSet says what is to be taken from the kernel for this snapshot. What answers
// there are snapshot.New works out for the workers.
func (c *compilation) steerSet() steer.Set {
	cfg := c.in.config
	set := steer.Set{VIPs: c.layout.steered, Tunnels: c.layout.tunnelled}
	for _, p := range c.parts {
		set.Answers = append(set.Answers, p.answers...)
	}
	for _, a := range c.in.own {
		set.Local = append(set.Local, a.Prefix.Addr())
	}
	for _, a := range cfg.NAT.Shared.Addresses {
		set.Shared = append(set.Shared, steer.Shared{Addr: a, Lo: cfg.NAT.Shared.Ports.Lo, Hi: cfg.NAT.Shared.Ports.Hi})
	}
	return set
}
