package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weir/lab/site"
	"weir/lab/traffic"
)

// startLoad keeps n TCP connections to a VIP busy from now on, and returns when
// all of them have been served once. finish returns how they ended.
func (s *testSite) startLoad(service string, n int, stall time.Duration) (load *traffic.Load, finish func() error) {
	s.t.Helper()
	vip := map[string]netip.AddrPort{
		site.DSR4: s.DSR4, site.DSR6: s.DSR6, site.IPIP4: s.IPIP4, site.IPIP6: s.IPIP6,
		site.NAT4: s.NAT4, site.NAT6: s.NAT6, site.NAT46: s.NAT46, site.NAT64: s.NAT64,
	}[service]
	load = traffic.NewLoad(traffic.LoadConfig{
		Client: s.Client, Target: vip, Connections: n, Bytes: 8 << 10, Rate: 32 << 10, Stall: stall,
	})
	ctx, cancel := context.WithCancel(s.ctx)
	s.t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx) }()
	select {
	case <-load.Started():
	case <-time.After(patience):
		s.t.Fatalf("of %d connections, only %d were served in %v", n, load.Report().Active, patience)
	}
	return load, func() error {
		load.Finish()
		return <-ended
	}
}

// newFlows makes n UDP flows and returns how many each backend got. All of them
// have to be answered.
func (s *testSite) newFlows(n int) map[string]int {
	s.t.Helper()
	seen := make(map[string]int)
	for range n {
		r := s.newFlow(s.DSR4).Echo(s.ctx, []byte("new"))
		if r.Err != nil {
			s.t.Fatal(r)
		}
		seen[r.Backend]++
	}
	return seen
}

// TestChangesBreakNothing changes the pool of backends under 200 transfers in
// all the ways an operator would during the day. None may break.
func TestChangesBreakNothing(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Backends: 4, Driver: d.driver, XDPMode: d.xdpMode, Health: true})
		b1, b2, b4 := s.Backends[0], s.Backends[1], s.Backends[3]
		s.Config.Service(site.DSR4).Remove(b4.Addr4)
		s.start()
		s.wantDriver(site.Front, d)
		load, finish := s.startLoad(site.DSR4, 200, 0)
		first := load.Report().Backends
		t.Logf("200 connections to %v", first)

		s.reload(func(c *site.Config) { c.Service(site.DSR4).Add(b4.Addr4) })
		s.must(s.WaitReady(s.ctx))
		if got := s.newFlows(64); got["b4"] == 0 {
			t.Errorf("of 64 flows after b4 was added, it got none: %v", got)
		}
		s.reload(func(c *site.Config) { c.Service(site.DSR4).SetWeight(b2.Addr4, 300) })
		if share := s.backend(site.DSR4, b2.Addr4).Share; share < 0.45 || share > 0.55 {
			t.Errorf("b2 has a share of %v with weight 300 of 600", share)
		}
		s.reload(func(c *site.Config) { c.Service(site.DSR4).SetState(b1.Addr4, "draining") })
		if got := s.newFlows(64); got["b1"] != 0 {
			t.Errorf("b1 is draining and got %d of 64 new flows", got["b1"])
		}
		if b := s.backend(site.DSR4, b1.Addr4); b.Status != "draining" || b.Flows == 0 {
			t.Errorf("b1 is %s with %d flows, want it draining with those it had", b.Status, b.Flows)
		}
		if err := finish(); err != nil {
			t.Error(err)
		}
		if r := load.Report(); r.Intact != 200 {
			t.Errorf("%d of 200 connections are intact", r.Intact)
		}
	}, xdpCopy, afPacket)
}

// TestBackendDies takes a backend's power away under load. Only what it served
// breaks, and what is new goes to the others.
func TestBackendDies(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Backends: 3, Driver: d.driver, XDPMode: d.xdpMode, Health: true}, nil)
		dead := s.Backends[0]
		load, finish := s.startLoad(site.DSR4, 90, 5*time.Second)
		had := load.Report().Backends[dead.Name]
		s.must(dead.Stop())
		took := s.await("b1 is down", func() error {
			if status := s.backend(site.DSR4, dead.Addr4).Status; status != "down" {
				return fmt.Errorf("it is %s", status)
			}
			return nil
		})
		t.Logf("the health check needed %v", took)
		if got := s.newFlows(32); got[dead.Name] != 0 {
			t.Errorf("the dead backend answered: %v", got)
		}
		// Finish asks each connection for one more transfer, so that those of
		// the dead backend have to show whether they are broken.
		if err := finish(); err == nil {
			t.Error("no connection broke, though one backend died")
		}
		r := load.Report()
		for _, broken := range r.Broken {
			if broken.Backend != dead.Name {
				t.Errorf("broke without need: %v", broken)
			}
		}
		if len(r.Broken) != had || r.Intact != 90-had {
			t.Errorf("%d broken and %d intact of 90 connections, %d of which the dead backend had", len(r.Broken), r.Intact, had)
		}

		s.must(dead.Start())
		s.must(s.WaitReady(s.ctx))
		if got := s.newFlows(64); got[dead.Name] == 0 {
			t.Errorf("the backend is back and got none of 64 flows: %v", got)
		}
	}, xdpCopy, afPacket)
}

// TestHealthCheckFails has a backend answer that it is not well, with everything
// else in order.
func TestHealthCheckFails(t *testing.T) {
	t.Parallel()
	s := startSite(t, site.Options{Health: true, Modes: site.DSR}, nil)
	b := s.Backends[1]
	b.SetHealthy(false)
	s.await("b2 is down", func() error {
		if status := s.backend(site.DSR4, b.Addr4).Status; status != "down" {
			return fmt.Errorf("it is %s", status)
		}
		return nil
	})
	if reason := s.backend(site.DSR4, b.Addr4).Reason; reason == "" {
		t.Error("the api does not say why b2 is down")
	}
	if got := s.newFlows(16); got["b2"] != 0 {
		t.Errorf("b2 is down and got flows: %v", got)
	}
	b.SetHealthy(true)
	s.must(s.WaitReady(s.ctx))
}
