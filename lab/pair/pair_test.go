package pair

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/lab/site"
	"weir/lab/traffic"
)

func newPair(t *testing.T, opt Options) *Pair {
	t.Helper()
	labtest.NeedRoot(t)
	opt.Weir = filepath.Join(t.TempDir(), "weir")
	build := exec.Command("go", "build", "-o", opt.Weir, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v\n%s", err, out)
	}
	p, err := New(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, w := range p.Weirs {
				t.Logf("%s:\n%s", w.Name, w.Log())
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, w := range p.Weirs {
			if _, err := os.Stat(w.ConfigPath); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", w.ConfigPath, err)
			}
		}
	})
	return p
}

// alone takes out what needs more than one weir, and checks by the kernel's
// routes only: this package's tests are about the networks.
func alone(c *site.Config) {
	c.Cluster, c.BGP, c.Pools = nil, nil, nil
	for i := range c.Services {
		c.Services[i].Health = nil
	}
}

func (p *Pair) wantServed(t *testing.T) {
	t.Helper()
	for _, vip := range p.VIPs() {
		if r := p.Client.Fetch(t.Context(), vip, 1<<20); r.Err != nil {
			t.Error(r)
		}
		if r := p.Client.Upload(t.Context(), vip, 1<<20); r.Err != nil {
			t.Error(r)
		}
		if r := p.Client.Echo(t.Context(), vip, []byte("hello")); r.Err != nil {
			t.Error(r)
		}
	}
}

// TestSegment has each of the weirs serve alone, one after the other: what they
// need of the network is there for each of them.
func TestSegment(t *testing.T) {
	p := newPair(t, Options{Name: "segment", Modes: site.DSR | site.IPIP | site.NAT, Weirs: 3})
	p.Configure(alone)
	for _, w := range p.Weirs {
		w.Config.NAT = site.NATConfig{Addresses: w.Config.NAT.Nodes[w.Name]}
		if err := p.Start(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		p.wantServed(t)
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// TestRouted has each of the weirs serve behind a router, whose routes are set
// by hand, and sees that the faults are what they are called.
func TestRouted(t *testing.T) {
	for name, routing := range map[string]Routing{"frr": FRR, "bird": BIRD} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, Options{Name: "routed_" + name, Modes: site.DSR | site.IPIP, Routing: routing})
			p.Configure(alone)
			for _, w := range p.Weirs {
				if err := p.Start(t.Context(), w); err != nil {
					t.Fatal(err)
				}
				for _, vip := range p.VIPs() {
					via := w.Addr4
					if vip.Addr().Is6() {
						via = w.Addr6
					}
					to := netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen())
					if err := p.Router.AddRoute(to, via); err != nil {
						t.Fatal(err)
					}
					defer p.Router.DelRoute(to, via)
					if err := p.AwaitRoutes(t.Context(), vip.Addr(), w); err != nil {
						t.Error(err)
					}
				}
				p.wantServed(t)
			}
			w := p.Weirs[1]
			answered := func() bool {
				r := (&traffic.Client{Dial: p.ClientHost.DialContext, Timeout: 300 * time.Millisecond}).Fetch(t.Context(), p.DSR4, 1)
				return r.Err == nil
			}
			if err := p.LinkDown(w); err != nil {
				t.Fatal(err)
			}
			if answered() {
				t.Error("answered without a link")
			}
			if err := p.LinkUp(w); err != nil {
				t.Fatal(err)
			}
			heal, err := p.Isolate(w)
			if err != nil {
				t.Fatal(err)
			}
			if err := site.Await(t.Context(), func() error {
				if !answered() {
					return errors.New("not answered")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if err := heal(); err != nil {
				t.Error(err)
			}
		})
	}
}
