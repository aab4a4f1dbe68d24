package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"weir/controlplane/api"
	"weir/lab/site"
)

// TestSpreadSource gives weir prefixes to take tunnel sources from. Each flow
// has one source in them, and flows differ, so that a backend's NIC can spread
// them.
func TestSpreadSource(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		prefix4, prefix6 := netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd00:9::/64")
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode}, func(c *site.Config) {
			c.IPIP = site.IPIPConfig{SourcePrefix: prefix4.String(), SourcePrefix6: prefix6.String()}
		})
		wires := tapSwitch(t, s.FrontNet)
		const flows, rounds = 32, 3
		for _, c := range []struct {
			vip    netip.AddrPort
			prefix netip.Prefix
		}{{s.IPIP4, prefix4}, {s.IPIP6, prefix6}} {
			for range flows {
				flow := s.newFlow(c.vip)
				for range rounds {
					if r := flow.Echo(s.ctx, []byte("spread")); r.Err != nil {
						t.Error(r)
					}
				}
			}
			s.await("all flows are seen on the wire", func() error {
				sources, ports := s.spread(wires, c.vip.Addr(), c.prefix)
				// 32 draws from 65536 sources: three fewer than that happens
				// once in ten million runs.
				if len(ports) != flows || len(sources) < flows-2 {
					return fmt.Errorf("%d flows to %s with %d sources, want %d and about as many", len(ports), c.vip, len(sources), flows)
				}
				return nil
			})
		}
		for _, c := range []vipCase{{"ipip-4in4", s.IPIP4}, {"ipip-6in6", s.IPIP6}} {
			t.Run(c.name, func(t *testing.T) { s.checkService(t, c.vip, 4*megabyte) })
		}
		s.noDrops()
	}, xdpCopy, afPacket)
}

// spread returns the tunnel sources seen in packets for a VIP, and for each UDP
// port of the client which it had. All have to be in the prefix, and a port has
// to keep its own.
func (s *testSite) spread(wires *wire, vip netip.Addr, prefix netip.Prefix) (map[netip.Addr]bool, map[layers.UDPPort]netip.Addr) {
	s.t.Helper()
	sources, ports := make(map[netip.Addr]bool), make(map[layers.UDPPort]netip.Addr)
	for _, f := range wires.received(func([]byte) bool { return true }) {
		outer, inner, ok := tunnelOf(f)
		if !ok || inner.vip != vip {
			continue
		}
		if !prefix.Contains(outer) {
			s.t.Fatalf("the outer source %s is not in %s", outer, prefix)
		}
		if was, ok := ports[inner.port]; ok && was != outer {
			s.t.Fatalf("the flow from port %d has sources %s and %s", inner.port, was, outer)
		}
		sources[outer], ports[inner.port] = true, outer
	}
	return sources, ports
}

// TestTooBig sends a datagram that just fits a tunnel, and one that is a byte
// longer. The sender of the latter is told, which is counted, and sends the
// next one in fragments.
func TestTooBig(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode}, nil)
		for i, c := range []struct {
			vip    netip.AddrPort
			header int // bytes of one IP header
		}{{s.IPIP4, 20}, {s.IPIP6, 40}} {
			payload := make([]byte, 1500-2*c.header-8-8) // UDP, and the sequence number of an echo
			if r := s.Client.Echo(s.ctx, c.vip, payload); r.Err != nil {
				t.Error(r)
			}
			s.wantPathMTU(s.ClientHost, c.vip.Addr(), 1500)
			payload = append(payload, 0)
			if r := s.Client.Echo(contextFor(t, shortly), c.vip, payload); r.Err == nil {
				t.Errorf("answered through a tunnel: %v", r)
			}
			if w := get[[]api.Worker](s, "workers")[0]; w.TooBigReplies != uint64(i+1) {
				t.Errorf("%d senders were told that a packet is too big, want %d", w.TooBigReplies, i+1)
			}
			s.wantPathMTU(s.ClientHost, c.vip.Addr(), 1500-c.header)
			if r := s.Client.Echo(s.ctx, c.vip, payload); r.Err != nil {
				t.Error(r)
			}
		}
	}, xdpCopy, afPacket)
}

// tunnelled is what is in a tunnel's packet.
type tunnelled struct {
	vip  netip.Addr
	port layers.UDPPort // of the client
}

// tunnelOf takes a tunnel's packet that carries UDP apart.
func tunnelOf(frame []byte) (outer netip.Addr, inner tunnelled, ok bool) {
	var addrs []netip.Addr // source and destination of each IP header
	for _, l := range layersOf(frame).Layers() {
		switch ip := l.(type) {
		case *layers.IPv4:
			addrs = append(addrs, netip.AddrFrom4([4]byte(ip.SrcIP.To4())), netip.AddrFrom4([4]byte(ip.DstIP.To4())))
		case *layers.IPv6:
			addrs = append(addrs, netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP)))
		case *layers.UDP:
			if len(addrs) == 4 {
				return addrs[0], tunnelled{addrs[3], ip.SrcPort}, true
			}
		}
	}
	return netip.Addr{}, tunnelled{}, false
}
