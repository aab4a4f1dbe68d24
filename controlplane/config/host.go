package config

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// Host is what Parse must know about the box. The caller gathers it.
type Host struct {
	Interfaces  []string       // names of the network interfaces
	NotEthernet []string       // those of them without a MAC of 6 bytes: lo, tunnels
	Addresses   []netip.Prefix // the box's own, those of all interfaces, each with the length of its network's prefix
	CPUs        []int          // those the process may run on; nil: not known
	Memory      uint64         // of the box, in bytes; 0: not known
}

// validateOn reports what in c does not fit the host. Values that could not be
// parsed are zero and have been reported.
func validateOn(c *Config, host *Host, r *report) {
	for i, nic := range c.Interfaces {
		path := fmt.Sprintf("interfaces[%d]", i)
		ethernet := func(name string) bool { return !slices.Contains(host.NotEthernet, name) }
		switch {
		case nic.Name == "":
		case !slices.Contains(host.Interfaces, nic.Name):
			r.errorf(path+".name", "unknown interface %s; this box has %s", nic.Name, strings.Join(host.Interfaces, ", "))
		case !ethernet(nic.Name):
			usable := slices.DeleteFunc(slices.Clone(host.Interfaces), func(name string) bool { return !ethernet(name) })
			r.errorf(path+".name", "%s is a loopback or tunnel, or else not Ethernet; want an interface with a MAC address, this box has %s", nic.Name, cmp.Or(strings.Join(usable, ", "), "none"))
		}
		for j, cpu := range nic.CPUs {
			if host.CPUs != nil && !slices.Contains(host.CPUs, cpu) {
				r.errorf(fmt.Sprintf("%s.cpus[%d]", path, j), "weir may not run on cpu %d; want one of %s", cpu, joinNumbers(host.CPUs))
			}
		}
	}
	addressesOn(c, host, r)
	flowsOn(c, host, r)
}

func addressesOn(c *Config, host *Host, r *report) {
	own := make(map[netip.Addr]bool, len(host.Addresses))
	reserved := make(map[netip.Addr]string)
	for _, p := range host.Addresses {
		a := p.Addr().Unmap().WithZone("")
		own[a] = true
		if a.Is4() && p.Addr().Is4() && p.Bits() <= 30 { // RFC 3021: a /31 has neither of them
			first := p.Masked().Addr()
			reserved[first] = fmt.Sprintf("the network address of %s", p.Masked())
			reserved[last(p)] = fmt.Sprintf("the broadcast address of %s", p.Masked())
		}
	}
	for i, s := range c.Services {
		for j, vip := range s.Addresses {
			at := fmt.Sprintf("%s.addresses[%d]", servicePath(i), j)
			if own[vip] {
				r.errorf(at, "VIP %s is also the box's own address; remove it from the interface, weir answers ARP, NDP and ping for it", vip)
			} else if what := reserved[vip]; what != "" {
				r.errorf(at, "VIP %s is %s, which this box is in; want another address", vip, what)
			}
		}
		for j, b := range s.Backends {
			if own[b.Address] {
				r.errorf(fmt.Sprintf("%s.backends[%d].address", servicePath(i), j), "%s is the box's own address; want that of another machine", b.Address)
			}
		}
	}
	snatOn(c, own, reserved, r)
	poolsOn(c, host, reserved, r)
	for _, e := range c.endpoints() {
		if e.own && e.address.IsValid() && !e.address.IsUnspecified() && !e.address.IsLoopback() && !own[e.address] {
			r.errorf(e.path, "%s is not an address of this box; want one that is, or remove it, and the box chooses", e.address)
		}
	}
	for _, source := range []struct {
		path   string
		prefix netip.Prefix
	}{{"ipip.source_prefix", c.IPIP.SourcePrefix}, {"ipip.source_prefix6", c.IPIP.SourcePrefix6}} {
		for _, p := range host.Addresses {
			if a := p.Addr().Unmap().WithZone(""); source.prefix.Contains(a) {
				r.warnf(source.path, "%s contains the box's own address %s, so that tunnelled packets can seem to be the box's own; better is a prefix that nothing else has addresses in", source.prefix, a)
				break
			}
		}
	}
}

// snatOn reports SNAT addresses that are the box's own but not said to be, and
// those that are said to be but are not.
func snatOn(c *Config, own map[netip.Addr]bool, reserved map[netip.Addr]string, r *report) {
	tooMany := c.tooManySNAT() // which has been reported
	for _, s := range c.snat {
		if tooMany {
			break
		}
		at := s.path
		for a := range s.all() {
			if own[a] {
				r.errorf(at, "%s is the box's own address; want addresses that are weir's alone, or list it under nat.shared.addresses with the ports that weir may have of it", a)
				break
			} else if what := reserved[a]; what != "" {
				r.errorf(at, "%s is %s, which this box is in; want other addresses", a, what)
				break
			}
		}
	}
	for i, a := range c.NAT.Shared.Addresses {
		if a.IsValid() && !own[a] {
			r.errorf(fmt.Sprintf("nat.shared.addresses[%d]", i), "%s is not an address of this box; want one that is, or list it under nat.addresses", a)
		}
	}
}

// poolsOn reports ranges of pools with addresses that the box has, or that its
// networks reserve, once for each range.
func poolsOn(c *Config, host *Host, reserved map[netip.Addr]string, r *report) {
	reported := make(map[string]bool)
	check := func(a netip.Addr, what, hint string) {
		i, j, ok := c.inPool(a)
		at := rangePath(i, j)
		if !ok || what == "" || c.Pools[i].avoids(a) || reported[at] {
			return
		}
		reported[at] = true
		r.errorf(at, "%s of pool %s contains %s, %s; want ranges without it%s", c.Pools[i].Ranges[j], c.Pools[i].Name, a, what, hint)
	}
	for _, p := range host.Addresses {
		check(p.Addr().Unmap().WithZone(""), "the box's own address", "")
	}
	for _, p := range host.Addresses {
		for _, a := range []netip.Addr{p.Masked().Addr(), last(p)} {
			hint := ""
			if buggy(a) {
				hint = ", or avoid_buggy_ips: true"
			}
			what := reserved[a]
			if what != "" {
				what += ", which this box is in"
			}
			check(a, what, hint)
		}
	}
}

// What each entry of a flow table takes, in bytes: flow.New takes it all at once,
// and rounds the entries up to a power of two; so does nat.NewIndex, as soon as a
// service has mode nat.
const (
	flowBytes  = 72
	indexBytes = 16
)

// flowsOn checks that the flow tables of all workers fit into memory. How many
// queues "all" are is not known here, so it counts as one.
func flowsOn(c *Config, host *Host, r *report) {
	const path = "flows.entries"
	if host.Memory == 0 || r.broken[path] {
		return
	}
	var workers uint64
	for _, nic := range c.Interfaces {
		workers += uint64(max(1, nic.Queues))
	}
	workers = max(1, workers)
	each := workers * flowBytes
	if slices.ContainsFunc(c.Services, func(s Service) bool { return s.Mode == ModeNAT }) {
		each += workers * indexBytes
	}
	need := each << bits.Len(uint(c.Flows.Entries-1))
	if need <= host.Memory {
		return
	}
	fits := uint64(minEntries)
	for 2*fits*each <= host.Memory {
		fits *= 2
	}
	r.errorf(path, "%d entries for each of at least %d workers take %s, but this box has %s of memory; want at most %d", c.Flows.Entries, workers, mebibytes(need), mebibytes(host.Memory), fits)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

func joinNumbers(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ", "), "[]")
}
