package appliance

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"weir/controlplane/config"
	"weir/dataplane/affinity"
)

// thisHost gathers the facts about this box that a configuration is held
// against. It takes the interfaces that are in use for present, also while they
// are not: one that is gone for the moment must not keep backends from being
// changed.
func thisHost(inUse []config.Interface) (config.Host, error) {
	var h config.Host
	links, err := net.Interfaces()
	if err != nil {
		return h, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		h.Interfaces = append(h.Interfaces, l.Name)
		if len(l.HardwareAddr) != 6 { // lo, whose MAC is all zeros, has none for net
			h.NotEthernet = append(h.NotEthernet, l.Name)
		}
	}
	for _, i := range inUse {
		if !slices.Contains(h.Interfaces, i.Name) {
			h.Interfaces = append(h.Interfaces, i.Name)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return h, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			h.Addresses = append(h.Addresses, p)
		}
	}
	if h.CPUs, err = affinity.Possible(); err != nil {
		return h, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return h, fmt.Errorf("get size of memory: %w", err)
	}
	h.Memory = uint64(info.Totalram) * uint64(info.Unit)
	return h, nil
}
