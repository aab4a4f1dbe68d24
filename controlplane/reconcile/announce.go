package reconcile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/announce"
	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
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
	SetBackends(backends func() map[packet.MAC]netip.Addr)
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
	if c.in.stances == nil {
		return nil
	}
	for i := range c.layout.vips {
		a := c.layout.vips[i].Address
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
		table := c.tables.want(spreadTable, nodes)
		if c.tables.build(1); table.err != nil {
			return table.err
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
