package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// validate reports what is wrong with a decoded and defaulted configuration, as
// far as the file alone can tell. It passes over values that the decoder could
// not decode: empty words, invalid addresses, zero ports.
func validate(c *Config, r *report) {
	validateInterfaces(c, r)
	validateIPIP(c, r)
	if c.StateDir == "/" {
		r.absent("", "state_dir", "the path of a folder, as "+stateDir+"; without the key it is the one of api.socket, and that is /")
	}
	v := &validator{report: r, c: c, vips: make(map[netip.Addr]string), snat: make(map[netip.Addr]string)}
	v.services()
}

func validateInterfaces(c *Config, r *report) {
	if len(c.Interfaces) == 0 {
		r.absent("", "interfaces", "at least one, as {name: eth1}")
	}
	names := make(map[string]string)
	cpus := make(map[int]string)
	for i, nic := range c.Interfaces {
		path := fmt.Sprintf("interfaces[%d]", i)
		if nic.Name == "" {
			r.absent(path, "name", "the name of an interface, as eth1")
		} else if first, ok := names[nic.Name]; ok {
			r.errorf(path+".name", "%s is here twice; the first is %s in line %d, keep one", nic.Name, first, r.pos.line(first))
		} else {
			names[nic.Name] = path + ".name"
		}
		if nic.Driver == DriverAFPacket && nic.XDPMode != XDPAuto && nic.XDPMode != "" {
			r.errorf(path+".xdp_mode", "%s is for AF_XDP, but driver is afpacket; remove it, or set driver to auto or afxdp", nic.XDPMode)
		}
		if nic.Queues != AllQueues && len(nic.CPUs) > int(nic.Queues) {
			r.warnf(path+".cpus", "there are %d cpus for %d queues; the last ones stay unused", len(nic.CPUs), nic.Queues)
		}
		for j, cpu := range nic.CPUs {
			at := fmt.Sprintf("%s.cpus[%d]", path, j)
			switch first := cpus[cpu]; {
			case cpu < 0:
			case first == "":
				cpus[cpu] = at
			case strings.HasPrefix(first, path+"."):
				r.errorf(at, "cpu %d is in this list twice; keep one", cpu)
			default:
				r.warnf(at, "cpu %d is also used by %s in line %d; their workers share it", cpu, first, r.pos.line(first))
			}
		}
	}
}

// minFreeBits is how many low bits of a source prefix must be free: as many as
// the source port that RSS on the backend would otherwise hash.
const minFreeBits = 16

func validateIPIP(c *Config, r *report) {
	family := func(path string, a netip.Addr, v6 bool) {
		switch {
		case !a.IsValid():
		case a.Is4() && v6:
			r.errorf(path, "%s is IPv4; want an IPv6 address, this one belongs into %s", a, path[:len(path)-1])
		case !a.Is4() && !v6:
			r.errorf(path, "%s is not IPv4; want an IPv4 address, IPv6 belongs into %s6", a, path)
		default:
			if problem := unusable(a); problem != "" {
				r.errorf(path, "%s is %s; want a unicast address", a, problem)
			}
		}
	}
	prefix := func(path, other string, p netip.Prefix, a netip.Addr, v6 bool) {
		if !p.IsValid() {
			return
		}
		longest := p.Addr().BitLen() - minFreeBits
		switch {
		case p.Addr().Is4() == v6:
			family(path, p.Addr(), v6)
		case p.Bits() > longest:
			r.errorf(path, "%s leaves %d bits for the flow; want /%d or shorter, that is at least %d bits", p, p.Addr().BitLen()-p.Bits(), longest, minFreeBits)
		case p.Bits() < 8:
			r.errorf(path, "%s is far more than can be set aside as a source; want /8 or longer", p)
		default:
			family(path, p.Addr(), v6)
		}
		if a.IsValid() {
			r.errorf(path, "is given next to %s in line %d; keep one of them", other, r.pos.line(other))
		}
	}
	family("ipip.source", c.IPIP.Source, false)
	family("ipip.source6", c.IPIP.Source6, true)
	prefix("ipip.source_prefix", "ipip.source", c.IPIP.SourcePrefix, c.IPIP.Source, false)
	prefix("ipip.source_prefix6", "ipip.source6", c.IPIP.SourcePrefix6, c.IPIP.Source6, true)

	tunnels := slices.ContainsFunc(c.Services, func(s Service) bool { return s.Mode == ModeIPIP })
	if c.IPIP != (IPIP{}) && !tunnels {
		r.warnf("ipip", "no service has mode ipip; this is not used")
	}
}

// unusable names the kind of address a is if no server, and no VIP, can be
// reached at it from elsewhere; RFC 6890 and RFC 4291 section 2.4.
func unusable(a netip.Addr) string {
	switch {
	case a.Is4In6():
		return "an IPv4-mapped IPv6 address"
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}
