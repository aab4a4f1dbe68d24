package appliance

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"weir/controlplane/config"
)

// thisHost gathers the facts about this box that a configuration is held
// against.
func thisHost() (config.Host, error) {
	var h config.Host
	links, err := net.Interfaces()
	if err != nil {
		return h, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		h.Interfaces = append(h.Interfaces, l.Name)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return h, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			h.Addresses = append(h.Addresses, p.Addr().Unmap())
		}
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return h, fmt.Errorf("get allowed cpus: %w", err)
	}
	for cpu := 0; len(h.CPUs) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			h.CPUs = append(h.CPUs, cpu)
		}
	}
	return h, nil
}
