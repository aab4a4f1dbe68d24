package pair

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"weir/lab/netlab"
	"weir/lab/site"
	"weir/lab/traffic"
)

// The addresses of a pair.
var (
	client4, client6 = netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("fd00::100")
	far4, far6       = netip.MustParseAddr("10.0.90.100"), netip.MustParseAddr("fd00:90::100")

	routerFront4, routerFront6 = netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")
	routerBack4, routerBack6   = netip.MustParsePrefix("10.0.1.1/24"), netip.MustParsePrefix("fd00:1::1/64")
	routerFar4, routerFar6     = netip.MustParsePrefix("10.0.90.1/24"), netip.MustParsePrefix("fd00:90::1/64")

	default4, default6 = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
)

// vipPort is that of all VIPs.
const vipPort = 80

// clientTimeout is that of a client's call.
const clientTimeout = 20 * time.Second

func vip(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), vipPort)
}

func vip6(n uint16) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("[fd00::%x]:%d", n, vipPort))
}

func routed(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, n}), vipPort)
}

func routed6(n byte) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("[2001:db8:1::%x]:%d", n, vipPort))
}

// poolSize is the number of addresses per family that backends serve, whether
// or not a service has them from the start. They are the first of the pool.
const poolSize = 6

// served returns the VIPs that backends hold on lo.
func (p *Pair) served() (vips []netip.AddrPort) {
	if p.opt.Routing != NoRouter {
		for n := range byte(poolSize) {
			vips = append(vips, routed(n+1), routed6(n+1))
		}
		return vips
	}
	for _, v := range p.VIPs() {
		if v != p.NAT4 && v != p.NAT6 {
			vips = append(vips, v)
		}
	}
	for n := range uint16(poolSize) {
		if v := vip(byte(210 + n)); p.opt.Pool {
			vips = append(vips, v, vip6(0x210+n))
		}
	}
	return vips
}

// poolRanges returns what the pool has.
func (p *Pair) poolRanges() []string {
	if p.opt.Routing != NoRouter {
		return []string{fmt.Sprintf("203.0.113.1-203.0.113.%d", poolSize), fmt.Sprintf("2001:db8:1::1-2001:db8:1::%x", poolSize)}
	}
	return []string{
		"10.0.0.200-10.0.0.201", fmt.Sprintf("10.0.0.210-10.0.0.%d", 210+poolSize-1),
		"fd00::200-fd00::201", fmt.Sprintf("fd00::210-fd00::%x", 0x210+poolSize-1),
	}
}

func (p *Pair) buildClient() (err error) {
	if p.ClientHost, err = p.Lab.Host("client"); err != nil {
		return err
	}
	p.Client = &traffic.Client{Dial: p.ClientHost.DialContext, Timeout: clientTimeout}
	mine := netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{netip.PrefixFrom(p.Client4, 24), netip.PrefixFrom(p.Client6, 64)}}
	if p.Router == nil {
		_, err = p.ClientHost.Connect(p.Net, mine)
		return err
	}
	err = p.ClientHost.ConnectTo(p.Router, mine, netlab.Iface{Name: "eth2", Addrs: []netip.Prefix{routerFar4, routerFar6}})
	return errors.Join(err, p.ClientHost.AddRoute(default4, routerFar4.Addr()), p.ClientHost.AddRoute(default6, routerFar6.Addr()))
}

// buildWeir makes the host of weir number i, from 0, with an empty
// configuration.
func (p *Pair) buildWeir(i int) error {
	w := &Weir{
		Name: fmt.Sprintf("lb%d", i+1), Addr4: netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), Addr6: netip.MustParseAddr(fmt.Sprintf("fd00::%d", 2+i)),
	}
	host, err := p.Lab.Host(w.Name)
	if err != nil {
		return err
	}
	if _, err := host.Connect(p.Net, netlab.Iface{Name: Front, Addrs: []netip.Prefix{netip.PrefixFrom(w.Addr4, 24), netip.PrefixFrom(w.Addr6, 64)}}); err != nil {
		return err
	}
	if p.Router != nil {
		if err := errors.Join(host.AddRoute(default4, routerFront4.Addr()), host.AddRoute(default6, routerFront6.Addr())); err != nil {
			return err
		}
	}
	dir := filepath.Join(p.dir, w.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w.Weir, err = site.NewWeir(host, p.opt.Weir, dir, &site.Config{}, p.opt.Log)
	p.Weirs[i] = w
	return err
}

// backendSpecs says what backends there are.
func (p *Pair) backendSpecs(back *netlab.Switch) (specs []site.BackendSpec) {
	add := func(prefix string, net *netlab.Switch, segment, first int, modes site.Modes, via4, via6 netip.Addr) {
		for i := range p.opt.Backends {
			spec := site.BackendSpec{
				Name: fmt.Sprintf("%s%d", prefix, i+1), Net: net, VIPs: p.served(), Weir: p.opt.Weir,
				Addr4: netip.AddrFrom4([4]byte{10, 0, byte(segment), byte(first + i)}),
				Addr6: netip.MustParseAddr(fmt.Sprintf("fd00:%d::%d", segment, first+i)),
			}
			if segment == 0 {
				spec.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd00::%d", first+i))
			}
			if p.opt.Modes&modes&site.IPIP != 0 {
				spec.Tunnelled = []netip.Addr{p.IPIP4.Addr(), p.IPIP6.Addr()}
			}
			if via4.IsValid() {
				spec.Routes = func() error { return errors.Join(site.Route(default4, via4), site.Route(default6, via6)) }
			}
			specs = append(specs, spec)
		}
	}
	var via4, via6 netip.Addr
	if p.opt.Routing != NoRouter {
		via4, via6 = routerFront4.Addr(), routerFront6.Addr()
	}
	if p.opt.Together {
		add("b", p.Net, 0, 11, p.opt.Modes, via4, via6)
		return specs
	}
	if p.opt.Modes&site.DSR != 0 {
		add("b", p.Net, 0, 11, site.DSR, via4, via6)
	}
	if p.opt.Modes&site.IPIP != 0 {
		add("r", back, 1, 31, site.IPIP, routerBack4.Addr(), routerBack6.Addr())
	}
	return specs
}
