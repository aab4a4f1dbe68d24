package appliance

import (
	"net/netip"
	"slices"
	"strconv"

	"weir/controlplane/announce"
	"weir/controlplane/api"
)

// Announcements implements api.Appliance.
func (a *Appliance) Announcements() []announce.Status {
	all := a.l2.Status()
	if a.bgp != nil {
		all = append(all, a.bgp.Status()...)
	}
	return all
}

// Pools implements api.Appliance.
func (a *Appliance) Pools() []api.Pool {
	cfg := a.reconciler.Config()
	var all []api.Pool
	for _, u := range a.addresses.usage() {
		for _, p := range cfg.Pools {
			if p.Name != u.Pool {
				continue
			}
			by := []string{}
			for _, way := range p.Announce {
				by = append(by, string(way))
			}
			all = append(all, api.NewPool(u, by, p.AutoAssign))
		}
	}
	return all
}

// Members implements api.Appliance.
func (a *Appliance) Members() []api.Member {
	if a.cluster == nil {
		return nil
	}
	self := a.reconciler.Config().Node
	has := make(map[string][]netip.Prefix) // by node: the addresses that it announces on links
	for _, s := range a.l2.Status() {
		node := s.Owner
		if s.State == announce.Announced {
			node = self
		}
		if !slices.Contains(has[node], s.Address) {
			has[node] = append(has[node], s.Address)
		}
	}
	var all []api.Member
	for _, m := range a.cluster.Members() {
		all = append(all, api.Member{
			Name: m.Name, Address: m.Address, Self: m.Self, Alive: m.Alive, Since: m.Since,
			Announces: len(has[m.Name]), Version: strconv.Itoa(m.Version), Error: m.Err,
		})
	}
	return all
}

// Peers implements api.Appliance.
func (a *Appliance) Peers() []api.Peer {
	if a.bgp == nil {
		return nil
	}
	var all []api.Peer
	for _, s := range a.bgp.Sessions() {
		all = append(all, api.Peer{
			Name: s.Name, Address: s.Address, ASN: s.ASN, State: s.State, Since: s.Since, Prefixes: s.Prefixes,
			Flaps: s.Flaps, LastError: s.LastError, GracefulRestart: s.GracefulRestart,
		})
	}
	return all
}
