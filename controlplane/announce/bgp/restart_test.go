package bgp

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weir/lab/netlab"
	"weir/lab/router"
)

// TestGracefulRestart kills first the router's bgpd and then weir, each started
// again: routes come back by themselves, and were never gone.
func TestGracefulRestart(t *testing.T) {
	t.Parallel()
	lab := newLab(t, "bgp3")
	weir, r1, r2 := newHost(t, lab, "weir3"), newHost(t, lab, "r1"), newHost(t, lab, "r2")
	cable(t, weir, r1, 1)
	cable(t, weir, r2, 2)
	f := startFRR(t, r1, `
router bgp 65000
 bgp router-id 10.0.1.1
 no bgp ebgp-requires-policy
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 timers bgp 1 3
 neighbor 10.0.1.2 remote-as 65010
 neighbor 10.0.1.2 passive
`)
	b := startBIRD(t, r2, `
router id 10.0.2.1;
protocol device {}
protocol direct { ipv4; }
protocol kernel { ipv4 { export filter { if source = RTS_BGP then accept; reject; }; }; }
protocol bgp weir {
	local as 65001; neighbor 10.0.2.2 as 65010; passive;
	hold time 3; keepalive time 1;
	ipv4 { import all; export none; };
	graceful restart on;
}
`)
	vip := netip.MustParsePrefix("203.0.113.10/32")
	c := weir0()
	c.Peers = []Peer{
		quick(Peer{Name: "r1", Address: addr("10.0.1.1"), ASN: theirs, GracefulRestart: true, RestartTime: 30 * time.Second}),
		quick(Peer{Name: "r2", Address: addr("10.0.2.1"), ASN: 65001, GracefulRestart: true, RestartTime: 30 * time.Second}),
	}
	w := startRemote(t, weir, c)
	w.set("203.0.113.10")
	w.awaitUp(1, "r1", "r2")
	if !w.session("r1").GracefulRestart || !w.session("r2").GracefulRestart {
		t.Errorf("the routers take no part in it: %+v", w.now().Sessions)
	}
	there := func() {
		t.Helper()
		if err := router.AwaitHops(t.Context(), r1, vip, addr("10.0.1.2")); err != nil {
			t.Fatal(err)
		}
		if err := router.AwaitHops(t.Context(), r2, vip, addr("10.0.2.2")); err != nil {
			t.Fatal(err)
		}
	}
	there()
	// The router restarts.
	if err := f.KillBGP(); err != nil {
		t.Fatal(err)
	}
	w.awaitDown("r1", "")
	if err := f.StartBGP(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.awaitUp(1, "r1")
	if x := w.session("r1"); x.Flaps != 1 {
		t.Errorf("%+v", x)
	}
	until(t, "the log says what it was", func() bool {
		return strings.Contains(w.process.Output(), `reason="connection lost: the router closed it without a notification`)
	})
	onePath(t, f, vip.String(), "10.0.1.2", func(router.Path) error { return nil })
	there()

	// From now on the routers' kernels may not take the route away for a moment. Before,
	// FRR 8.4 itself at times does: on its return it drops what its kernel has as soon
	// as it has been told all, and may have to look the next hop up first.
	monitors := make(map[string]func() string)
	for _, h := range []*netlab.Host{r1, r2} {
		p, err := h.Start(exec.Command("ip", "-tshort", "monitor", "route"))
		if err != nil {
			t.Fatal(err)
		}
		monitors[h.Name()] = p.Output
	}

	// weir restarts.
	w.kill()
	onePath(t, f, vip.String(), "10.0.1.2", func(p router.Path) error {
		if !p.Stale {
			return fmt.Errorf("not stale: %+v", p)
		}
		return nil
	})
	there()
	w = startRemote(t, weir, c)
	w.set("203.0.113.10")
	w.awaitUp(1, "r1", "r2")
	onePath(t, f, vip.String(), "10.0.1.2", func(p router.Path) error {
		if p.Stale {
			return fmt.Errorf("still stale: %+v", p)
		}
		return nil
	})
	birdHas(t, b, vip.String(), "weir", "BGP.next_hop: 10.0.2.2")
	there()
	for name, output := range monitors {
		if out := output(); strings.Contains(out, "Deleted 203.0.113.10") {
			t.Errorf("the kernel of %s lost the route:\n%s", name, out)
		}
	}
	// What is not set after a restart is taken back as soon as the routers know
	// that this is all.
	w.kill()
	w = startRemote(t, weir, c)
	w.set("203.0.113.11")
	if err := router.AwaitHops(t.Context(), r1, vip); err != nil {
		t.Error(err)
	}
	if err := router.AwaitHops(t.Context(), r2, vip); err != nil {
		t.Error(err)
	}
}
