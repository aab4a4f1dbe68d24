package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Host is what Parse must know about the box. The caller gathers it.
type Host struct {
	Interfaces []string     // names of the network interfaces
	Addresses  []netip.Addr // the box's own, those of all interfaces
	CPUs       []int        // those the process may run on; nil: not known
}

// validateOn reports what in c does not fit the host. Values that could not be
// parsed are zero and have been reported.
func validateOn(c *Config, host *Host, r *report) {
	for i, nic := range c.Interfaces {
		path := fmt.Sprintf("interfaces[%d]", i)
		if nic.Name != "" && !slices.Contains(host.Interfaces, nic.Name) {
			r.errorf(path+".name", "unknown interface %s; this box has %s", nic.Name, strings.Join(host.Interfaces, ", "))
		}
		for j, cpu := range nic.CPUs {
			if host.CPUs != nil && !slices.Contains(host.CPUs, cpu) {
				r.errorf(fmt.Sprintf("%s.cpus[%d]", path, j), "weir may not run on cpu %d; want one of %s", cpu, joinNumbers(host.CPUs))
			}
		}
	}
	own := make(map[netip.Addr]bool, len(host.Addresses))
	for _, a := range host.Addresses {
		own[a.Unmap().WithZone("")] = true
	}
	for i, s := range c.Services {
		for j, vip := range s.Addresses {
			if own[vip] {
				r.errorf(fmt.Sprintf("%s.addresses[%d]", servicePath(i), j), "VIP %s is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it", vip)
			}
		}
		for j, b := range s.Backends {
			if own[b.Address] {
				r.errorf(fmt.Sprintf("%s.backends[%d].address", servicePath(i), j), "%s is the box's own address; want that of another machine", b.Address)
			}
		}
	}
}

func joinNumbers(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ", "), "[]")
}
