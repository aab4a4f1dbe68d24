package e2e

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/controlplane/api"
	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// oneSNAT is the SNAT address of tests that want to have one only.
const oneSNAT = "10.0.0.240"

// streamsBehind leaves nothing but one service of mode nat in a configuration,
// whose backends echo bytes over TCP.
func streamsBehind(c *site.Config, service string, nat site.NATConfig) {
	v := *c.Service(service)
	v.SetPort(site.StreamPort)
	c.Services = []site.Service{v}
	c.NAT = nat
}

// TestNATExhausted has 64 ports and one backend. The 65th connection is refused
// and harms no other, and when one ends there is room again.
func TestNATExhausted(t *testing.T) {
	t.Parallel()
	const ports = 64
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Backends: 1, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.NAT}, func(c *site.Config) {
			streamsBehind(c, site.NAT4, site.NATConfig{Addresses: []string{oneSNAT}, Ports: "40000-40063"})
		})
		crowd, err := traffic.OpenCrowd(s.ctx, traffic.CrowdConfig{Clients: []*traffic.Client{s.Client}, Target: s.NAT4, Streams: ports})
		s.must(err)
		defer crowd.Close()
		s.must(crowd.Echo(s.ctx, []byte("before")))
		if stream, err := s.Client.OpenStream(contextFor(t, 2*shortly), s.NAT4); err == nil {
			t.Errorf("connection %d was served as %s", ports+1, stream.Client)
			stream.Close()
		}
		if n := s.drops()["ports_exhausted"]; n == 0 {
			t.Errorf("ports_exhausted is not counted: %v", s.drops())
		}
		s.must(crowd.Echo(s.ctx, []byte("after")))

		// Of the one that ends, the client and the backend forget all but a
		// time-wait state, and weir takes that over.
		ended := crowd.Streams()[10]
		s.must(ended.Close())
		var next *traffic.Stream
		s.await("a new connection is served", func() (err error) {
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			next, err = s.Client.OpenStream(ctx, s.NAT4)
			return err
		})
		defer next.Close()
		if next.Client != ended.Client {
			t.Errorf("the new connection has %s, want %s, which has become free", next.Client, ended.Client)
		}
		for i, stream := range crowd.Streams() {
			if i == 10 {
				continue
			}
			if r := stream.Echo(s.ctx, []byte("at last")); r.Err != nil {
				t.Error(r)
			}
		}
	}, xdpCopy, afPacket)
}

// TestNATRestart ends weir in both ways and starts it again.
func TestNATRestart(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Modes: site.NAT}, nil)
	for _, end := range []func() error{s.StopWeir, s.KillWeir} {
		for _, n := range s.natCases() {
			s.served(n.vip)
		}
		s.must(end())
		if r := s.echo(s.NAT4); r.Err == nil {
			t.Errorf("answered without weir: %v", r)
		}
		s.start()
		for _, n := range s.natCases() {
			s.served(n.vip)
			if r := s.Client.Fetch(s.ctx, n.vip, megabyte); r.Err != nil {
				t.Error(r)
			}
		}
	}
}

// readSetting returns a setting of a host, see [netlab.Host.Sysctl].
func (s *testSite) readSetting(h *netlab.Host, key string) (value string) {
	s.t.Helper()
	s.must(h.Do(func() error {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		value = strings.TrimSpace(string(text))
		return err
	}))
	return value
}

// TestNATShared takes ports of the box's own addresses for mode nat, while the
// box talks to the same backends and serves clients itself.
func TestNATShared(t *testing.T) {
	t.Parallel()
	const reserved = "net.ipv4.ip_local_reserved_ports"
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.NAT, Health: true})
		own := netip.MustParseAddrPort("10.0.0.2:22")
		s.Config.NAT = site.NATConfig{Shared: &site.NATShared{Addresses: []string{own.Addr().String(), "fd00::2"}, Ports: "50000-59999"}}
		s.SNAT4, s.SNAT6 = netip.PrefixFrom(own.Addr(), 32), netip.MustParsePrefix("fd00::2/128")
		s.must(s.WeirHost.Sysctl(reserved, "4000,5353"))
		// Left to itself, the kernel would take most of its ports from weir's.
		s.must(s.WeirHost.Sysctl("net.ipv4.ip_local_port_range", "49500 60500"))
		sshd, err := traffic.NewServer(s.ctx, traffic.ServerConfig{Name: "sshd", TCP: []netip.AddrPort{own}, Streams: []netip.AddrPort{netip.AddrPortFrom(own.Addr(), 23)}, Listen: s.WeirHost.Listen})
		s.must(err)
		running, stop := context.WithCancel(s.ctx)
		t.Cleanup(stop)
		go func() { _ = sshd.Run(running) }()
		session, err := s.Client.OpenStream(s.ctx, netip.AddrPortFrom(own.Addr(), 23))
		s.must(err)
		defer session.Close()

		before := s.readSetting(s.WeirHost, reserved)
		for _, end := range []func() error{s.StopWeir, s.KillWeir, s.StopWeir} {
			s.start()
			if got := s.readSetting(s.WeirHost, reserved); !strings.Contains(got, "50000-59999") || !strings.Contains(got, "5353") {
				t.Errorf("while weir runs, reserved ports are %q", got)
			}
			s.checkShared(own)
			if r := session.Echo(s.ctx, []byte("still there")); r.Err != nil {
				t.Error(r)
			}
			s.must(end())
		}
		if got := s.readSetting(s.WeirHost, reserved); got != before {
			t.Errorf("reserved ports are %q after weir, and were %q", got, before)
		}
	}, xdpCopy, afPacket)
}

// checkShared uses an address of weir's host in every way at once.
func (s *testSite) checkShared(own netip.AddrPort) {
	s.t.Helper()
	box := &traffic.Client{Dial: s.WeirHost.DialContext, Timeout: 5 * time.Second}
	for _, n := range s.natCases() {
		s.checkNAT(n, 4*megabyte, megabyte)
		for _, b := range s.Backends {
			who, err := box.WhoAmI(s.ctx, netip.AddrPortFrom(addrOf(b, n.ipv6), site.WebPort))
			if err != nil {
				s.t.Errorf("the box does not reach %s: %v", b.Name, err)
			} else if who.Client.Port() >= 50000 && who.Client.Port() <= 59999 {
				s.t.Errorf("the box has used port %d, which is weir's", who.Client.Port())
			}
		}
	}
	if r := s.Client.Fetch(s.ctx, own, megabyte); r.Err != nil || r.Backend != "sshd" {
		s.t.Error(r)
	}
	s.must(s.ping(own.Addr()))
	if err := s.Await(s.ctx, func() error {
		if slices.ContainsFunc(get[[]api.Backend](s, "backends"), func(b api.Backend) bool { return b.Status != "up" }) {
			return errors.New("not all backends are up")
		}
		return nil
	}); err != nil {
		s.t.Error(err)
	}
}
