package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// soon is how long weir may take to follow a backend. On a machine that has
// nothing else to do it is about a second; a kernel with its default settings
// would go on with the old MAC for a quarter of a minute at least.
const soon = 5 * time.Second

// followed logs how long weir has taken, and fails the test if it was too long.
func (s *testSite) followed(what string, changed time.Time) {
	s.t.Helper()
	took := time.Since(changed)
	s.t.Logf("%s %v after the change", what, took.Round(time.Millisecond))
	if took > soon {
		s.t.Errorf("%s only %v after the change, want %v", what, took, soon)
	}
}

// TestBackendMovesMAC gives a backend another MAC, as a fail-over between two
// servers does: the kernel of the new one says so, and weir follows.
func TestBackendMovesMAC(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Backends: 1}, nil)
	b := s.Backends[0]
	s.must(b.Host.Sysctl("net.ipv4.conf.eth0.arp_notify", "1"))
	s.must(b.Host.Sysctl("net.ipv6.conf.eth0.ndisc_notify", "1"))
	for _, vip := range s.VIPs() {
		s.served(vip)
	}
	for i := range 3 {
		mac := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
		changed := time.Now()
		s.must(b.Host.SetMAC("eth0", mac))
		for _, vip := range s.VIPs() {
			s.served(vip)
			s.followed(vip.String()+" was served again", changed)
		}
		for _, v := range []struct {
			service string
			addr    netip.Addr
		}{{site.DSR4, b.Addr4}, {site.DSR6, b.Addr6}} {
			if got := s.backend(v.service, v.addr).Path; got == nil || got.DstMAC != mac.String() {
				t.Errorf("the api has path %+v to %s, want %s", got, v.addr, mac)
			}
		}
	}
}

// TestBackendMovesQuietly swaps a backend for one with another MAC that tells
// nobody. Weir has to find out by itself, by asking again; flows that are open
// go on, too.
func TestBackendMovesQuietly(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Backends: 1, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR}, nil)
		var flows []*traffic.EchoConn
		for _, vip := range s.VIPs() {
			s.served(vip)
			flows = append(flows, s.newFlow(vip))
		}
		for i := range 3 {
			for _, flow := range flows {
				if r := flow.Echo(s.ctx, []byte("before")); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			// Within a second after a change the kernel takes no other MAC (locktime).
			time.Sleep(1500*time.Millisecond + time.Duration(i)*200*time.Millisecond)
			changed := time.Now()
			s.must(s.Backends[0].Host.SetMAC("eth0", net.HardwareAddr{2, 0, 0, 0, 2, byte(i)}))
			for n, vip := range s.VIPs() {
				s.served(vip)
				s.followed(vip.String()+" was served again", changed)
				s.await("the flow goes on", func() error {
					ctx, cancel := context.WithTimeout(s.ctx, 50*time.Millisecond)
					defer cancel()
					return flows[n].Echo(ctx, []byte("after")).Err
				})
				s.followed("a flow of "+vip.String()+" went on", changed)
			}
		}
	}, xdpCopy, afPacket)
}

// TestRouteMoves takes the route to a backend from one of weir's interfaces to
// the other and back.
func TestRouteMoves(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]driver{{xdpCopy, xdpCopy}, {xdpCopy, afPacket}} {
		t.Run(pair[0].name+"-"+pair[1].name, func(t *testing.T) {
			s := newSite(t, site.Options{Backends: 1, TwoArmed: true})
			for i, d := range pair {
				s.Config.Interfaces[i].Driver, s.Config.Interfaces[i].XDPMode = d.driver, d.xdpMode
			}
			b := s.Backends[0]
			// The backend is on the front segment as well, with the same addresses.
			_, err := b.Host.Connect(s.FrontNet, netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{
				netip.PrefixFrom(b.Addr4, 32), netip.PrefixFrom(b.Addr6, 128),
			}})
			s.must(err)
			s.start()
			for _, want := range []string{site.Back, site.Front, site.Back} {
				changed := time.Now()
				s.must(s.routeBackend(b, want == site.Front))
				s.await("the path leaves by "+want, func() error {
					for _, v := range []struct {
						service string
						addr    netip.Addr
					}{{site.DSR4, b.Addr4}, {site.DSR6, b.Addr6}} {
						if got := s.backend(v.service, v.addr); got.Status != "up" || got.Path == nil || got.Path.Interface != want {
							return fmt.Errorf("backend %s is %s by %+v: %s", v.addr, got.Status, got.Path, got.Reason)
						}
					}
					return nil
				})
				s.followed("the paths led by "+want, changed)
				for _, vip := range []netip.AddrPort{s.DSR4, s.DSR6} {
					s.served(vip)
					s.followed(vip.String()+" was served by "+want, changed)
				}
			}
		})
	}
}

// routeBackend gives weir's host a route to the backend by the front interface,
// or takes it away.
func (s *testSite) routeBackend(b *site.Backend, front bool) error {
	return s.WeirHost.Do(func() error {
		ifi, err := netlink.LinkByName(site.Front)
		if err != nil {
			return err
		}
		for _, addr := range []netip.Addr{b.Addr4, b.Addr6} {
			route := &netlink.Route{LinkIndex: ifi.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{
				IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen()),
			}}
			if front {
				err = errors.Join(err, netlink.RouteReplace(route))
				continue
			}
			if e := netlink.RouteDel(route); !errors.Is(e, unix.ESRCH) {
				err = errors.Join(err, e)
			}
		}
		return err
	})
}

// TestUnresolvedBackend has a service whose only backend does not exist.
func TestUnresolvedBackend(t *testing.T) {
	t.Parallel()
	s := newSite(t, site.Options{Backends: 1, Modes: site.DSR})
	absent := netip.MustParseAddr("10.0.0.99")
	s.Config.Service(site.DSR4).Backends[0].Address = absent.String()
	announceAlways(s.Config)
	s.must(s.StartWeir(s.ctx))
	s.await("the backend is not usable, and why", func() error {
		if b := s.backend(site.DSR4, absent); b.Status != "unreachable" || b.Reason == "" || b.Path != nil {
			return fmt.Errorf("it is %s by %+v because of %q", b.Status, b.Path, b.Reason)
		}
		return nil
	})
	t.Log(s.backend(site.DSR4, absent).Reason)
	if r := s.Client.Echo(contextFor(t, shortly), s.DSR4, []byte("anybody there?")); r.Err == nil {
		t.Errorf("answered: %v", r)
	}
	s.await("the datagram is counted as unresolved", func() error {
		if n := s.drops()["unresolved"]; n != 1 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	s.served(s.DSR6) // the other service does not suffer

	// Now it appears.
	s.must(s.Backends[0].Host.AddAddr("eth0", netip.PrefixFrom(absent, 24)))
	t.Logf("the backend was found after %v", s.served(s.DSR4))
}

// TestWeirMovesMAC changes the MAC of weir's own interface while it runs.
func TestWeirMovesMAC(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR}, nil)
		for _, vip := range s.VIPs() {
			s.served(vip)
		}
		mac := net.HardwareAddr{2, 0, 0, 0, 3, 1}
		s.must(s.WeirHost.SetMAC(site.Front, mac))
		for _, vip := range s.VIPs() {
			t.Logf("%s was served again after %v", vip, s.served(vip))
			s.await("the client has the new address", func() error {
				if got := s.neighbour(s.ClientHost, vip.Addr()); !bytes.Equal(got, mac) {
					return fmt.Errorf("it has %s at %s, want %s", vip.Addr(), got, mac)
				}
				return nil
			})
		}
	}, xdpCopy, afPacket)
}
