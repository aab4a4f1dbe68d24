package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weir/lab/netlab"
	"weir/lab/site"
)

// mtuCase is a service, and the path MTU that its clients have to learn.
type mtuCase struct {
	name string
	vip  netip.AddrPort
	want int
}

// wantPathMTU fails the test if a host's kernel believes in another MTU.
func (s *testSite) wantPathMTU(h *netlab.Host, addr netip.Addr, want int) {
	s.t.Helper()
	if got, err := h.PathMTU(addr); err != nil || got != want {
		s.t.Errorf("%s has path MTU %d to %s (%v), want %d", h.Name(), got, addr, err, want)
	}
}

// learns has the client send packets as long as its link takes. They do not fit
// the way behind weir; the client's kernel is told, and goes on with shorter
// ones.
func (s *testSite) learns(c mtuCase) {
	s.t.Helper()
	s.wantPathMTU(s.ClientHost, c.vip.Addr(), 1500)
	for _, transfer := range []func() error{
		func() error { return s.Client.Upload(s.ctx, c.vip, 10*megabyte).Err },
		func() error { return s.Client.Fetch(s.ctx, c.vip, 10*megabyte).Err },
	} {
		if err := transfer(); err != nil {
			s.t.Error(err)
		}
	}
	// That may have needed nothing but a smaller MSS. A datagram has none.
	s.await("a datagram is answered", func() error {
		ctx, cancel := context.WithTimeout(s.ctx, 200*time.Millisecond)
		defer cancel()
		return s.Client.Echo(ctx, c.vip, fullPacket(c.vip.Addr())).Err
	})
	s.wantPathMTU(s.ClientHost, c.vip.Addr(), c.want)
}

// fullPacket is the payload of an echo that has a packet of 1500 bytes.
func fullPacket(addr netip.Addr) []byte {
	const udp, sequence = 8, 8
	if addr.Is6() {
		return make([]byte, 1500-40-udp-sequence)
	}
	return make([]byte, 1500-20-udp-sequence)
}

// TestNarrowEgress has weir send to backends by an interface that takes less
// than the clients'. Mode nat says so in the MSS; a datagram in answer would be
// lost before it reached weir, which no load balancer can help.
func TestNarrowEgress(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{
			TwoArmed: true, BackMTU: 1400, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR | site.IPIP | site.NAT, FullMSS: true,
		}, nil)
		for _, c := range []mtuCase{
			{"dsr-4", s.DSR4, 1400}, {"dsr-6", s.DSR6, 1400},
			{"ipip-4in4", s.IPIP4, 1380}, {"ipip-6in6", s.IPIP6, 1360},
		} {
			t.Run(c.name, func(t *testing.T) { s.in(t).learns(c) })
		}
		for _, n := range s.natCases() {
			if r := s.Client.Upload(s.ctx, n.vip, 10*megabyte); r.Err != nil {
				t.Error(r)
			}
			if r := s.Client.Fetch(s.ctx, n.vip, 10*megabyte); r.Err != nil {
				t.Error(r)
			}
			s.wantPathMTU(s.ClientHost, n.vip.Addr(), 1500)
		}
	}, xdpCopy, afPacket)
}

// TestTunnelHeader has no narrow link: it is the tunnel's header that makes
// packets too long.
func TestTunnelHeader(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.IPIP, FullMSS: true}, nil)
		for _, c := range []mtuCase{{"ipip-4in4", s.IPIP4, 1480}, {"ipip-6in6", s.IPIP6, 1460}} {
			t.Run(c.name, func(t *testing.T) { s.in(t).learns(c) })
		}
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// TestNarrowHop has a hop of 1400 bytes between weir and its backends, and only
// that router knows. What it says of the tunnels' packets, weir has to learn;
// what it says of translated ones, the client. Services share no backend, so
// that each has to learn by itself.
func TestNarrowHop(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := newSite(t, site.Options{Backends: 3, HopMTU: 1400, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.IPIP | site.NAT})
		for name, backend := range map[string]int{
			site.NAT4: 0, site.NAT6: 0, site.NAT46: 1, site.NAT64: 1, site.IPIP4: 2, site.IPIP6: 2,
		} {
			v := s.Config.Service(name)
			v.Backends = v.Backends[backend : backend+1]
		}
		s.start()
		for _, c := range []mtuCase{
			{"nat-4", s.NAT4, 1400}, {"nat-6", s.NAT6, 1400},
			{"nat-46", s.NAT46, 1380}, {"nat-64", s.NAT64, 1420},
			{"ipip-4in4", s.IPIP4, 1380}, {"ipip-6in6", s.IPIP6, 1360},
		} {
			t.Run(c.name, func(t *testing.T) { s.in(t).learns(c) })
		}
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// TestConfiguredMTU tells weir of such a hop in the configuration.
func TestConfiguredMTU(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Modes: site.DSR | site.IPIP | site.NAT, FullMSS: true}, func(c *site.Config) {
		c.PathMTU = "fixed"
		for i := range c.Services {
			for j := range c.Services[i].Backends {
				c.Services[i].Backends[j].MTU = 1400
			}
		}
	})
	for _, c := range []mtuCase{
		{"dsr-4", s.DSR4, 1400}, {"dsr-6", s.DSR6, 1400},
		{"ipip-4in4", s.IPIP4, 1380}, {"ipip-6in6", s.IPIP6, 1360},
		{"nat-4", s.NAT4, 1400}, {"nat-46", s.NAT46, 1380},
	} {
		t.Run(c.name, func(t *testing.T) { s.in(t).learns(c) })
	}
}

// TestNarrowClient has the narrow link on the clients' side, where weir is not on
// the way in modes dsr and ipip. The router's message about a backend's packet
// goes to the VIP, so weir has to find the backend that sent it.
func TestNarrowClient(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{
			FarMTU: 1400, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.DSR | site.IPIP | site.NAT, FullMSS: true,
		}, nil)
		for _, c := range []mtuCase{
			{"dsr-4", s.DSR4, 1400}, {"dsr-6", s.DSR6, 1400},
			{"ipip-4in4", s.IPIP4, 1400}, {"ipip-6in6", s.IPIP6, 1400},
			{"nat-4", s.NAT4, 1400}, {"nat-6", s.NAT6, 1400},
			{"nat-46", s.NAT46, 1420}, {"nat-64", s.NAT64, 1380},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := s.in(t)
				s.forgetPathMTU()
				r := s.FarClient.Fetch(s.ctx, c.vip, 10*megabyte)
				if r.Err != nil {
					t.Fatal(r)
				}
				peer, err := s.peerSeen(r.Backend, c.vip)
				s.must(err)
				s.wantPathMTU(s.backendNamed(r.Backend).Host, peer, c.want)
				if r := s.FarClient.Upload(s.ctx, c.vip, 10*megabyte); r.Err != nil {
					t.Error(r)
				}
			})
		}
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// forgetPathMTU makes all backends forget what they have learned of path MTUs.
func (s *testSite) forgetPathMTU() {
	s.t.Helper()
	for _, b := range s.Backends {
		for _, version := range []string{"-4", "-6"} {
			_, err := b.Host.Run(s.ctx, "ip", version, "route", "flush", "cache")
			s.must(err)
		}
	}
}

// peerSeen returns what a backend has the far client's packets from. Where that
// is a SNAT address it may be any: the one whose path MTU the backend knows.
func (s *testSite) peerSeen(backend string, vip netip.AddrPort) (netip.Addr, error) {
	for _, n := range s.natCases() {
		if n.vip != vip {
			continue
		}
		for addr := range s.backendNamed(backend).Seen() {
			if mtu, err := s.backendNamed(backend).Host.PathMTU(addr); err != nil || n.snat.Contains(addr) && mtu != 1500 {
				return addr, err
			}
		}
		return netip.Addr{}, fmt.Errorf("%s knows no path MTU but 1500 to any of %v", backend, s.backendNamed(backend).Seen())
	}
	if vip.Addr().Is6() {
		return s.Far6, nil
	}
	return s.Far4, nil
}
