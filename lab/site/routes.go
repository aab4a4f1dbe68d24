package site

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunnelled is the routing table for what the backend sends from a VIP that is
// reached through a tunnel.
const tunnelled = 100

// What is left of an MTU of 1500 for a TCP segment inside a tunnel: both IP
// headers, the outer an IPv6 one whichever it is, and 20 bytes of TCP. The
// clients take it from the backend's SYN+ACK, and weir gets no packet that is
// too long with the tunnel header.
const (
	tunnelMSS4 = 1500 - 40 - 20 - 20
	tunnelMSS6 = 1500 - 40 - 40 - 20
)

// The same without a tunnel.
const (
	fullMSS4 = 1500 - 20 - 20
	fullMSS6 = 1500 - 40 - 20
)

// family is what a backend's routes of one IP version are made of.
type family struct {
	weir, router netip.Addr     // as seen from the backend
	front, far   netip.Prefix   // where clients are
	client       netip.Prefix   // the one that is on the backend's link in a one-armed site
	vip          netip.AddrPort // of mode ipip
	full, tunnel int            // MSS
}

func (s *Site) families() []family {
	v4 := family{
		weir: weirFront4.Addr(), router: routerFront4.Addr(), front: front4, far: farNet4,
		client: netip.PrefixFrom(client4, 32), vip: vipIPIP4, full: fullMSS4, tunnel: tunnelMSS4,
	}
	v6 := family{
		weir: weirFront6.Addr(), router: routerFront6.Addr(), front: front6, far: farNet6,
		client: netip.PrefixFrom(client6, 128), vip: vipIPIP6, full: fullMSS6, tunnel: tunnelMSS6,
	}
	if s.split() {
		v4.weir, v4.router = weirBack4.Addr(), routerBack4.Addr()
		v6.weir, v6.router = weirBack6.Addr(), routerBack6.Addr()
	}
	return []family{v4, v6}
}

// toClients returns how a backend reaches the clients: on its link, through the
// router, or, where weir keeps their addresses, through weir.
func (s *Site) toClients(f family) (routes []route) {
	near, via := route{to: f.front}, f.router
	if s.split() {
		near.via = f.router
	}
	if s.opt.Modes == Keep {
		near.via, via = f.weir, f.weir
		if !s.split() {
			near.to = f.client
		}
	}
	routes = []route{near}
	if s.opt.FarMTU != 0 {
		routes = append(routes, route{to: f.far, via: via})
	}
	if s.opt.HopMTU != 0 {
		for i := range routes {
			routes[i].mss = f.full
		}
	}
	return routes
}

// backendRoutes adds the ways to the clients, and once more with a smaller MSS
// for the VIPs behind tunnels. It runs in the backend.
func (s *Site) backendRoutes() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	opt := &s.opt
	for _, f := range s.families() {
		routes := s.toClients(f)
		for _, r := range routes {
			if !r.via.IsValid() {
				continue // the kernel has it
			}
			if err := addRoute(r, link, 0); err != nil {
				return err
			}
		}
		if opt.Modes&IPIP == 0 || opt.FullMSS || opt.HopMTU != 0 {
			continue
		}
		for _, r := range routes {
			r.mss = f.tunnel
			if err := addRoute(r, link, tunnelled); err != nil {
				return err
			}
		}
		if err := addRule(f.vip.Addr()); err != nil {
			return err
		}
	}
	return nil
}

// addRule has the table for tunnels used for what is sent from an address.
func addRule(from netip.Addr) error {
	rule := netlink.NewRule()
	rule.Src, rule.Table, rule.Priority = ipNet(netip.PrefixFrom(from, from.BitLen())), tunnelled, tunnelled
	rule.Family = netlink.FAMILY_V4
	if from.Is6() {
		rule.Family = netlink.FAMILY_V6
	}
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add rule from %s: %w", from, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
