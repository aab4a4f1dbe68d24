package pair

import (
	"fmt"
	"net/netip"

	"weir/lab/site"
)

// config returns the configuration that weir number i, from 0, starts with: all
// services, with all backends of the kind behind each.
func (p *Pair) config(i int) *site.Config {
	c := &site.Config{
		Node:       p.Weirs[i].Name,
		Interfaces: []site.Interface{{Name: Front, Driver: p.opt.Driver, XDPMode: p.opt.XDPMode}},
		Flows:      site.Flows{Entries: site.FlowEntries},
	}
	tunnelled := p.Remote
	if p.opt.Together {
		tunnelled = p.Backends
	}
	for _, s := range []struct {
		of       site.Modes
		name     string
		mode     string
		vip      netip.AddrPort
		backends []*site.Backend
	}{
		{site.DSR, site.DSR4, "dsr", p.DSR4, p.Backends}, {site.DSR, site.DSR6, "dsr", p.DSR6, p.Backends},
		{site.IPIP, site.IPIP4, "ipip", p.IPIP4, tunnelled}, {site.IPIP, site.IPIP6, "ipip", p.IPIP6, tunnelled},
		{site.NAT, site.NAT4, "nat", p.NAT4, p.Backends}, {site.NAT, site.NAT6, "nat", p.NAT6, p.Backends},
	} {
		if p.opt.Modes&s.of == 0 {
			continue
		}
		v := site.NewService(s.name, s.mode, s.vip, s.backends, s.vip.Addr().Is6())
		v.Ports = append(v.Ports, fmt.Sprintf("tcp/%d", site.StreamPort))
		v.Health = site.FastHealth()
		if s.of == site.NAT {
			v.Ports = v.Ports[:2] // with streams it would need a port of its own
			v.SetPort(site.WebPort)
		}
		c.Services = append(c.Services, v)
	}
	if p.opt.Modes&site.NAT != 0 {
		c.NAT.Nodes = make(map[string][]string)
		for n, w := range p.Weirs {
			c.NAT.Nodes[w.Name] = []string{fmt.Sprintf("10.0.0.%d/31", 240+2*n), fmt.Sprintf("fd00::%x/127", 0xf0+2*n)}
		}
	}
	if p.opt.Pool {
		pool := site.Pool{Name: PoolName, Addresses: p.poolRanges()}
		if p.opt.AllActive {
			pool.L2 = &site.PoolL2{AllActive: true}
		}
		if p.opt.Routing != NoRouter {
			pool.Announce = &[]string{"bgp"}
		}
		c.Pools = []site.Pool{pool}
	}
	if p.opt.Routing == NoRouter && len(p.Weirs) > 1 {
		c.Cluster = p.cluster(i)
	}
	if p.opt.Routing != NoRouter {
		c.BGP = p.bgp()
	}
	return c
}

func (p *Pair) cluster(i int) *site.Cluster {
	c := &site.Cluster{Bind: netip.AddrPortFrom(p.Weirs[i].Addr4, GossipPort).String(), Key: p.key}
	for n, w := range p.Weirs {
		if n != i {
			c.Peers = append(c.Peers, w.Addr4.String())
		}
	}
	return c
}

// bgp has a session for each family, with timers as short as they can be.
func (p *Pair) bgp() *site.BGP {
	b := &site.BGP{ASN: WeirAS, ShutdownDelay: "500ms"}
	for _, peer := range []site.BGPPeer{{Name: "r4", Address: routerFront4.Addr().String()}, {Name: "r6", Address: routerFront6.Addr().String()}} {
		peer.ASN, peer.HoldTime, peer.KeepaliveTime, peer.ConnectRetry = RouterAS, "3s", "1s", "1s"
		b.Peers = append(b.Peers, peer)
	}
	return b
}
