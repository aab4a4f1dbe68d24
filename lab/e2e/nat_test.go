package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"weir/controlplane/api"
	"weir/lab/labtest"
	"weir/lab/site"
)

// combo is a driver and how many queues weir's interfaces have.
type combo struct {
	driver
	queues int
}

// eachCombo runs f as a subtest for each of the combos.
func eachCombo(t *testing.T, f func(t *testing.T, c combo), combos ...combo) {
	t.Helper()
	labtest.NeedRoot(t)
	for _, c := range combos {
		t.Run(fmt.Sprintf("%s-%d", c.name, c.queues), func(t *testing.T) { f(t, c) })
	}
}

// natCase is a service of mode nat.
type natCase struct {
	service string
	vip     netip.AddrPort
	snat    netip.Prefix // what its backends see
	ipv6    bool         // the backends' version
	port    uint16       // of the backends
}

func (s *testSite) natCases() []natCase {
	return []natCase{
		{site.NAT4, s.NAT4, s.SNAT4, false, site.HealthPort},
		{site.NAT6, s.NAT6, s.SNAT6, true, site.HealthPort},
		{site.NAT46, s.NAT46, s.SNAT6, true, site.WebPort},
		{site.NAT64, s.NAT64, s.SNAT4, false, site.WebPort},
	}
}

// backendNamed returns the backend that gave a name.
func (s *testSite) backendNamed(name string) *site.Backend {
	s.t.Helper()
	for _, b := range s.Backends {
		if b.Name == name {
			return b
		}
	}
	s.t.Fatalf("there is no backend %q", name)
	return nil
}

// addrOf returns a backend's address of one version.
func addrOf(b *site.Backend, ipv6 bool) netip.Addr {
	if ipv6 {
		return b.Addr6
	}
	return b.Addr4
}

// TestNAT is the promise of mode nat, in all families: what goes through comes
// out as it went in, the backend sees nothing but the SNAT address, and weir
// knows the client. Ports of the VIP and of the backends differ in two of them.
func TestNAT(t *testing.T) {
	t.Parallel()
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT}, nil)
		s.wantDriver(site.Front, c.driver)
		if n := s.iface(site.Front).Workers; n != c.queues {
			t.Fatalf("%d workers, want %d", n, c.queues)
		}
		for _, n := range s.natCases() {
			t.Run(n.service, func(t *testing.T) { s.in(t).checkNAT(n, 100*megabyte, 10*megabyte) })
		}
		for _, b := range s.Backends {
			for addr := range b.Seen() {
				if !s.SNAT4.Contains(addr) && !s.SNAT6.Contains(addr) {
					t.Errorf("%s is in the access log of %s", addr, b.Name)
				}
			}
		}
		s.noDrops()
	}, combo{xdpCopy, 1}, combo{xdpCopy, 4}, combo{afPacket, 1}, combo{afPacket, 4})
}

// TestNATTwoArmed has the backends, and the SNAT addresses, on a segment of their
// own, so that questions and answers come in by different interfaces.
func TestNATTwoArmed(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	for _, pair := range [][2]driver{{xdpCopy, xdpCopy}, {afPacket, xdpCopy}, {xdpGeneric, afPacket}} {
		t.Run(pair[0].name+"-"+pair[1].name, func(t *testing.T) {
			s := startSite(t, site.Options{TwoArmed: true, Queues: 2, Modes: site.NAT}, func(c *site.Config) {
				for i, d := range pair {
					c.Interfaces[i].Driver, c.Interfaces[i].XDPMode = d.driver, d.xdpMode
				}
			})
			for _, n := range s.natCases() {
				t.Run(n.service, func(t *testing.T) { s.in(t).checkNAT(n, 10*megabyte, 4*megabyte) })
			}
			s.noDrops()
		})
	}
}

// checkNAT makes sure of all that the client, the backend and the operator of a
// service of mode nat can see.
func (s *testSite) checkNAT(n natCase, down, up int64) {
	s.t.Helper()
	if r := s.Client.Fetch(s.ctx, n.vip, down); r.Err != nil {
		s.t.Errorf("download: %v", r)
	} else {
		s.t.Logf("download: %.0f MB/s", float64(r.Bytes)/r.Duration.Seconds()/1e6)
	}
	if r := s.Client.Upload(s.ctx, n.vip, up); r.Err != nil {
		s.t.Errorf("upload: %v", r)
	}
	who, err := s.Client.WhoAmI(s.ctx, n.vip)
	if err != nil {
		s.t.Fatalf("who am i: %v", err)
	}
	if b := s.backendNamed(who.Backend); !n.snat.Contains(who.Client.Addr()) || who.VIP != netip.AddrPortFrom(addrOf(b, n.ipv6), n.port) {
		s.t.Errorf("the backend sees %s talk to %s, want one of %s and its own address with port %d", who.Client, who.VIP, n.snat, n.port)
	} else if b.Seen()[who.Client.Addr()] == 0 {
		s.t.Errorf("%s is not in the access log of %s: %v", who.Client, b.Name, b.Seen())
	}
	seen := make(map[string]int)
	clients := make(map[netip.AddrPort]bool)
	for range 32 {
		flow := s.newFlow(n.vip)
		r := flow.Echo(s.ctx, bytes.Repeat([]byte{0xa5}, 1300))
		if r.Err != nil {
			s.t.Fatalf("echo: %v", r)
		} else if !n.snat.Contains(flow.Client.Addr()) {
			s.t.Errorf("the backend sees the datagrams of %s as those of %s", r.Local, flow.Client)
		}
		seen[r.Backend]++
		clients[r.Local] = true
	}
	if len(seen) != len(s.Backends) {
		s.t.Errorf("32 flows went to %v, want all of %d backends", seen, len(s.Backends))
	}
	for _, f := range get[api.Flows](s, "flows?limit=100000&service="+n.service).Flows {
		if f.Client.Addr() != s.clientOf(n.vip) || f.VIP != n.vip {
			s.t.Errorf("a flow that nobody made: %+v", f)
		}
		delete(clients, f.Client)
	}
	if len(clients) > 0 {
		s.t.Errorf("the api does not have the flows of %v", clients)
	}
	text, err := s.RunWeir(s.ctx, "show", "flows", "--service", n.service)
	if client := s.clientOf(n.vip).String(); err != nil || !strings.Contains(text, client) {
		s.t.Errorf("weir show flows does not show the client %s (%v):\n%s", client, err, text)
	}
}

// TestNATIperf sends as fast as two kernels can, in all families.
// Both connections that iperf3 makes for it belong together, and only source
// affinity can know.
func TestNATIperf(t *testing.T) {
	if _, err := exec.LookPath("iperf3"); err != nil {
		t.Fatalf("%v; run make deps", err)
	}
	const port = 5201
	eachCombo(t, func(t *testing.T, c combo) {
		s := startSite(t, site.Options{Queues: c.queues, Driver: c.driver.driver, XDPMode: c.xdpMode, Modes: site.NAT}, func(c *site.Config) {
			for i := range c.Services {
				c.Services[i].Affinity = "source"
				c.Services[i].Ports = []string{fmt.Sprintf("tcp/%d", port), fmt.Sprintf("udp/%d", port)}
				c.Services[i].SetPort(0)
			}
		})
		for _, b := range s.Backends {
			_, err := b.Host.Start(exec.Command("iperf3", "--server"))
			s.must(err)
			s.await("iperf3 listens on "+b.Name, func() error {
				conn, err := s.ClientHost.DialContext(s.ctx, "tcp", netip.AddrPortFrom(b.Addr4, port).String())
				if err == nil {
					conn.Close()
				}
				return err
			})
		}
		for _, n := range s.natCases() {
			for _, args := range [][]string{{"--bytes", "50M"}, {"--bytes", "50M", "--reverse"}, {"--bytes", "2M", "--udp", "--bitrate", "50M", "--length", "1200"}} {
				t.Run(n.service+strings.Join(args[2:min(3, len(args))], ""), func(t *testing.T) { s.in(t).iperf(n.vip.Addr(), args...) })
			}
		}
	}, combo{xdpCopy, 4}, combo{afPacket, 1})
}

// iperf runs an iperf3 client, which may have to wait for the server to end what
// the client before it has asked for.
func (s *testSite) iperf(vip netip.Addr, args ...string) {
	s.t.Helper()
	type sum struct {
		BitsPerSecond float64 `json:"bits_per_second"`
	}
	var report struct {
		Error string
		End   struct {
			Received sum `json:"sum_received"` // TCP
			Sum      sum // UDP
		}
	}
	s.await("iperf3's server has time", func() error {
		text, err := s.ClientHost.Run(s.ctx, "iperf3", append([]string{"--json", "--client", vip.String()}, args...)...)
		s.must(err)
		report.Error = ""
		if err := json.Unmarshal([]byte(text), &report); err != nil {
			s.t.Fatalf("%v in the report of iperf3:\n%s", err, text)
		}
		// Between two clients the server is busy, or has closed its listening socket.
		if strings.Contains(report.Error, "busy") || strings.Contains(report.Error, "unable to connect") {
			return errors.New(report.Error)
		}
		return nil
	})
	rate := max(report.End.Received.BitsPerSecond, report.End.Sum.BitsPerSecond)
	if report.Error != "" || rate == 0 {
		s.t.Errorf("iperf3 received %v bit/s, error %q", rate, report.Error)
	}
	s.t.Logf("%.0f Mbit/s", rate/1e6)
}
