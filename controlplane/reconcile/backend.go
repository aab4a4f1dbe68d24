package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
)

// judge decides what may be sent to a backend, apart from what its families
// have to say.
func (c *compilation) judge(s *config.Service, b *config.Backend) Backend {
	v := Backend{
		Address: b.Address, Port: b.Port, Weight: b.Weight, Admin: b.State,
		Hop: c.in.hops[b.Address], Level: steps,
	}
	if c.in.settled && v.Hop.State == nexthop.Unresolved {
		v.Hop = c.anyHop(b)
	}
	if b.VLAN != 0 {
		v.Hop.VLAN = b.VLAN
	}
	c.pathMTU(b, &v)
	for _, vip := range checkedVIPs(s, b) {
		id := checkID(s, b.Address, vip)
		v.Checks = append(v.Checks, Check{ID: id, VIP: vip, Result: c.in.health(id)})
	}
	v.Health = sum(v.Checks)
	// Why there is no way to a backend says more than that its check fails.
	switch reason := c.unreachable(s, &v.Hop); {
	case b.State == config.Disabled:
		v.Status = StatusDisabled
	case reason != "" && v.Hop.State == nexthop.Unresolved:
		v.Status, v.Reason = StatusResolving, reason
	case reason != "":
		v.Status, v.Reason = StatusUnreachable, reason
	case v.failsAll():
		v.Status, v.Reason = StatusDown, v.Health.LastError
	case b.State == config.Draining:
		v.Status, v.Reason = StatusDraining, "its state is draining"
	case b.Weight == 0:
		v.Status, v.Reason = StatusDraining, "its weight is 0"
	default:
		v.Status = StatusUp
		if v.Health.State == health.Down {
			v.Reason = "it gets no packets for a VIP that it fails the check of: " + v.Health.LastError
		}
	}
	c.pace(s, &v)
	return v
}

// pace works out what part of its weight a backend has.
func (c *compilation) pace(s *config.Service, v *Backend) {
	m := member{s.Name, v.Address}
	level, next := c.paces.level(m, v.Status, s.SlowStart, c.in.now)
	end := time.Time{}
	if level < steps {
		end = c.paces.next[m].since.Add(s.SlowStart)
	}
	drain, drained := c.in.drains[m]
	if drained {
		level, next = drain.level(c.in.now)
		end = time.Time{}
		if level > 0 {
			end = drain.Start.Add(drain.Over)
		}
	}
	if c.in.settled {
		level, end = steps, time.Time{}
		if drained {
			level = 0
		}
	}
	v.Level, v.Until, v.Drained = level, end, drained
	c.wake(next)
	if drained && level == 0 && v.Status == StatusUp {
		v.Status, v.Reason = StatusDraining, fmt.Sprintf("taken out by weir drain; weir undrain %s brings it back", v.Address)
	}
}

// pathMTU works out how long packets to a backend may be.
func (c *compilation) pathMTU(b *config.Backend, v *Backend) {
	v.MTU, v.MTUSource = min(v.Hop.MTU, 65535), MTULink
	if b.MTU != 0 && b.MTU < v.MTU {
		v.MTU, v.MTUSource = b.MTU, MTUConfigured
	}
	learned := c.in.mtus[b.Address]
	if learned != 0 && learned < v.MTU && c.in.config.PathMTU == config.PathMTULearn {
		v.MTU, v.MTUSource = learned, MTULearned
	}
}

// anyHop stands for the way to a backend that has not been looked for.
func (c *compilation) anyHop(b *config.Backend) nexthop.Hop {
	hop := nexthop.Hop{Addr: b.Address, State: nexthop.Resolved, DstMAC: nexthop.MAC{2}, Source: b.Address, MTU: 1500}
	if worked := slices.IndexFunc(c.in.interfaces, workable); worked >= 0 {
		hop.Interface = c.in.interfaces[worked].Name
	}
	return hop
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
	if !workable(c.in.interfaces[egress]) {
		return fmt.Sprintf("the route to it leaves by %s, which weir cannot work at the moment", hop.Interface)
	}
	if s.Mode == config.ModeDSR && hop.Gateway.IsValid() {
		return fmt.Sprintf("it is behind the router %s, and mode dsr reaches backends on the link only; use mode ipip", hop.Gateway)
	}
	return ""
}

func (c *compilation) rewrite(s *config.Service, v *Backend, ipv6 bool) (rewrite.Rewrite, error) {
	link := rewrite.Link{
		Egress: c.egress[v.Hop.Interface],
		Src:    packet.MAC(v.Hop.SrcMAC),
		Dst:    packet.MAC(v.Hop.DstMAC),
		VLAN:   v.Hop.VLAN,
		MTU:    v.MTU,
	}
	switch s.Mode {
	case config.ModeDSR:
		return rewrite.DSR(link, ipv6)
	case config.ModeNAT:
		return rewrite.NAT(link, v.Address.Is6())
	}
	t := c.tunnel(v)
	if !t.Source.IsValid() {
		return rewrite.Rewrite{}, errors.New("the kernel has no source address for the tunnel to it; give the box one, or set ipip.source")
	}
	return rewrite.IPIP(link, ipv6, t)
}

// tunnel addresses the outer header: from what is configured for the backend's
// family, else from the address the kernel would use.
func (c *compilation) tunnel(v *Backend) rewrite.Tunnel {
	source, prefix := c.in.config.IPIP.Source, c.in.config.IPIP.SourcePrefix
	if v.Address.Is6() {
		source, prefix = c.in.config.IPIP.Source6, c.in.config.IPIP.SourcePrefix6
	}
	t := rewrite.Tunnel{Source: v.Hop.Source, Destination: v.Address}
	switch {
	case prefix.IsValid():
		t.Source, t.Spread = prefix.Addr(), true
	case source.IsValid():
		t.Source = source
	}
	return t
}
