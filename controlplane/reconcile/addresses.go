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
