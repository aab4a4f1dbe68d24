package e2e

import (
	"net/netip"
	"slices"
	"testing"

	"weir/lab/site"
	"weir/lab/traffic"
)

// TestNATChanges changes what mode nat is given under open connections: those
// that still have all they need go on, and the others are told to give up.
func TestNATChanges(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := newSite(t, site.Options{Backends: 3, Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT})
		streamsBehind(s.Config, site.NAT4, site.NATConfig{Addresses: []string{"10.0.0.240/30"}})
		s.Config.Service(site.NAT4).Remove(s.Backends[2].Addr4)
		var clients []*traffic.Client // each has a SNAT address for all its connections
		for i := range byte(16) {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, 110 + i})
			s.must(s.ClientHost.AddAddr("eth0", netip.PrefixFrom(addr, 24)))
			client := *s.Client
			client.Dial = s.ClientHost.DialFrom(netip.AddrPortFrom(addr, 0))
			clients = append(clients, &client)
		}
		s.start()
		open := func() (streams []*traffic.Stream) {
			crowd, err := traffic.OpenCrowd(s.ctx, traffic.CrowdConfig{Clients: clients, Target: s.NAT4, Streams: 3 * len(clients)})
			s.must(err)
			t.Cleanup(func() { crowd.Close() })
			return crowd.Streams()
		}
		check := func(when string, streams []*traffic.Stream, lost func(*traffic.Stream) bool) (kept []*traffic.Stream) {
			t.Helper()
			for _, stream := range streams {
				r := stream.Echo(contextFor(t, patience), []byte(when))
				if gone := r.Err != nil; gone != lost(stream) {
					t.Errorf("%s, connection of %s to %s: %v", when, stream.Client, stream.Backend, r)
				} else if !gone {
					kept = append(kept, stream)
				}
			}
			if len(kept) == len(streams) && slices.ContainsFunc(streams, lost) {
				t.Errorf("%s, nothing is lost", when)
			}
			return kept
		}
		none := func(*traffic.Stream) bool { return false }
		streams := open()

		s.reload(func(c *site.Config) {
			c.Service(site.NAT4).Add(s.Backends[2].Addr4)
			c.Service(site.NAT4).SetPort(site.StreamPort)
		})
		s.must(s.WaitReady(s.ctx))
		streams = append(check("with a third backend", streams, none), open()...)

		s.reload(func(c *site.Config) { c.NAT.Addresses = []string{"10.0.0.240", "10.0.0.242"} })
		streams = check("without two of four addresses", streams, func(stream *traffic.Stream) bool {
			return !slices.Contains(s.Config.NAT.Addresses, stream.Client.Addr().String())
		})
		more := open()
		for _, stream := range more {
			if !slices.Contains(s.Config.NAT.Addresses, stream.Client.Addr().String()) {
				t.Errorf("%s has a new connection of %s", stream.Backend, stream.Client)
			}
		}
		streams = append(streams, more...)

		s.reload(func(c *site.Config) { c.NAT.Addresses = append(c.NAT.Addresses, "10.0.0.250-10.0.0.253") })
		streams = append(check("with four more addresses", streams, none), open()...)

		s.reload(func(c *site.Config) { c.Service(site.NAT4).SetState(s.Backends[0].Addr4, "draining") })
		streams = check("while b1 drains", streams, none)
		s.reload(func(c *site.Config) { c.Service(site.NAT4).Remove(s.Backends[0].Addr4) })
		streams = check("without b1", streams, func(stream *traffic.Stream) bool { return stream.Backend == "b1" })
		for _, stream := range open() {
			if stream.Backend == "b1" {
				t.Error("b1 is gone and has a new connection")
			}
		}
		s.reload(func(c *site.Config) { c.Service(site.NAT4).SetPort(site.StreamPort + 1) })
		check("with another port", streams, func(*traffic.Stream) bool { return true })
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}
