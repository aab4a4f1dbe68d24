package site

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
	"weir/lab/traffic"
)

// The addresses of a site. Those of backends are in [Backend].
var (
	client4, client6       = netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("fd00::100")
	far4, far6             = netip.MustParseAddr("10.0.90.100"), netip.MustParseAddr("fd00:90::100")
	front4, front6         = netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")
	back4, back6           = netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00:1::/64")
	farNet4, farNet6       = netip.MustParsePrefix("10.0.90.0/24"), netip.MustParsePrefix("fd00:90::/64")
	weirFront4, weirFront6 = netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")
	weirBack4, weirBack6   = netip.MustParsePrefix("10.0.1.2/24"), netip.MustParsePrefix("fd00:1::2/64")

	routerFront4, routerFront6 = netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")
	routerBack4, routerBack6   = netip.MustParsePrefix("10.0.1.1/24"), netip.MustParsePrefix("fd00:1::1/64")
	routerFar4, routerFar6     = netip.MustParsePrefix("10.0.90.1/24"), netip.MustParsePrefix("fd00:90::1/64")

	snatFront4, snatFront6 = netip.MustParsePrefix("10.0.0.240/30"), netip.MustParsePrefix("fd00::f0/126")
	snatBack4, snatBack6   = netip.MustParsePrefix("10.0.1.240/30"), netip.MustParsePrefix("fd00:1::f0/126")

	vipDSR4, vipDSR6   = netip.MustParseAddrPort("10.0.0.200:80"), netip.MustParseAddrPort("[fd00::200]:80")
	vipIPIP4, vipIPIP6 = netip.MustParseAddrPort("10.0.0.201:80"), netip.MustParseAddrPort("[fd00::201]:80")
	vipNAT4, vipNAT6   = netip.MustParseAddrPort("10.0.0.202:80"), netip.MustParseAddrPort("[fd00::202]:80")
	vipNAT46, vipNAT64 = netip.MustParseAddrPort("10.0.0.203:80"), netip.MustParseAddrPort("[fd00::203]:80")
)

const clientTimeout = 20 * time.Second // of a client's call

func (s *Site) buildClient() (err error) {
	if s.ClientHost, err = s.Lab.Host("client"); err != nil {
		return err
	}
	s.Client = &traffic.Client{Dial: s.ClientHost.DialContext, Timeout: clientTimeout}
	_, err = s.ClientHost.Connect(s.FrontNet, netlab.Iface{Name: "eth0", Queues: s.opt.Queues, Addrs: []netip.Prefix{
		netip.PrefixFrom(client4, front4.Bits()), netip.PrefixFrom(client6, front6.Bits()),
	}})
	return err
}

func (s *Site) buildWeir() (err error) {
	if s.WeirHost, err = s.Lab.Host("weir"); err != nil {
		return err
	}
	if err := s.ConnectWeir(Front); err != nil {
		return err
	}
	if s.opt.HopMTU != 0 {
		return errors.Join(
			s.WeirHost.AddRoute(back4, routerFront4.Addr()),
			s.WeirHost.AddRoute(back6, routerFront6.Addr()))
	}
	if s.opt.TwoArmed {
		return s.ConnectWeir(Back)
	}
	return nil
}

// ConnectWeir cables one of weir's interfaces to its segment, as New does, for
// tests that have deleted it.
func (s *Site) ConnectWeir(name string) error {
	segment, iface := s.FrontNet, netlab.Iface{Name: name, Queues: s.opt.Queues, Addrs: []netip.Prefix{weirFront4, weirFront6}}
	if name == Back {
		segment, iface.Addrs, iface.MTU = s.BackNet, []netip.Prefix{weirBack4, weirBack6}, s.opt.BackMTU
	}
	_, err := s.WeirHost.Connect(segment, iface)
	return err
}

// buildRouter adds the router if there is anything behind it: on eth0 it has
// the clients' segment, on eth1 the backends', if they have one.
func (s *Site) buildRouter() (err error) {
	if !s.split() && s.opt.FarMTU == 0 {
		return nil
	}
	if s.Router, err = s.Lab.Host("router"); err != nil {
		return err
	}
	if err := s.Router.Forward(); err != nil {
		return err
	}
	if _, err := s.Router.Connect(s.FrontNet, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{routerFront4, routerFront6}}); err != nil {
		return err
	}
	if s.split() {
		iface := netlab.Iface{Name: "eth1", MTU: s.opt.HopMTU, Addrs: []netip.Prefix{routerBack4, routerBack6}}
		if _, err := s.Router.Connect(s.BackNet, iface); err != nil {
			return err
		}
	}
	if s.opt.FarMTU != 0 {
		return s.buildFar()
	}
	return nil
}

// buildFar adds the far client, on eth2 of the router.
func (s *Site) buildFar() (err error) {
	if s.FarHost, err = s.Lab.Host("far"); err != nil {
		return err
	}
	s.FarClient = &traffic.Client{Dial: s.FarHost.DialContext, Timeout: clientTimeout}
	err = s.FarHost.ConnectTo(s.Router,
		netlab.Iface{Name: "eth0", MTU: s.opt.FarMTU, Addrs: []netip.Prefix{
			netip.PrefixFrom(far4, farNet4.Bits()), netip.PrefixFrom(far6, farNet6.Bits()),
		}},
		netlab.Iface{Name: "eth2", MTU: s.opt.FarMTU, Addrs: []netip.Prefix{routerFar4, routerFar6}})
	if err != nil {
		return err
	}
	return s.FarHost.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(
			addRoute(route{to: front4, via: routerFar4.Addr(), mss: fullMSS4}, link, 0),
			addRoute(route{to: front6, via: routerFar6.Addr(), mss: fullMSS6}, link, 0))
	})
}

// Route adds a route to the calling thread's namespace, through a gateway that is
// reachable directly. One to the same prefix is replaced.
func Route(to netip.Prefix, via netip.Addr) error {
	if err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("add route to %s via %s: %w", to, via, err)
	}
	return nil
}

// route is a way to a network.
type route struct {
	to  netip.Prefix
	via netip.Addr // zero: on the link
	mss int        // announced to who is there, 0: what the link takes
}

// addRoute adds a route to a table, 0 for the main one, of the calling thread's
// namespace.
func addRoute(r route, link netlink.Link, table int) error {
	err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(r.to), Gw: r.via.AsSlice(), AdvMSS: r.mss, Table: table,
	})
	if err != nil {
		return fmt.Errorf("add route to %s via %v with mss %d: %w", r.to, r.via, r.mss, err)
	}
	return nil
}
