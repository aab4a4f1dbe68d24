package reconcile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	"weir/controlplane/config"
)

// Kind says what becomes of a service when the configuration changes.
type Kind string

// The kinds.
const (
	Added     Kind = "added"
	Removed   Kind = "removed"
	Changed   Kind = "changed"
	Unchanged Kind = "unchanged"
)

// ServiceChange is what another configuration would do to a service.
type ServiceChange struct {
	Name     string
	Kind     Kind
	Keys     []string // that differ, as the file has them; of one that is Changed
	Backends []BackendChange
}

// BackendChange is what another configuration says about a backend.
type BackendChange struct {
	Address netip.Addr
	Kind    Kind
	Keys    []string // "weight 100 to 50"; of one that is Changed
}

// Diff is in what two configurations differ.
type Diff struct {
	Services    []ServiceChange // all there are in either, in the order of the new file, those removed at the end
	VIPsAdded   []netip.Addr
	VIPsRemoved []netip.Addr
	Sections    []string // top-level keys other than services
}

// DiffOf compares two configurations.
func DiffOf(before, after *config.Config) Diff {
	var d Diff
	old := make(map[string]*config.Service)
	for i := range before.Services {
		old[before.Services[i].Name] = &before.Services[i]
	}
	for i := range after.Services {
		s := &after.Services[i]
		if was := old[s.Name]; was != nil {
			d.Services = append(d.Services, serviceChange(was, s))
		} else {
			d.Services = append(d.Services, ServiceChange{Name: s.Name, Kind: Added})
		}
		delete(old, s.Name)
	}
	for i := range before.Services {
		if name := before.Services[i].Name; old[name] != nil {
			d.Services = append(d.Services, ServiceChange{Name: name, Kind: Removed})
		}
	}
	d.VIPsAdded = without(VIPs(after), VIPs(before))
	d.VIPsRemoved = without(VIPs(before), VIPs(after))
	for _, section := range sections() {
		if !reflect.DeepEqual(section.of(before), section.of(after)) {
			d.Sections = append(d.Sections, section.key)
		}
	}
	return d
}

// Count returns how many services are of a kind.
func (d *Diff) Count(kind Kind) int {
	n := 0
	for i := range d.Services {
		if d.Services[i].Kind == kind {
			n++
		}
	}
	return n
}

// Fixed names the sections that differ and cannot be changed while weir runs.
func (d *Diff) Fixed() []string {
	var names []string
	for _, section := range sections() {
		if section.fixed && slices.Contains(d.Sections, section.key) {
			names = append(names, section.key)
		}
	}
	return names
}

// section is a top-level key of the configuration, or a part of one.
type section struct {
	key   string
	fixed bool // for as long as weir runs
	of    func(*config.Config) any
}

func sections() []section {
	return []section{
		{"node", false, func(c *config.Config) any { return c.Node }},
		{"cluster", true, func(c *config.Config) any {
			if c.Cluster == nil {
				return nil
			}
			return []any{c.Node, c.Cluster} // by its name the others know this one
		}},
		{"pools", false, func(c *config.Config) any { return c.Pools }},
		{"bgp", true, func(c *config.Config) any {
			if c.BGP == nil {
				return nil
			}
			return []any{c.BGP.ASN, c.BGP.RouterID, c.BGP.Listen}
		}},
		{"bgp.peers", false, func(c *config.Config) any {
			if c.BGP == nil {
				return nil
			}
			return []any{c.BGP.NextHop, c.BGP.NextHop6, c.BGP.ShutdownDelay, c.BGP.Peers}
		}},
		{"interfaces", true, func(c *config.Config) any { return c.Interfaces }},
		{"flows", true, func(c *config.Config) any {
			f := c.Flows
			f.NewRate = 0
			return f
		}},
		{"flows.new_rate", false, func(c *config.Config) any { return c.Flows.NewRate }},
		{"ipip", false, func(c *config.Config) any { return c.IPIP }},
		{"path_mtu", false, func(c *config.Config) any { return c.PathMTU }},
		{"nat", false, func(c *config.Config) any { return c.NAT }},
		{"api", true, func(c *config.Config) any { return c.API }},
		{"state_dir", true, func(c *config.Config) any { return c.StateDir }},
		{"log", true, func(c *config.Config) any { return c.Log }},
	}
}

func serviceChange(before, after *config.Service) ServiceChange {
	c := ServiceChange{Name: after.Name, Kind: Unchanged, Backends: backendChanges(before, after)}
	note := func(key string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			c.Keys = append(c.Keys, key)
		}
	}
	note("addresses", before.Addresses, after.Addresses)
	note("ports", before.Ports, after.Ports)
	note("mode", before.Mode, after.Mode)
	note("client_address", before.ClientAddress, after.ClientAddress)
	note("affinity", before.Affinity, after.Affinity)
	note("affinity_prefix", before.AffinityPrefix, after.AffinityPrefix)
	note("affinity_prefix6", before.AffinityPrefix6, after.AffinityPrefix6)
	note("table_size", before.TableSize, after.TableSize)
	note("ping", before.Ping, after.Ping)
	note("reject", before.Reject, after.Reject)
	note("slow_start", before.SlowStart, after.SlowStart)
	note("limits", before.Limits, after.Limits)
	note("acl", before.ACL, after.ACL)
	note("health", before.Health, after.Health)
	note("pool", before.Pool, after.Pool)
	note("ip_families", before.Families, after.Families)
	note("labels", before.Labels, after.Labels)
	note("share", before.Share, after.Share)
	note("announce", before.Announce, after.Announce)
	note("min_backends", before.MinBackends, after.MinBackends)
	if len(c.Backends) > 0 {
		c.Keys = append(c.Keys, "backends")
	}
	if len(c.Keys) > 0 {
		c.Kind = Changed
	}
	return c
}

// backendChanges compares the backends of a service; their order means nothing.
func backendChanges(before, after *config.Service) []BackendChange {
	var changes []BackendChange
	old := make(map[netip.Addr]*config.Backend)
	for i := range before.Backends {
		old[before.Backends[i].Address] = &before.Backends[i]
	}
	for i := range after.Backends {
		b := &after.Backends[i]
		was := old[b.Address]
		delete(old, b.Address)
		if was == nil {
			changes = append(changes, BackendChange{Address: b.Address, Kind: Added})
		} else if keys := backendKeys(was, b); len(keys) > 0 {
			changes = append(changes, BackendChange{Address: b.Address, Kind: Changed, Keys: keys})
		}
	}
	for i := range before.Backends {
		if a := before.Backends[i].Address; old[a] != nil {
			changes = append(changes, BackendChange{Address: a, Kind: Removed})
		}
	}
	return changes
}

func backendKeys(before, after *config.Backend) []string {
	var keys []string
	note := func(key string, a, b any) {
		if a != b {
			keys = append(keys, fmt.Sprintf("%s %v to %v", key, a, b))
		}
	}
	note("weight", before.Weight, after.Weight)
	note("state", before.State, after.State)
	optional := func(n int) string { // 0 is that the file does not say
		if n == 0 {
			return "none"
		}
		return strconv.Itoa(n)
	}
	note("port", optional(int(before.Port)), optional(int(after.Port)))
	note("mtu", optional(before.MTU), optional(after.MTU))
	note("vlan", optional(int(before.VLAN)), optional(int(after.VLAN)))
	return keys
}

// without returns what of a is not in b.
func without(a, b []netip.Addr) []netip.Addr {
	in := make(map[netip.Addr]bool, len(b))
	for _, addr := range b {
		in[addr] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(addr netip.Addr) bool { return in[addr] })
}
