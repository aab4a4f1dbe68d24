package site

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/lab/netlab"
	"weir/lab/traffic"
)

// quiet builds a site in which nobody runs weir, so any file will do for it.
func quiet(t *testing.T, opt Options) *Site {
	t.Helper()
	labtest.NeedRoot(t)
	opt.Weir = os.Args[0]
	s, err := New(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wantPathMTU fails the test if a host does not know the MTU on the way to addr.
func wantPathMTU(t *testing.T, h *netlab.Host, addr netip.Addr, want int) {
	t.Helper()
	if got, err := h.PathMTU(addr); err != nil || got != want {
		t.Errorf("%s has path MTU %d to %s (%v), want %d", h.Name(), got, addr, err, want)
	}
}

// TestHop checks that the hop before the backends is narrow and says so, and
// that what the backends announce does not hide it.
func TestHop(t *testing.T) {
	s := quiet(t, Options{Name: "hop", Modes: NAT, HopMTU: 1400})
	weir := &traffic.Client{Dial: s.WeirHost.DialContext, Timeout: clientTimeout}
	b := s.Backends[0]
	for _, addr := range []netip.Addr{b.Addr4, b.Addr6} {
		wantPathMTU(t, s.WeirHost, addr, 1500)
		if r := weir.Upload(t.Context(), netip.AddrPortFrom(addr, WebPort), 1<<20); r.Err != nil {
			t.Error(r)
		}
		wantPathMTU(t, s.WeirHost, addr, 1400)
	}
}

// TestFar checks that the far client can be reached, and that its link is narrow
// and the router says so.
func TestFar(t *testing.T) {
	for name, twoArmed := range map[string]bool{"onearmed": false, "twoarmed": true} {
		t.Run(name, func(t *testing.T) {
			s := quiet(t, Options{Name: "far_" + name, Modes: DSR, FarMTU: 1400, TwoArmed: twoArmed})
			b := s.Backends[0]
			for _, c := range []struct{ client, backend netip.Addr }{{s.Far4, b.Addr4}, {s.Far6, b.Addr6}} {
				if twoArmed {
					via := routerFar4.Addr()
					if c.backend.Is6() {
						via = routerFar6.Addr()
					}
					if err := s.FarHost.AddRoute(netip.PrefixFrom(c.backend, c.backend.BitLen()), via); err != nil {
						t.Fatal(err)
					}
				}
				wantPathMTU(t, b.Host, c.client, 1500)
				if r := s.FarClient.Fetch(t.Context(), netip.AddrPortFrom(c.backend, WebPort), 1<<20); r.Err != nil {
					t.Error(r)
				}
				if twoArmed {
					continue // the client's new route announces what its link takes
				}
				wantPathMTU(t, b.Host, c.client, 1400)
			}
			if n := b.Seen()[s.Far4]; n != 1 {
				t.Errorf("the backend has seen the far client %d times", n)
			}
			if err := s.WeirHost.Ping(t.Context(), s.Far4); err == nil {
				t.Error("weir's host has a route to the far client")
			}
		})
	}
}

// TestKeepsWay checks that backends send to clients through weir where it keeps
// the clients' addresses: to weir's own address they still can.
func TestKeepsWay(t *testing.T) {
	for name, twoArmed := range map[string]bool{"onearmed": false, "twoarmed": true} {
		t.Run(name, func(t *testing.T) {
			s := quiet(t, Options{Name: "keep_" + name, Modes: Keep, FarMTU: 1500, TwoArmed: twoArmed})
			weir := &traffic.Client{Dial: s.WeirHost.DialContext, Timeout: clientTimeout}
			b := s.Backends[0]
			for _, client := range []netip.Addr{s.Client4, s.Client6, s.Far4, s.Far6} {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if err := b.Host.Ping(ctx, client); err == nil {
					t.Errorf("the backend reaches client %s without weir", client)
				}
				cancel()
			}
			for _, addr := range []netip.Addr{b.Addr4, b.Addr6} {
				if err := weir.Healthy(t.Context(), netip.AddrPortFrom(addr, HealthPort)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
