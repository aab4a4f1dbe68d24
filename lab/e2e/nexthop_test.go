package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/lab/site"
)

// TestBackendMovesMAC gives a backend another MAC, as a fail-over between two
// servers does: the kernel of the new one says so, and weir follows.
func TestBackendMovesMAC(t *testing.T) {
	s := startSite(t, site.Options{Backends: 1}, nil)
	b := s.Backends[0]
	s.must(b.Host.Sysctl("net.ipv4.conf.eth0.arp_notify", "1"))
	s.must(b.Host.Sysctl("net.ipv6.conf.eth0.ndisc_notify", "1"))
	for _, vip := range s.VIPs() {
		s.served(vip)
	}
	for i := range 3 {
		mac := net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
		s.must(b.Host.SetMAC("eth0", mac))
		for _, vip := range s.VIPs() {
			t.Logf("%s was served again after %v", vip, s.served(vip))
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
// nobody. Weir has to find out by itself, by asking again.
func TestBackendMovesQuietly(t *testing.T) {
	s := newSite(t, site.Options{Backends: 1, DSROnly: true})
	// Half a minute is the default for how long a kernel trusts an answer.
	s.must(s.WeirHost.Sysctl("net.ipv4.neigh.eth0.base_reachable_time_ms", "500"))
	s.must(s.WeirHost.Sysctl("net.ipv6.neigh.eth0.base_reachable_time_ms", "500"))
	s.start()
	s.served(s.DSR4)
	s.must(s.Backends[0].Host.SetMAC("eth0", net.HardwareAddr{2, 0, 0, 0, 2, 1}))
	for _, vip := range s.VIPs() {
		t.Logf("%s was served again after %v", vip, s.served(vip))
	}
}

// TestRouteMoves takes the route to a backend from one of weir's interfaces to
// the other and back.
func TestRouteMoves(t *testing.T) {
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
				for _, vip := range []netip.AddrPort{s.DSR4, s.DSR6} {
					t.Logf("by %s: %s was served after %v", want, vip, s.served(vip))
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
	s := newSite(t, site.Options{Backends: 1, DSROnly: true})
	absent := netip.MustParseAddr("10.0.0.99")
	s.Config.Service(site.DSR4).Backends[0].Address = absent.String()
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
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, DSROnly: true}, nil)
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
