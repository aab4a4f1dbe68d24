package e2e

import (
	"context"
	"net/netip"
	"testing"

	"weir/lab/site"
	"weir/lab/traffic"
)

// TestKernelTraffic talks to weir's own addresses, as SSH and BGP do, while
// weir works the same interface. Its frames are the kernel's and stay so.
func TestKernelTraffic(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode, Modes: site.DSR})
		own := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:22"), netip.MustParseAddrPort("[fd00::2]:22")}
		server, err := traffic.NewServer(s.ctx, traffic.ServerConfig{
			Name: "sshd", TCP: own, UDP: own, Listen: s.WeirHost.Listen, ListenPacket: s.WeirHost.ListenPacket,
		})
		s.must(err)
		ctx, stop := context.WithCancel(s.ctx)
		t.Cleanup(stop)
		go func() { _ = server.Run(ctx) }()

		// A session that was there before weir outlives its start and its end.
		session, err := s.Client.OpenEcho(s.ctx, own[0])
		s.must(err)
		defer session.Close()
		long := traffic.NewLoad(traffic.LoadConfig{Client: s.Client, Target: own[1], Connections: 2, Bytes: 64 << 10, Rate: 256 << 10})
		ended := make(chan error, 1)
		go func() { ended <- long.Run(ctx) }()
		<-long.Started()

		s.start()
		s.wantDriver(site.Front, d)
		_, finish := s.startLoad(site.DSR4, 20, 0)
		for _, addr := range own {
			if r := s.Client.Fetch(s.ctx, addr, 5*megabyte); r.Err != nil {
				t.Errorf("download: %v", r)
			}
			if r := s.Client.Upload(s.ctx, addr, 5*megabyte); r.Err != nil {
				t.Errorf("upload: %v", r)
			}
			s.must(s.ping(addr.Addr()))
		}
		if r := session.Echo(s.ctx, []byte("still there")); r.Err != nil || r.Backend != "sshd" {
			t.Error(r)
		}
		if err := finish(); err != nil {
			t.Error(err)
		}
		s.must(s.StopWeir())
		long.Finish()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}, xdpCopy, xdpGeneric, afPacket)
}
