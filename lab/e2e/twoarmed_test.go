package e2e

import (
	"testing"

	"weir/controlplane/api"
	"weir/lab/labtest"
	"weir/lab/site"
)

// TestTwoArmed sends what comes in on one interface out on another, with every
// pair of drivers: between workers of different drivers frames are copied.
func TestTwoArmed(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	for _, pair := range []struct {
		name        string
		front, back driver
	}{
		{"afxdp-afxdp", xdpCopy, xdpCopy},
		{"generic-afxdp", xdpGeneric, xdpCopy},
		{"afxdp-afpacket", xdpCopy, afPacket},
		{"afpacket-afxdp", afPacket, xdpCopy},
		{"afpacket-afpacket", afPacket, afPacket},
	} {
		t.Run(pair.name, func(t *testing.T) {
			s := startSite(t, site.Options{TwoArmed: true}, func(c *site.Config) {
				for i, d := range []driver{pair.front, pair.back} {
					c.Interfaces[i].Driver, c.Interfaces[i].XDPMode = d.driver, d.xdpMode
				}
			})
			s.wantDriver(site.Front, pair.front)
			s.wantDriver(site.Back, pair.back)
			for _, c := range []vipCase{
				{"dsr-4", s.DSR4}, {"dsr-6", s.DSR6}, {"ipip-4in4", s.IPIP4}, {"ipip-6in6", s.IPIP6},
			} {
				t.Run(c.name, func(t *testing.T) { s.checkService(t, c.vip, 4*megabyte) })
			}
			for _, w := range get[[]api.Worker](s, "workers") {
				switch {
				case w.Interface == site.Front && w.HandedOver.Packets == 0:
					t.Error("the worker of the front interface has handed nothing over")
				case w.Interface == site.Back && w.Transmitted.Packets == 0:
					t.Error("the worker of the back interface has sent nothing")
				}
			}
			s.noDrops()
		})
	}
}
