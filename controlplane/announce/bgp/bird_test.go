package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weir/lab/netlab"
	"weir/lab/router"
)

func startBIRD(t *testing.T, h *netlab.Host, text string) *router.BIRD {
	t.Helper()
	b, err := router.StartBIRD(t.Context(), h, text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("bird on %s:\n%s", h.Name(), b.Log())
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// birdHas waits until a route of one of BIRD's protocols has all of these lines,
// or, without any, until there is no such route.
func birdHas(t *testing.T, b *router.BIRD, prefix, protocol string, lines ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("bird has %s by %s with %q", prefix, protocol, lines), func() error {
		out, err := b.Query(context.Background(), "show route "+prefix+" all protocol "+protocol)
		if len(lines) == 0 {
			switch {
			case err == nil && strings.Contains(out, prefix):
				return errors.New(out)
			case err != nil && strings.Contains(err.Error(), "Network not found"):
				return nil // birdc's exit status is then 1
			}
			return err
		}
		for _, line := range lines {
			if err == nil && !strings.Contains(out+"\n", "\t"+line+"\n") {
				err = fmt.Errorf("no %q in %s", line, out)
			}
		}
		return err
	})
}

// TestBIRD has an eBGP session by IPv4 and an iBGP session by IPv6 with one BIRD,
// which is behind a router that only forwards.
func TestBIRD(t *testing.T) {
	t.Parallel()
	lab := newLab(t, "bgp2")
	weir, mid, far := newHost(t, lab, "weir2"), newHost(t, lab, "mid"), newHost(t, lab, "far")
	cable(t, weir, mid, 1)
	cable(t, mid, far, 2)
	err := errors.Join(mid.Forward(),
		weir.AddRoute(netip.MustParsePrefix("10.0.2.0/24"), addr("10.0.1.1")), weir.AddRoute(netip.MustParsePrefix("fd00:2::/64"), addr("fd00:1::1")),
		far.AddRoute(netip.MustParsePrefix("10.0.1.0/24"), addr("10.0.2.2")), far.AddRoute(netip.MustParsePrefix("fd00:1::/64"), addr("fd00:2::2")))
	if err != nil {
		t.Fatal(err)
	}
	b := startBIRD(t, far, `
router id 10.0.2.1;
protocol device {}
protocol direct { ipv4; ipv6; }
protocol static { ipv4; route 10.0.1.0/24 via 10.0.2.2; }
protocol static { ipv6; route fd00:1::/64 via fd00:2::2; }
protocol static { ipv4; route 198.51.100.0/24 blackhole; }
template bgp fast {
	hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 2;
}
protocol bgp outside from fast {
	local 10.0.2.1 as 65001; neighbor 10.0.1.2 as 65011; multihop 2;
	ipv4 { import all; export all; };
}
protocol bgp inside from fast {
	local fd00:2::1 as 65010; neighbor fd00:1::2 as 65010;
	ipv6 { import all; export all; };
	ipv4 { import all; export all; next hop self; };
}
`)
	c := weir0()
	c.NextHop6 = netip.Addr{} // the session's local address
	outside := quick(Peer{Name: "outside", Address: addr("10.0.2.1"), ASN: 65001, LocalASN: 65011})
	inside := quick(Peer{Name: "inside", Address: addr("fd00:2::1"), ASN: ours, Source: addr("fd00:1::2"), IPv4: true, IPv6: true,
		NextHop: addr("10.0.1.2"), LocalPref: num(300)})
	c.Peers = []Peer{outside, inside}
	c.Pools["public"] = Pool{Communities: []string{"no-export", "65000:100", "4200000000:1:2"}, MED: num(10), LocalPref: num(5)}
	w := startRemote(t, weir, c)
	w.set("203.0.113.10@public", "2001:db8:1::10@public")
	w.awaitUp(2, "inside")
	w.awaitDown("outside", "set multihop") // a TTL of 1 does not get there
	c.Peers[0].Multihop = 2
	w.configure(c)
	w.awaitUp(1, "outside")

	common := []string{"BGP.community: (65000,100) (65535,65281)", "BGP.large_community: (4200000000, 1, 2)", "BGP.med: 10"}
	birdHas(t, b, "203.0.113.10/32", "outside", append(common, "BGP.as_path: 65011", "BGP.next_hop: 10.0.1.2", "BGP.local_pref: 100")...)
	birdHas(t, b, "203.0.113.10/32", "inside", append(common, "BGP.as_path: ", "BGP.next_hop: 10.0.1.2", "BGP.local_pref: 300")...)
	birdHas(t, b, "2001:db8:1::10/128", "inside", append(common, "BGP.as_path: ", "BGP.next_hop: fd00:1::2", "BGP.local_pref: 300")...)
	birdHas(t, b, "198.51.100.0/24", "inside")
	birdHas(t, b, "198.51.100.0/24", "outside")

	// Nothing is heard for the hold time; after that it comes back by itself.
	if err := mid.LinkDown("eth2"); err != nil {
		t.Fatal(err)
	}
	w.awaitDown("outside", "")
	w.awaitDown("inside", "")
	for _, name := range []string{"outside", "inside"} {
		if x := w.session(name); x.Flaps != 1 {
			t.Errorf("%+v", x)
		}
	}
	until(t, "the log says that it was the hold timer", func() bool {
		return strings.Count(w.process.Output(), `reason="this node ended it: hold timer expired"`) == 2
	})
	if err := mid.LinkUp("eth2"); err != nil {
		t.Fatal(err)
	}
	w.awaitUp(1, "outside")
	w.awaitUp(2, "inside")
	birdHas(t, b, "203.0.113.10/32", "outside", "BGP.med: 10")
	w.set("2001:db8:1::10@public")
	birdHas(t, b, "203.0.113.10/32", "outside")
	birdHas(t, b, "203.0.113.10/32", "inside")
	w.leave()
	birdHas(t, b, "2001:db8:1::10/128", "inside")
	w.awaitLeft()
}
