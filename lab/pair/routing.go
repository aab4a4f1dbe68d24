package pair

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"weir/lab/netlab"
	"weir/lab/router"
)

// The numbers of the autonomous systems.
const (
	RouterAS = 65000
	WeirAS   = 65010
)

// buildRouter adds the router: on eth0 it has the weirs' segment, on eth1 the
// remote backends', and eth2 is for the client.
func (p *Pair) buildRouter(back *netlab.Switch) (err error) {
	if p.Router, err = p.Lab.Host("router"); err != nil {
		return err
	}
	if err := p.Router.Forward(); err != nil {
		return err
	}
	if _, err := p.Router.Connect(p.Net, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{routerFront4, routerFront6}}); err != nil {
		return err
	}
	_, err = p.Router.Connect(back, netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{routerBack4, routerBack6}})
	return err
}

// startRouter starts the daemons, if there is a router.
func (p *Pair) startRouter(ctx context.Context) (err error) {
	change := p.opt.RouterText
	if change == nil {
		change = func(text string) string { return text }
	}
	switch p.opt.Routing {
	case FRR:
		p.FRR, err = router.StartFRR(ctx, p.Router, router.FRRConfig{Text: change(p.frrText())})
	case BIRD:
		p.BIRD, err = router.StartBIRD(ctx, p.Router, change(p.birdText()))
	}
	return err
}

// frrText is for a router that waits for the weirs, gives each three seconds,
// and keeps their routes over a restart of its own.
func (p *Pair) frrText() string {
	var b strings.Builder
	fmt.Fprintf(&b, `frr defaults datacenter
router bgp %d
 bgp router-id 10.0.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 timers bgp 1 3
`, RouterAS)
	var four, six string
	for _, w := range p.Weirs {
		for _, addr := range []netip.Addr{w.Addr4, w.Addr6} {
			fmt.Fprintf(&b, " neighbor %s remote-as %d\n neighbor %s timers connect 1\n neighbor %s passive\n", addr, WeirAS, addr, addr)
		}
		four += fmt.Sprintf("  neighbor %s activate\n", w.Addr4)
		six += fmt.Sprintf("  neighbor %s activate\n", w.Addr6)
	}
	fmt.Fprintf(&b, " address-family ipv4 unicast\n  maximum-paths 8\n%s exit-address-family\n", four)
	fmt.Fprintf(&b, " address-family ipv6 unicast\n  maximum-paths 8\n%s exit-address-family\nexit\n", six)
	return b.String()
}

// birdText is the same for BIRD.
func (p *Pair) birdText() string {
	var b strings.Builder
	fmt.Fprintf(&b, `router id 10.0.0.1;
protocol device {}
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths on; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths on; }
template bgp weir {
	local as %d;
	hold time 3; keepalive time 1; connect retry time 1; error wait time 1, 2;
	passive;
}
`, RouterAS)
	for _, w := range p.Weirs {
		fmt.Fprintf(&b, "protocol bgp %s_4 from weir { neighbor %s as %d; ipv4 { import all; export none; }; }\n", w.Name, w.Addr4, WeirAS)
		fmt.Fprintf(&b, "protocol bgp %s_6 from weir { neighbor %s as %d; ipv6 { import all; export none; }; }\n", w.Name, w.Addr6, WeirAS)
	}
	return b.String()
}

// AwaitRoutes waits until the router's kernel sends packets for an address to
// exactly these weirs, or to nobody.
func (p *Pair) AwaitRoutes(ctx context.Context, addr netip.Addr, weirs ...*Weir) error {
	var via []netip.Addr
	for _, w := range weirs {
		if addr.Is4() {
			via = append(via, w.Addr4)
		} else {
			via = append(via, w.Addr6)
		}
	}
	return router.AwaitHops(ctx, p.Router, netip.PrefixFrom(addr, addr.BitLen()), via...)
}
