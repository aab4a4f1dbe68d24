package e2e

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/controlplane/api"
	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// TestKeep has weir keep the clients' addresses: the backends see them, and
// their answers, which go to weir's host for want of another way, come from the
// VIP. The kernel of that host forwards nothing. With several queues, most
// answers arrive at another worker than the question did.
func TestKeep(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		for name, twoArmed := range map[string]bool{"onearmed": false, "twoarmed": true} {
			t.Run(name, func(t *testing.T) {
				s := startSite(t, site.Options{
					TwoArmed: twoArmed, FarMTU: 1500, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.Keep,
				}, nil)
				for _, vip := range []netip.AddrPort{s.NAT4, s.NAT6} {
					for _, from := range []struct {
						client *traffic.Client
						host   *netlab.Host
						v4, v6 netip.Addr
					}{{s.Client, s.ClientHost, s.Client4, s.Client6}, {s.FarClient, s.FarHost, s.Far4, s.Far6}} {
						t.Run(from.host.Name()+"-"+vip.Addr().String(), func(t *testing.T) {
							s := s.in(t)
							addr := from.v4
							if vip.Addr().Is6() {
								addr = from.v6
							}
							s.checkKeep(from.client, from.host, addr, vip)
						})
					}
				}
				s.noDrops()
				for _, w := range get[[]api.Worker](s, "workers") {
					if w.Error != "" || w.Received.Packets == 0 {
						t.Errorf("worker %d of %s has received %d packets, error %q", w.Queue, w.Interface, w.Received.Packets, w.Error)
					}
				}
				if got := s.readSetting(s.WeirHost, "net.ipv4.ip_forward"); got != "0" {
					t.Errorf("weir's host forwards by itself: ip_forward is %s", got)
				}
			})
		}
	}, combo{xdpCopy, 4}, combo{afPacket, 4}, combo{xdpCopy, 1})
}

func (s *testSite) checkKeep(client *traffic.Client, host *netlab.Host, addr netip.Addr, vip netip.AddrPort) {
	s.t.Helper()
	if r := client.Fetch(s.ctx, vip, 10*megabyte); r.Err != nil {
		s.t.Errorf("download: %v", r)
	}
	if r := client.Upload(s.ctx, vip, 4*megabyte); r.Err != nil {
		s.t.Errorf("upload: %v", r)
	}
	who, err := client.WhoAmI(s.ctx, vip)
	if err != nil {
		s.t.Errorf("who am i: %v", err)
	} else if b := s.backendNamed(who.Backend); who.Client.Addr() != addr || who.VIP.Addr() != addrOf(b, vip.Addr().Is6()) || who.VIP.Port() != site.HealthPort {
		s.t.Errorf("the backend sees %s talk to %s, want %s and its own address", who.Client, who.VIP, addr)
	}
	for range 64 {
		*s.port++
		from := *client
		from.Dial = host.DialFrom(netip.AddrPortFrom(addr, *s.port))
		flow, err := from.OpenEcho(s.ctx, vip)
		s.must(err)
		if r := flow.Echo(s.ctx, []byte("keep")); r.Err != nil {
			s.t.Error(r)
		} else if flow.Client != r.Local {
			s.t.Errorf("the backend sees the datagrams of %s as those of %s", r.Local, flow.Client)
		}
		flow.Close()
	}
}

// TestAnswersGoBack has a client behind two routers, in a network that weir's
// host has no route to. Answers go to the router that the latest question came
// from: the one that it did not come from cannot pass any.
func TestAnswersGoBack(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{
			FarMTU: 1500, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT,
		}, nil)
		second := s.secondRouter()
		var streams []*traffic.EchoConn
		for _, n := range s.natCases() {
			if r := s.FarClient.Fetch(s.ctx, n.vip, 4*megabyte); r.Err != nil {
				t.Error(r)
			}
			flow, err := s.FarClient.OpenEcho(s.ctx, n.vip)
			s.must(err)
			defer flow.Close()
			streams = append(streams, flow)
			if r := flow.Echo(s.ctx, []byte("by the first")); r.Err != nil {
				t.Error(r)
			}
		}
		s.must(errors.Join(
			s.Router.Sysctl("net.ipv4.ip_forward", "0"),
			s.Router.Sysctl("net.ipv6.conf.all.forwarding", "0")))
		second()
		for i, n := range s.natCases() {
			// Address resolution takes the kernels a moment, and may lose a datagram.
			s.await(n.service+" goes on by the second router", func() error {
				ctx, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
				defer cancel()
				return streams[i].Echo(ctx, []byte("by the second")).Err
			})
			if r := s.FarClient.Fetch(s.ctx, n.vip, 4*megabyte); r.Err != nil {
				t.Error(r)
			}
		}
		s.noDrops()
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// secondRouter adds a router beside the first, and returns what makes the far
// client send through it.
func (s *testSite) secondRouter() (use func()) {
	s.t.Helper()
	router, err := s.Lab.Host("router2")
	s.must(err)
	s.must(errors.Join(
		router.Sysctl("net.ipv4.ip_forward", "1"),
		router.Sysctl("net.ipv6.conf.all.forwarding", "1")))
	_, err = router.Connect(s.FrontNet, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.3/24"), netip.MustParsePrefix("fd00::3/64"),
	}})
	s.must(err)
	via4, via6 := netip.MustParsePrefix("10.0.91.1/24"), netip.MustParsePrefix("fd00:91::1/64")
	s.must(s.FarHost.ConnectTo(router,
		netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{
			netip.MustParsePrefix("10.0.91.100/24"), netip.MustParsePrefix("fd00:91::100/64"),
		}},
		netlab.Iface{Name: "eth2", Addrs: []netip.Prefix{via4, via6}}))
	s.must(errors.Join(
		router.AddRoute(netip.PrefixFrom(s.Far4, 32), netip.MustParseAddr("10.0.91.100")),
		router.AddRoute(netip.PrefixFrom(s.Far6, 128), netip.MustParseAddr("fd00:91::100"))))
	return func() {
		s.t.Helper()
		front4, front6 := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")
		s.must(s.FarHost.Do(func() error { // routes with another gateway would stay beside the new ones
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
			for _, r := range routes {
				if len(r.Gw) > 0 {
					err = errors.Join(err, netlink.RouteDel(&r))
				}
			}
			return err
		}))
		s.must(errors.Join(
			s.FarHost.AddRoute(front4, via4.Addr()),
			s.FarHost.AddRoute(front6, via6.Addr())))
	}
}
