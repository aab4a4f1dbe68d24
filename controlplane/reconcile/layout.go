package reconcile

import (
	"net/netip"

	"weir/controlplane/config"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
)

// layout is what follows from a configuration alone. It is never changed once made,
// and made once for each configuration.
type layout struct {
	config    *config.Config
	groups    [][]group // by service
	starts    []uint32  // by service: the index of its first group in a snapshot
	vips      []Address // each once, in the order of groups; Ready and Reason are not known
	policies  []policy  // of vips
	claims    []snapshot.VIPSpec
	byName    map[string]int // index in the configuration
	members   memberIndex
	steered   []netip.Addr // all that are weir's alone
	tunnelled []netip.Addr
}

// policy is how a VIP behaves as a host.
type policy struct {
	addr   [16]byte
	ping   config.Ping
	reject snapshot.Reject
}

func layoutOf(cfg *config.Config) *layout {
	l := &layout{
		config: cfg, groups: make([][]group, len(cfg.Services)), starts: make([]uint32, len(cfg.Services)),
		byName: make(map[string]int, len(cfg.Services)), members: newMemberIndex(cfg), steered: Addresses(cfg), tunnelled: tunnelled(cfg),
	}
	index := uint32(0)
	numbers := make(map[netip.Addr]uint32) // in vips
	for i := range cfg.Services {
		s := &cfg.Services[i]
		l.byName[s.Name] = i
		l.groups[i], l.starts[i] = groups(s), index
		for k := range l.groups[i] {
			g := &l.groups[i][k]
			for _, a := range g.vips {
				n, known := numbers[a]
				if !known {
					n = uint32(len(l.vips))
					numbers[a] = n
					l.vips = append(l.vips, Address{Address: a})
					l.policies = append(l.policies, policyOf(s, a))
				}
				g.numbers = append(g.numbers, n)
				l.vips[n].announce(cfg.PoolOf(a), s)
				for _, p := range s.Ports {
					l.claims = append(l.claims, snapshot.VIPSpec{
						Addr: packet.Addr16(a), Proto: uint8(p.Proto), Lo: p.Lo, Hi: p.Hi, Service: index,
					})
				}
			}
			index++
		}
	}
	return l
}

// policyOf returns the policy of a VIP. Services that share one agree on it.
func policyOf(s *config.Service, a netip.Addr) policy {
	p := policy{addr: packet.Addr16(a), ping: s.Ping}
	switch s.Reject {
	case config.RejectICMP:
		p.reject = snapshot.RejectICMP
	case config.RejectRST:
		p.reject = snapshot.RejectReset
	}
	return p
}

// memberIndex finds the services that have a backend.
type memberIndex struct {
	first   map[netip.Addr]int32 // in the lists, by backend
	service []int32              // index in the configuration
	next    []int32              // with the same backend; -1 for none
}

func newMemberIndex(cfg *config.Config) memberIndex {
	n := 0
	for i := range cfg.Services {
		n += len(cfg.Services[i].Backends)
	}
	x := memberIndex{first: make(map[netip.Addr]int32, n), service: make([]int32, 0, n), next: make([]int32, 0, n)}
	for i := range cfg.Services {
		for k := range cfg.Services[i].Backends {
			addr := cfg.Services[i].Backends[k].Address
			next, known := x.first[addr]
			if !known {
				next = -1
			}
			x.first[addr] = int32(len(x.service))
			x.service, x.next = append(x.service, int32(i)), append(x.next, next)
		}
	}
	return x
}

func (x *memberIndex) has(backend netip.Addr) bool {
	_, known := x.first[backend]
	return known
}

// each calls do with the index of each service that has a backend.
func (x *memberIndex) each(backend netip.Addr, do func(service int)) {
	at, known := x.first[backend]
	if !known {
		return
	}
	for ; at >= 0; at = x.next[at] {
		do(int(x.service[at]))
	}
}

// families returns which families of VIPs a service has: false IPv4, true IPv6.
func families(s *config.Service) []bool {
	var has [2]bool
	for _, a := range s.Addresses {
		if a.Is6() {
			has[1] = true
		} else {
			has[0] = true
		}
	}
	var all []bool
	if has[0] {
		all = append(all, false)
	}
	if has[1] {
		all = append(all, true)
	}
	return all
}

// Serves tells whether a backend serves VIPs of a family: any does through a
// tunnel or by SNAT, one of the same family if packets keep the client's address.
func Serves(s *config.Service, backend netip.Addr, ipv6 bool) bool {
	mixes := s.Mode == config.ModeIPIP || s.Mode == config.ModeNAT && s.ClientAddress == config.ClientSNAT
	return mixes || backend.Is6() == ipv6
}

// backendsOf returns the indices of the backends that serve VIPs of a family.
func backendsOf(s *config.Service, ipv6 bool) []int {
	var all []int
	for i := range s.Backends {
		if Serves(s, s.Backends[i].Address, ipv6) {
			all = append(all, i)
		}
	}
	return all
}

// group is VIPs of a service, of one family, that the same backends serve.
type group struct {
	ipv6    bool
	vips    []netip.Addr
	numbers []uint32   // of vips in the layout
	vip     netip.Addr // the only one, if each is judged by itself; else not valid
}

// groups returns the parts that a service is compiled in: one for each VIP if the
// backends have to hold it, so that one that lacks one still serves the others; else
// one for each family. Whether there are checks does not matter, or flows would lose
// their backends when checks are added.
func groups(s *config.Service) []group {
	var all []group
	for _, ipv6 := range families(s) {
		g := group{ipv6: ipv6}
		for _, a := range s.Addresses {
			switch {
			case a.Is6() != ipv6:
			case s.Mode != config.ModeNAT:
				all = append(all, group{ipv6: ipv6, vips: []netip.Addr{a}, vip: a})
			default:
				g.vips = append(g.vips, a)
			}
		}
		if len(g.vips) > 0 {
			all = append(all, g)
		}
	}
	return all
}
