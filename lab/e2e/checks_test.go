package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weir/controlplane/api"
	"weir/lab/nginx"
	"weir/lab/pair"
	"weir/lab/site"
)

// Ports of an nginx beside a backend's own servers.
const (
	nginxPort    = 8000
	nginxTLSPort = 8443
)

// TestCheckThroughVIP takes the VIP from a backend's loopback, and the end of
// the tunnel: it is down, though its own address answers as ever. Where
// check_address is backend, it is up as it was.
func TestCheckThroughVIP(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{Weirs: 1, Modes: site.DSR | site.IPIP}, nil)
	w, b := p.Weirs[0], p.Backends[0]
	for _, c := range []struct {
		service string
		vip     netip.AddrPort
	}{{site.DSR4, p.DSR4}, {site.DSR6, p.DSR6}, {site.IPIP4, p.IPIP4}, {site.IPIP6, p.IPIP6}} {
		own := b.Addr(c.vip.Addr().Is6())
		p.must(b.Host.UnserveVIP(c.vip.Addr()))
		down := p.backendIs(w, c.service, own, "down")
		t.Logf("%s without %s: %s", b.Name, c.vip.Addr(), down.Reason)
		if err := p.Client.Healthy(p.ctx, netip.AddrPortFrom(own, site.HealthPort)); err != nil {
			t.Errorf("%s itself is not well: %v", b.Name, err)
		}
		if r := p.Client.Fetch(p.ctx, c.vip, 1000); r.Err != nil || r.Backend == b.Name {
			t.Error(r)
		}
		p.must(b.Host.ServeVIP(c.vip.Addr()))
		p.backendIs(w, c.service, own, "up")
	}
	p.must(b.StopDecap())
	t.Logf("without decap: %s", p.backendIs(w, site.IPIP4, b.Addr4, "down").Reason)
	p.backendIs(w, site.IPIP6, b.Addr6, "down")
	p.backendIs(w, site.DSR4, b.Addr4, "up")
	p.must(b.StartDecap())
	p.backendIs(w, site.IPIP4, b.Addr4, "up")

	p.reload(w, func(c *site.Config) {
		for _, service := range []string{site.DSR4, site.IPIP4} {
			c.Service(service).Health.CheckAddress = "backend"
		}
	})
	p.must(b.Host.UnserveVIP(p.DSR4.Addr()))
	p.must(b.StopDecap())
	p.backendIs(w, site.IPIP6, b.Addr6, "down") // so long it takes to find out
	p.backendIs(w, site.DSR4, b.Addr4, "up")
	p.backendIs(w, site.IPIP4, b.Addr4, "up")
}

// withNginx has an nginx on all backends, which serves a VIP over HTTP and
// HTTPS, and a service that is checked over HTTPS.
func (p *testPair) withNginx(vip netip.AddrPort, service string) (servers []*nginx.Server) {
	p.t.Helper()
	const name = "web.example"
	for _, b := range p.Backends {
		s, err := nginx.Start(p.ctx, b.Host, nginx.Config{
			Name: b.Name, Names: []string{name},
			HTTP:  []netip.AddrPort{netip.AddrPortFrom(vip.Addr(), nginxPort)},
			HTTPS: []netip.AddrPort{netip.AddrPortFrom(vip.Addr(), nginxTLSPort)},
		})
		p.must(err)
		p.t.Cleanup(func() {
			if err := s.Stop(); err != nil {
				p.t.Error(err)
			}
		})
		servers = append(servers, s)
	}
	p.Configure(func(c *site.Config) {
		s := c.Service(service)
		s.Ports = []string{fmt.Sprintf("tcp/%d", nginxPort), fmt.Sprintf("tcp/%d", nginxTLSPort)}
		unverified := false // each has a certificate of its own
		s.Health.HTTP = &site.HTTPCheck{
			Path: "/healthz", Port: nginxTLSPort, Host: name, Codes: []string{"200"}, Body: "^ok",
			TLS: &site.TLS{ServerName: name, Verify: &unverified, MinVersion: "1.2"},
		}
	})
	return servers
}

// TestNginx balances two nginx, which are checked over HTTPS, with and without
// the certificate to be verified.
func TestNginx(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Weirs: 1})
	servers := p.withNginx(p.DSR4, site.DSR4)
	w := p.Weirs[0]
	p.must(p.Start(p.ctx))
	vip := netip.AddrPortFrom(p.DSR4.Addr(), nginxPort)
	answered := make(map[string]int)
	for range 64 {
		r := p.Client.Get(p.ctx, vip, "/")
		if r.Err != nil {
			t.Fatal(r)
		}
		answered[r.Backend]++
	}
	who, err := p.Client.WhoAmI(p.ctx, vip)
	if err != nil || who.Client.Addr() != p.Client4 || who.VIP != vip {
		t.Errorf("nginx sees %+v (%v), want the client at the VIP", who, err)
	}
	if len(answered) != len(servers) {
		t.Errorf("answered have %v", answered)
	}
	p.must(servers[0].SetHealthy(false))
	t.Log(p.backendIs(w, site.DSR4, p.Backends[0].Addr4, "down").Reason)
	p.must(servers[0].SetHealthy(true))
	p.backendIs(w, site.DSR4, p.Backends[0].Addr4, "up")

	// The certificate of one is not that of the other.
	p.reload(w, func(c *site.Config) {
		check := c.Service(site.DSR4).Health.HTTP
		check.TLS = &site.TLS{ServerName: check.Host, CA: servers[0].Certificate()}
	})
	p.backendIs(w, site.DSR4, p.Backends[0].Addr4, "up")
	down := p.backendIs(w, site.DSR4, p.Backends[1].Addr4, "down")
	if !strings.Contains(down.Reason, "certificate") {
		t.Errorf("one with another certificate is down because of %q", down.Reason)
	}
	for range 8 {
		if r := p.Client.Get(p.ctx, vip, "/"); r.Err != nil || r.Backend != p.Backends[0].Name {
			t.Error(r)
		}
	}
}

// TestPassiveHealth kills the nginx of a backend that is checked once an hour:
// that clients get nowhere is reason enough to ask at once.
func TestPassiveHealth(t *testing.T) {
	t.Parallel()
	p := newPair(t, pair.Options{Weirs: 1})
	servers := p.withNginx(p.DSR4, site.DSR4)
	w, b := p.Weirs[0], p.Backends[0]
	p.must(p.Start(p.ctx))
	p.reload(w, func(c *site.Config) {
		h := c.Service(site.DSR4).Health
		h.Interval, h.Timeout, h.Fall = "1h", "1s", 1
	})
	vip := netip.AddrPortFrom(p.DSR4.Addr(), nginxPort)
	if r := p.Client.Get(p.ctx, vip, "/"); r.Err != nil {
		t.Fatal(r)
	}
	p.must(servers[0].Kill())
	took := p.await(b.Name+" is down", func() error {
		p.Client.Get(p.ctx, vip, "/") // refused by one of two
		for _, row := range ask[[]api.Backend](p, w, "backends") {
			if row.Address == b.Addr4 && row.Status == "down" {
				return nil
			}
		}
		return errors.New("it is not")
	})
	t.Logf("found out after %v, of an interval of an hour", took)
	for range 16 {
		if r := p.Client.Get(p.ctx, vip, "/"); r.Err != nil || r.Backend == b.Name {
			t.Error(r)
		}
	}
}

// TestDoctor has two faults, each on a backend of its own, and asks the doctor.
// He names both, with what to do about it, and finds the others well.
func TestDoctor(t *testing.T) {
	t.Parallel()
	p := startPair(t, pair.Options{Weirs: 1, Backends: 3, Modes: site.DSR | site.IPIP}, nil)
	w := p.Weirs[0]
	bare, closed, well := p.Backends[0], p.Backends[1], p.Backends[2]
	p.must(bare.Host.UnserveVIP(p.DSR4.Addr()))
	p.must(closed.StopDecap())
	p.backendIs(w, site.DSR4, bare.Addr4, "down")
	p.backendIs(w, site.IPIP4, closed.Addr4, "down")

	out, err := w.Run(p.ctx, "doctor")
	t.Logf("weir doctor (%v):\n%s", err, out)
	if err == nil {
		t.Error("weir doctor found faults, and exits with status 0")
	}
	for _, fault := range []struct {
		service string
		backend *site.Backend
		fix     string
	}{
		{site.DSR4, bare, fmt.Sprintf("ip addr add %s/32 dev lo", p.DSR4.Addr())},
		{site.IPIP4, closed, "weir decap"},
		{site.IPIP6, closed, "weir decap"},
	} {
		out, err := w.Run(p.ctx, "doctor", fault.service)
		if err == nil || !strings.Contains(out, fault.fix) {
			t.Errorf("weir doctor %s (%v) does not say %q:\n%s", fault.service, err, fault.fix, out)
		}
		var found api.Diagnosis
		p.must(w.API().Get(p.ctx, "doctor?service="+fault.service, &found))
		if n := found.Faults(); n != 1 {
			t.Errorf("%s: %d faults, want one", fault.service, n)
		}
	}
	if out, err := w.Run(p.ctx, "doctor", site.DSR6); err != nil || strings.Contains(out, "FAIL") || !strings.Contains(out, well.Addr6.String()) {
		t.Errorf("weir doctor %s, which has no fault (%v):\n%s", site.DSR6, err, out)
	}
}
