package reconcile

import (
	"fmt"
	"net/netip"
	"slices"

	"weir/controlplane/config"
	"weir/dataplane/acl"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

// snat gives the snapshot the addresses that backends may see clients as.
func (c *compilation) snat() error {
	n := &c.in.config.NAT
	addrs := snatAddresses(c.in.config)
	slots, err := c.in.snatSlots(addrs)
	if err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	for i, addr := range addrs {
		ports, shared := n.Ports, i >= len(n.Addresses)
		if shared {
			ports = n.Shared.Ports
		}
		r := nat.Range{Slot: slots[i], Lo: ports.Lo, Hi: ports.Hi}
		c.spec.SNAT = append(c.spec.SNAT, snapshot.SNAT{
			Addr: addr, Range: r, Shared: shared, Silent: !shared && c.silent(packet.NetipAddr(addr)),
		})
		c.view.SNAT = append(c.view.SNAT, SNAT{Address: packet.NetipAddr(addr), Range: r, Shared: shared})
	}
	return nil
}

// snatAddresses returns weir's own SNAT addresses, and then the shared ones.
func snatAddresses(cfg *config.Config) [][16]byte {
	var all [][16]byte
	for _, a := range slices.Concat(cfg.NAT.Addresses, cfg.NAT.Shared.Addresses) {
		all = append(all, packet.Addr16(a))
	}
	return all
}

// policies says how each VIP behaves as a host. Services that share one agree on
// how, and one of them with a backend that gets new flows is enough for a ping.
func (c *compilation) policies() {
	seen := make(map[netip.Addr]bool)
	for i := range c.in.config.Services {
		s := &c.in.config.Services[i]
		for _, a := range s.Addresses {
			if seen[a] {
				continue
			}
			seen[a] = true
			p := snapshot.VIPPolicy{Addr: packet.Addr16(a), Silent: c.silent(a)}
			p.Mute = s.Ping == config.PingNever || s.Ping == config.PingHealthy && !c.awake[a]
			switch s.Reject {
			case config.RejectICMP:
				p.Reject = snapshot.RejectICMP
			case config.RejectRST:
				p.Reject = snapshot.RejectReset
			}
			c.spec.Policies = append(c.spec.Policies, p)
		}
	}
}

// tunnelled returns the addresses of the backends behind a tunnel, each once.
func tunnelled(cfg *config.Config) []netip.Addr {
	var all []netip.Addr
	seen := make(map[netip.Addr]bool)
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			if cfg.Services[i].Mode == config.ModeIPIP && b.State != config.Disabled && !seen[b.Address] {
				seen[b.Address] = true
				all = append(all, b.Address)
			}
		}
	}
	return all
}

// steerSet says what is to be taken from the kernel for this snapshot.
func (c *compilation) steerSet() steer.Set {
	cfg := c.in.config
	set := steer.Set{
		VIPs:    Addresses(cfg),
		Answers: c.answers(),
		Tunnels: tunnelled(cfg),
	}
	for _, a := range c.in.own {
		set.Local = append(set.Local, a.Prefix.Addr())
	}
	for _, a := range cfg.NAT.Shared.Addresses {
		set.Shared = append(set.Shared, steer.Shared{Addr: a, Lo: cfg.NAT.Shared.Ports.Lo, Hi: cfg.NAT.Shared.Ports.Hi})
	}
	return set
}

// answers says where the answers come from that backends send to clients
// themselves. snapshot.New works out the same for the workers.
func (c *compilation) answers() []steer.Answers {
	var all []steer.Answers
	seen := make(map[steer.Answers]bool)
	add := func(a steer.Answers) {
		if !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	for i := range c.spec.VIPs {
		v := &c.spec.VIPs[i]
		if c.spec.Services[v.Service].Mode != snapshot.NATKeep {
			continue
		}
		for k := range c.spec.Backends {
			b := &c.spec.Backends[k]
			addr := packet.NetipAddr(b.Addr)
			switch {
			case b.Service != v.Service || b.State == snapshot.Removed:
			case b.Port != 0:
				add(steer.Answers{Addr: addr, Proto: v.Proto, Port: b.Port})
			default:
				for port := int(v.Lo); port <= int(v.Hi); port++ {
					add(steer.Answers{Addr: addr, Proto: v.Proto, Port: uint16(port)})
				}
			}
		}
	}
	return all
}

// VIPs returns all addresses of a configuration's services, each once.
func VIPs(cfg *config.Config) []netip.Addr {
	var vips []netip.Addr
	seen := make(map[netip.Addr]bool)
	for i := range cfg.Services {
		for _, a := range cfg.Services[i].Addresses {
			if !seen[a] {
				seen[a] = true
				vips = append(vips, a)
			}
		}
	}
	return vips
}

// Addresses returns all addresses that are weir's alone: the VIPs, and the SNAT
// addresses that are not the box's own.
func Addresses(cfg *config.Config) []netip.Addr {
	return append(VIPs(cfg), cfg.NAT.Addresses...)
}

// backends returns the addresses of a configuration's backends, each once.
func backends(cfg *config.Config) []netip.Addr {
	var all []netip.Addr
	seen := make(map[netip.Addr]bool)
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			if !seen[b.Address] {
				seen[b.Address] = true
				all = append(all, b.Address)
			}
		}
	}
	return all
}

// workable tells whether frames can leave by an interface.
func workable(i engine.InterfaceStatus) bool { return i.Err == nil && i.Workers > 0 }

// acls remembers the access lists of a configuration, which may be long.
type acls struct {
	config *config.Config
	lists  map[string]*acl.List // by service
}

func newACLs() *acls { return &acls{} }

// get returns the list of a service; nil lets everybody in.
func (a *acls) get(cfg *config.Config, s *config.Service) *acl.List {
	if a.config != cfg {
		a.config, a.lists = cfg, make(map[string]*acl.List)
	}
	if len(s.ACL.Allow)+len(s.ACL.Deny) == 0 {
		return nil
	}
	list := a.lists[s.Name]
	if list == nil {
		list = acl.New(s.ACL.Allow, s.ACL.Deny)
		a.lists[s.Name] = list
	}
	return list
}

// members returns all backends of all services.
func members(cfg *config.Config) []member {
	var all []member
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			all = append(all, member{cfg.Services[i].Name, b.Address})
		}
	}
	return all
}
