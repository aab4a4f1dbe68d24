package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
	"weir/lab/traffic"
)

// Backend is a server behind weir: a host that holds the VIPs on lo, with HTTP
// and echo on each of them, and with the same and /healthz on port 8080 of its
// own addresses.
type Backend struct {
	Name         string
	Host         *netlab.Host
	Addr4, Addr6 netip.Addr
	MAC          string // of its interface eth0, as it was when it was made

	site   *Site
	server *traffic.Server // nil while it is stopped
	stop   context.CancelFunc
	ended  chan struct{} // closed when the server has
}

func newBackend(s *Site, i int) *Backend {
	number := 11 + i
	segment := 0
	if s.opt.TwoArmed {
		segment = 1
	}
	b := &Backend{
		Name:  fmt.Sprintf("b%d", i+1),
		Addr4: netip.AddrFrom4([4]byte{10, 0, byte(segment), byte(number)}),
		Addr6: netip.MustParseAddr(fmt.Sprintf("fd00::%d", number)),
		site:  s,
	}
	if s.opt.TwoArmed {
		b.Addr6 = netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", number))
	}
	return b
}

func (b *Backend) addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return b.Addr6
	}
	return b.Addr4
}

func (b *Backend) build(ctx context.Context) (err error) {
	if b.Host, err = b.site.Lab.Host(b.Name); err != nil {
		return err
	}
	link, err := b.Host.Connect(b.site.BackNet, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{
		netip.PrefixFrom(b.Addr4, 24), netip.PrefixFrom(b.Addr6, 64),
	}})
	if err != nil {
		return err
	}
	b.MAC = link.MAC.String()
	for _, vip := range b.site.VIPs() {
		if err := b.Host.ServeVIP(vip.Addr()); err != nil {
			return err
		}
	}
	if err := b.Host.Do(b.routes); err != nil {
		return err
	}
	if err := b.openServers(ctx); err != nil {
		return err
	}
	if b.site.opt.DSROnly {
		return nil
	}
	return b.startDecap()
}

// tunnelled is the routing table for what the backend sends from a VIP that is
// reached through a tunnel.
const tunnelled = 100

// What is left of an MTU of 1500 for a TCP segment inside a tunnel: both IP
// headers, the outer an IPv6 one whichever it is, and 20 bytes of TCP. The
// clients take it from the backend's SYN+ACK, and weir gets no packet that is
// too long with the tunnel header.
const (
	advMSS4 = 1500 - 40 - 20 - 20
	advMSS6 = 1500 - 40 - 40 - 20
)

// routes adds the way to the clients where it is not on the link, and once more
// with a smaller MSS for the VIPs behind tunnels. It runs in the backend.
func (b *Backend) routes() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, family := range []struct {
		clients, router netip.Prefix
		vip             netip.Addr
		mss             int
	}{
		{front4, routerBack4, vipIPIP4.Addr(), advMSS4},
		{front6, routerBack6, vipIPIP6.Addr(), advMSS6},
	} {
		route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(family.clients)}
		if b.site.opt.TwoArmed {
			route.Gw = family.router.Addr().AsSlice()
			if err := netlink.RouteReplace(&route); err != nil {
				return fmt.Errorf("add route to %s: %w", family.clients, err)
			}
		}
		if b.site.opt.DSROnly {
			continue
		}
		route.Table, route.AdvMSS = tunnelled, family.mss
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("add route to %s with mss %d: %w", family.clients, family.mss, err)
		}
		rule := netlink.NewRule()
		rule.Src, rule.Table, rule.Priority = ipNet(netip.PrefixFrom(family.vip, family.vip.BitLen())), tunnelled, tunnelled
		if family.vip.Is6() {
			rule.Family = netlink.FAMILY_V6
		} else {
			rule.Family = netlink.FAMILY_V4
		}
		if err := netlink.RuleAdd(rule); err != nil && !isExist(err) {
			return fmt.Errorf("add rule from %s: %w", family.vip, err)
		}
	}
	return nil
}

// startDecap runs weir decap, which stays until the site is closed, and waits
// until it has its program on the interface.
func (b *Backend) startDecap() error {
	p, err := b.Host.Start(exec.Command(b.site.opt.Weir, "decap", "--interface", "eth0",
		"--vip", b.site.IPIP4.Addr().String(), "--vip", b.site.IPIP6.Addr().String()))
	if err != nil {
		return err
	}
	deadline := time.Now().Add(stopGrace)
	for !strings.Contains(p.Output(), "stripping") {
		select {
		case <-p.Done():
			return fmt.Errorf("weir decap on %s: %w: %s", b.Name, exitError(p), p.Output())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("weir decap on %s: not ready in %v: %s", b.Name, stopGrace, p.Output())
		}
	}
	return nil
}

func (b *Backend) openServers(ctx context.Context) error {
	listen := append(b.site.VIPs(), netip.AddrPortFrom(b.Addr4, healthPort), netip.AddrPortFrom(b.Addr6, healthPort))
	server, err := traffic.NewServer(ctx, traffic.ServerConfig{
		Name: b.Name, TCP: listen, UDP: listen,
		Listen: b.Host.Listen, ListenPacket: b.Host.ListenPacket,
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(context.Background())
	b.server, b.stop, b.ended = server, stop, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = server.Run(running) // an end before closeServers is seen by the clients
	}(b.ended)
	return nil
}

func (b *Backend) closeServers() {
	if b.server == nil {
		return
	}
	b.stop()
	<-b.ended
	b.server = nil
}

// SetHealthy decides what the backend answers to health checks.
func (b *Backend) SetHealthy(healthy bool) { b.server.SetHealthy(healthy) }

// Stop makes the backend as silent as a machine that lost its power: first its
// link goes down, and then its servers close.
func (b *Backend) Stop() error {
	err := b.Host.LinkDown("eth0")
	b.closeServers()
	return err
}

// Start brings a backend back that was stopped.
func (b *Backend) Start() error {
	if b.server != nil {
		return errors.New("start backend " + b.Name + ": it is not stopped")
	}
	if err := b.Host.LinkUp("eth0"); err != nil {
		return err
	}
	if err := b.Host.Do(b.routes); err != nil {
		return err
	}
	return b.openServers(context.Background())
}

func isExist(err error) bool { return errors.Is(err, unix.EEXIST) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
