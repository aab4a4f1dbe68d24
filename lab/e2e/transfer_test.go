package e2e

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/lab/site"
)

const megabyte = 1 << 20

// vipCase is one VIP and what happens behind it.
type vipCase struct {
	name string
	vip  netip.AddrPort
}

// checkService makes sure of all that a client of a VIP can see: transfers both
// ways are right, datagrams come back, and every backend sees the client itself.
func (s *testSite) checkService(t *testing.T, vip netip.AddrPort, size int64) {
	t.Helper()
	if r := s.Client.Fetch(s.ctx, vip, size); r.Err != nil {
		t.Errorf("download: %v", r)
	}
	if r := s.Client.Upload(s.ctx, vip, size); r.Err != nil {
		t.Errorf("upload: %v", r)
	}
	who, err := s.Client.WhoAmI(s.ctx, vip)
	if err != nil {
		t.Errorf("who am i: %v", err)
	} else if who.Client.Addr() != s.clientOf(vip) || who.VIP != vip {
		t.Errorf("the backend sees %s talk to %s, want %s and %s", who.Client, who.VIP, s.clientOf(vip), vip)
	}
	seen := make(map[string]int)
	for range 32 {
		flow := s.newFlow(vip)
		r := flow.Echo(s.ctx, bytes.Repeat([]byte{0xa5}, 1300))
		if r.Err != nil {
			t.Errorf("echo: %v", r)
		} else if flow.Client != r.Local {
			t.Errorf("the backend sees the datagrams of %s as those of %s", r.Local, flow.Client)
		}
		seen[r.Backend]++
	}
	// That one of two backends gets none of 32 flows happens once in 2^31 runs.
	if len(seen) != len(s.Backends) {
		t.Errorf("32 flows went to %v, want all of %d backends", seen, len(s.Backends))
	}
}

// TestTransfers is the promise of the product: what goes through a VIP comes
// out as it went in, by every mode, family and driver.
func TestTransfers(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := startSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode}, nil)
		s.wantDriver(site.Front, d)
		for _, c := range []vipCase{
			{"dsr-4", s.DSR4}, {"dsr-6", s.DSR6}, {"ipip-4in4", s.IPIP4}, {"ipip-6in6", s.IPIP6},
		} {
			t.Run(c.name, func(t *testing.T) { s.checkService(t, c.vip, 10*megabyte) })
		}
		s.reload(func(c *site.Config) {
			for _, b := range s.Backends {
				c.Service(site.IPIP4).Backend(b.Addr4).Address = b.Addr6.String()
				c.Service(site.IPIP6).Backend(b.Addr6).Address = b.Addr4.String()
			}
		})
		s.must(s.WaitReady(s.ctx))
		for _, c := range []vipCase{{"ipip-4in6", s.IPIP4}, {"ipip-6in4", s.IPIP6}} {
			t.Run(c.name, func(t *testing.T) { s.checkService(t, c.vip, 10*megabyte) })
		}
		s.noDrops()
	}, xdpCopy, xdpGeneric, afPacket)
}
