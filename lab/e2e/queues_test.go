package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"weir/controlplane/api"
	"weir/lab/site"
	"weir/lab/traffic"
)

// TestQueues has weir work four queues. Every worker has to have its part, and
// a flow stays on one backend whichever queue its packets come by.
func TestQueues(t *testing.T) {
	t.Parallel()
	const queues, flows, rounds = 4, 64, 5
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Backends: 3, Queues: queues, Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR}, func(c *site.Config) {
			c.Interfaces[0].Queues = fmt.Sprint(queues)
		})
		s.wantDriver(site.Front, d)
		if n := s.iface(site.Front).Workers; n != queues {
			t.Fatalf("%d workers, want %d", n, queues)
		}
		_, finish := s.startLoad(site.DSR6, flows, 0)

		var conns []*traffic.EchoConn
		backendOf := make(map[netip.AddrPort]string)
		for range flows {
			conns = append(conns, s.newFlow(s.DSR4))
		}
		for range rounds {
			for _, conn := range conns {
				r := conn.Echo(s.ctx, []byte("which backend"))
				if r.Err != nil {
					t.Fatal(r)
				}
				if was := backendOf[r.Local]; was != "" && was != r.Backend {
					t.Errorf("the flow of %s went to %s and then to %s", r.Local, was, r.Backend)
				}
				backendOf[r.Local] = r.Backend
			}
		}
		s.checkFlowTable(backendOf)
		// A connection that is answered by two backends breaks with ErrMoved.
		if err := finish(); err != nil {
			t.Error(err)
		}
		for _, w := range get[[]api.Worker](s, "workers") {
			t.Logf("worker %d: received %d, sent %d, flows %d", w.Queue, w.Received.Packets, w.Transmitted.Packets, w.Flows)
			if w.Error != "" || w.Transmitted.Packets == 0 || w.Flows == 0 {
				t.Errorf("worker %d has sent %d packets of %d flows, error %q", w.Queue, w.Transmitted.Packets, w.Flows, w.Error)
			}
		}
		s.noDrops()
	}, xdpCopy, afPacket)
}

// checkFlowTable compares what the api says of UDP flows with what their clients
// know.
func (s *testSite) checkFlowTable(backendOf map[netip.AddrPort]string) {
	s.t.Helper()
	names := make(map[netip.Addr]string)
	for _, b := range s.Backends {
		names[b.Addr4] = b.Name
	}
	found := make(map[netip.AddrPort]bool)
	for _, f := range get[api.Flows](s, "flows?limit=100000&service="+site.DSR4).Flows {
		if f.Protocol != "udp" || f.VIP != s.DSR4 {
			s.t.Errorf("a flow that nobody made: %+v", f)
			continue
		}
		found[f.Client] = true
		if want := backendOf[f.Client]; names[f.Backend] != want {
			s.t.Errorf("the flow of %s is on %s as worker %d has it, and on %q as the client has it",
				f.Client, names[f.Backend], f.Worker, want)
		}
	}
	if len(found) != len(backendOf) {
		s.t.Errorf("the flow tables have %d of %d flows", len(found), len(backendOf))
	}
}
