package reconcile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/announce"
	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
	"weir/dataplane/maglev"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
)

// spreadTable is the size of the table by which flows are spread over nodes: a
// prime, and above 100 for each of as many nodes as anybody has.
const spreadTable = 2039

// Links tells the stations on weir's links where addresses are, and which of them
// this node answers for.
type Links interface {
	SetInterfaces(interfaces []l2.Interface)
	SetOwn(addrs []netip.Addr)
	SetBackends(backends map[packet.MAC]netip.Addr)
	SetAddresses(addrs []netip.Addr)
	Stances() map[netip.Addr]announce.Stance
	Nodes() []netip.Addr
	Changes() <-chan struct{}
}

// Address is a VIP as this node sees it.
type Address struct {
	Address netip.Addr
	Pool    string            // that it is from; empty for none
	By      []config.Announce // how it is announced
	Ready   bool              // its services have the backends that they need
	Reason  string            // why it is not ready, in words

	routed string // why no routes to it may lead here; empty if they may
}

// Withheld says in words why this node does not announce the address in one way; ""
// if it does, as far as that is decided here.
func (a *Address) Withheld(by config.Announce) string {
	if a.Ready && by != config.AnnounceL2 { // which knows about its links
		return a.routed
	}
	return a.Reason
}

// readiness is what becomes known about a VIP while its services are compiled.
type readiness struct {
	*Address
	min, healthy int // of the service that is nearest to being served
}

// note takes in how many backends of a service are healthy for some of its VIPs.
// One service that has enough is enough for a VIP that several share: the
// others would not be served better if it went away.
func (c *compilation) note(s *config.Service, g group, members []int, view *Service) {
	healthy, hopeful := 0, 0
	for _, i := range members {
		b := &view.Backends[i]
		if status := b.statusFor(g.vip); status != StatusUp && status != StatusDraining {
			continue
		}
		hopeful++
		// A check that cannot be made on this box says nothing about the backend, which
		// gets traffic; so the VIP is served.
		if r, checked := b.healthFor(g.vip); !checked || r.State == health.Up || r.Unable {
			healthy++
		}
	}
	for _, a := range g.vips {
		r := c.ready[a]
		if r == nil {
			r = &readiness{Address: &Address{Address: a}, min: -1}
			c.ready[a] = r
			c.order = append(c.order, a)
		}
		r.announce(c.in.config.PoolOf(a), s)
		// What has not been checked yet does not bring an address up, but does not
		// take it down either: a reload may have replaced all backends.
		enough := healthy
		if c.announced[a] {
			enough = hopeful
		}
		r.Ready = r.Ready || enough >= s.MinBackends
		if r.min < 0 || s.MinBackends-healthy < r.min-r.healthy {
			r.min, r.healthy = s.MinBackends, healthy
		}
	}
}

// announce adds the ways by which a service has the address announced.
func (a *Address) announce(pool *config.Pool, s *config.Service) {
	by := s.Announce
	if pool != nil {
		a.Pool, by = pool.Name, pool.Announce
	}
	for _, way := range by {
		if !slices.Contains(a.By, way) {
			a.By = append(a.By, way)
		}
	}
}

// addresses returns all VIPs, and whether they can be served here.
func (c *compilation) addresses() []Address {
	routed := c.unroutable()
	var all []Address
	for _, a := range c.order {
		r := c.ready[a]
		r.routed = routed
		if !r.Ready {
			r.Reason = fmt.Sprintf("%d of its backends are healthy, and min_backends is %d", r.healthy, r.min)
		}
		all = append(all, *r.Address)
	}
	return all
}

// unroutable says in words why no routes may lead to this node; "" if they may. By
// which interface a router's packets come in is for the router to decide, so what
// there is has to work; one that is gone or down has taken its neighbours along,
// unless a next hop that is configured is on it.
func (c *compilation) unroutable() string {
	hops := nextHops(c.in.config.BGP)
	for _, own := range c.in.own {
		if a := own.Prefix.Addr(); slices.Contains(hops, a) {
			c.homes[a] = own.Interface
		}
	}
	works := false
	for i := range c.in.interfaces {
		is := &c.in.interfaces[i]
		switch {
		case is.Stuck:
			return fmt.Sprintf("a worker of %s is stuck", is.Name)
		case is.Err != nil && !errors.Is(is.Err, queue.ErrGone):
			return fmt.Sprintf("weir cannot work %s: %v", is.Name, is.Err)
		case is.Alive():
			works = true
			continue
		}
		for _, hop := range hops {
			if c.homes[hop] == is.Name { // one that is gone has no addresses any more
				return fmt.Sprintf("%s, which has the next hop %s, is down", is.Name, hop)
			}
		}
	}
	if !works {
		return "weir works no interface that is up"
	}
	return ""
}

// nextHops returns the next hops that are configured.
func nextHops(b *config.BGP) []netip.Addr {
	if b == nil {
		return nil
	}
	all := []netip.Addr{b.NextHop, b.NextHop6}
	for _, p := range b.Peers {
		all = append(all, p.NextHop, p.NextHop6)
	}
	return all
}

// advertise tells each announcer which addresses are its to announce.
func (r *Reconciler) advertise(addresses []Address) {
	for _, announcer := range r.parts.Announcers {
		ads := []announce.Advertisement{}
		for _, a := range addresses {
			by := config.Announce(announcer.Name())
			if slices.Contains(a.By, by) && a.Withheld(by) == "" {
				ads = append(ads, announce.Advertisement{Address: a.Address, Pool: a.Pool})
			}
		}
		announcer.Set(ads)
	}
}

// links returns the interfaces as neighbours on their links see them.
func links(interfaces []engine.InterfaceStatus, own []nexthop.Address) []l2.Interface {
	var all []l2.Interface
	for _, i := range interfaces {
		link := l2.Interface{Name: i.Name, MAC: i.MAC, Up: i.Up, Workers: workable(i) && !i.Stuck}
		for _, a := range own {
			if a.Interface == i.Name {
				link.Prefixes = append(link.Prefixes, a.Prefix)
			}
		}
		all = append(all, link)
	}
	return all
}

// stations returns the backends that are on weir's links.
func stations(hops map[netip.Addr]nexthop.Hop) map[packet.MAC]netip.Addr {
	all := make(map[packet.MAC]netip.Addr)
	for addr, hop := range hops {
		if hop.State == nexthop.Resolved && !hop.Gateway.IsValid() {
			all[packet.MAC(hop.DstMAC)] = addr
		}
	}
	return all
}

// global returns the addresses that a node's packets can come from elsewhere.
func global(own []nexthop.Address) []netip.Addr {
	var all []netip.Addr
	for _, o := range own {
		if a := o.Prefix.Addr(); a.IsGlobalUnicast() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// silent tells whether this node keeps quiet about an address on its links.
func (c *compilation) silent(a netip.Addr) bool {
	return c.in.stances != nil && !c.in.stances[a].Answers
}

// spreads shares the flows to those VIPs out that more than one node takes.
func (c *compilation) spreads() error {
	for _, a := range c.order {
		stance := c.in.stances[a]
		if !stance.Answers {
			continue
		}
		spread := snapshot.Spread{Addr: packet.Addr16(a)}
		var nodes []maglev.Backend
		for _, m := range stance.Members {
			member, ok, err := c.member(m, a.Is6())
			if err != nil {
				return err
			}
			if ok {
				spread.Members = append(spread.Members, member)
				nodes = append(nodes, maglev.Backend{Name: m.Node, Weight: 1})
			}
		}
		if len(nodes) < 2 {
			continue
		}
		table, err := c.tables.get(spreadTable, nodes)
		if err != nil {
			return err
		}
		spread.Table = table.entries
		c.spec.Spreads = append(c.spec.Spreads, spread)
	}
	return nil
}

// member returns how packets get to a node; ok is false if they cannot.
func (c *compilation) member(m announce.Member, ipv6 bool) (member snapshot.SpreadMember, ok bool, err error) {
	if m.Self {
		return snapshot.SpreadMember{Self: true}, true, nil
	}
	egress, ours := c.egress[m.Interface]
	if !ours || !workable(c.in.interfaces[egress]) {
		return member, false, nil
	}
	i := &c.in.interfaces[egress]
	member.Rewrite, err = rewrite.DSR(rewrite.Link{Egress: egress, Src: i.MAC, Dst: m.MAC, MTU: i.MTU}, ipv6)
	return member, err == nil, err
}
