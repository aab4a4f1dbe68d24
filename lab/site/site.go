// Package site is the standard weir site: clients, a weir, and backends behind
// it, as real hosts with real servers on one machine.
//
// The problem it solves: every end-to-end test and the demonstration need the
// same dozen hosts, addresses, routes, servers and configuration keys, and each
// has one thing it wants different. So a site is complete when New returns, all
// that is particular about it is open to its user, and weir itself runs as the
// user of the program runs it: the built binary, a file, a socket.
//
// One-armed, the default, everything is on one Ethernet segment:
//
//	client .100 ──┐
//	weir   .2   ──┤ 10.0.0.0/24, fd00::/64
//	b1 … bN .11 ──┘
//
// Two-armed, backends are on a segment of their own, and answer the clients
// through a router and not through weir:
//
//	client .100 ──┐             ┌── weir eth1 .2
//	weir eth0 .2 ─┤ 10.0.0.0/24 │
//	router .1   ──┘ fd00::/64   ├── router .1
//	                            └── b1 … bN .11
//	                                10.0.1.0/24, fd00:1::/64
//
// For mode ipip the backends run weir decap. A site needs root.
package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"weir/controlplane/api"
	"weir/lab/netlab"
	"weir/lab/traffic"
)

// The names of weir's interfaces. In a one-armed site only Front is there.
const (
	Front = "eth0" // to the clients
	Back  = "eth1" // to the backends
)

// Names of the services in the configuration that a site starts with.
const (
	DSR4  = "dsr4"  // mode dsr, IPv4
	DSR6  = "dsr6"  // mode dsr, IPv6
	IPIP4 = "ipip4" // mode ipip, IPv4 in IPv4
	IPIP6 = "ipip6" // mode ipip, IPv6 in IPv6
)

// The addresses of a site. Those of backends are in [Backend].
var (
	client4, client6          = netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("fd00::100")
	front4, front6            = netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")
	weirFront4                = netip.MustParsePrefix("10.0.0.2/24")
	weirFront6                = netip.MustParsePrefix("fd00::2/64")
	weirBack4                 = netip.MustParsePrefix("10.0.1.2/24")
	weirBack6                 = netip.MustParsePrefix("fd00:1::2/64")
	routerFront4              = netip.MustParsePrefix("10.0.0.1/24")
	routerFront6              = netip.MustParsePrefix("fd00::1/64")
	routerBack4               = netip.MustParsePrefix("10.0.1.1/24")
	routerBack6               = netip.MustParsePrefix("fd00:1::1/64")
	vipDSR4, vipDSR6          = netip.MustParseAddrPort("10.0.0.200:80"), netip.MustParseAddrPort("[fd00::200]:80")
	vipIPIP4, vipIPIP6        = netip.MustParseAddrPort("10.0.0.201:80"), netip.MustParseAddrPort("[fd00::201]:80")
	healthPort         uint16 = 8080
)

// Options say what a site is like. Only Name and Weir have to be set.
type Options struct {
	Name string // of the lab, see [netlab.New]
	Weir string // path of the weir binary

	Backends int    // 0: 2; 80 at most
	Queues   int    // of weir's NICs, and of the clients'; 0: 1
	Driver   string // of weir's interfaces: auto, afxdp, afpacket; empty: auto
	XDPMode  string // of weir's interfaces: auto, zero-copy, copy, generic; empty: auto
	Health   bool   // weir checks the backends, five times a second
	TwoArmed bool   // backends have a segment of their own
	DSROnly  bool   // leaves the ipip services out, and weir decap on the backends

	Log io.Writer // what weir logs is written here as well as kept; may be nil
}

// Site is a network with clients and backends in it, and weir if it has been
// started. Its methods are not to be called by two goroutines at once; the
// clients may be used by any number of them.
type Site struct {
	Lab        *netlab.Lab
	FrontNet   *netlab.Switch
	BackNet    *netlab.Switch // FrontNet in a one-armed site
	ClientHost *netlab.Host
	WeirHost   *netlab.Host
	Router     *netlab.Host // nil in a one-armed site

	// Client talks from the client's host.
	Client *traffic.Client

	// Client4 and Client6 are the client's addresses.
	Client4, Client6 netip.Addr

	// The VIPs. TCP and UDP have the same port: HTTP and echo of
	// [traffic.Server] are behind it.
	DSR4, DSR6, IPIP4, IPIP6 netip.AddrPort

	Backends []*Backend

	// Config is what StartWeir and WriteConfig render to ConfigPath.
	Config     *Config
	ConfigPath string
	Socket     string // of weir's api

	opt Options
	dir string // of all files; removed by Close
	api *api.Client
	log logFile

	weir *netlab.Process // nil if it is not running
}

// New builds a site and starts its backends, but not weir.
func New(ctx context.Context, opt Options) (*Site, error) {
	if opt.Backends == 0 {
		opt.Backends = 2
	}
	opt.Queues = max(opt.Queues, 1)
	if opt.Backends < 1 || opt.Backends > 80 {
		return nil, fmt.Errorf("new site: %d backends, want 1 to 80", opt.Backends)
	}
	if _, err := os.Stat(opt.Weir); err != nil {
		return nil, fmt.Errorf("new site: the weir binary: %w; build it with make build", err)
	}
	weir, err := filepath.Abs(opt.Weir)
	if err != nil {
		return nil, fmt.Errorf("new site: %w", err)
	}
	opt.Weir = weir
	s := &Site{
		opt: opt, Client4: client4, Client6: client6,
		DSR4: vipDSR4, DSR6: vipDSR6, IPIP4: vipIPIP4, IPIP6: vipIPIP6,
	}
	if err := s.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("new site: %w", err), s.Close())
	}
	return s, nil
}

func (s *Site) build(ctx context.Context) (err error) {
	if s.dir, err = os.MkdirTemp("", "weir-site-"); err != nil {
		return err
	}
	s.ConfigPath = filepath.Join(s.dir, "weir.yaml")
	s.Socket = filepath.Join(s.dir, "weir.sock")
	s.api = api.NewClient(s.Socket)
	if err := s.log.open(filepath.Join(s.dir, "weir.log"), s.opt.Log); err != nil {
		return err
	}
	if s.Lab, err = netlab.New(s.opt.Name); err != nil {
		return err
	}
	if s.FrontNet, err = s.Lab.Switch("front"); err != nil {
		return err
	}
	s.BackNet = s.FrontNet
	if s.opt.TwoArmed {
		if s.BackNet, err = s.Lab.Switch("back"); err != nil {
			return err
		}
	}
	for i := range s.opt.Backends {
		s.Backends = append(s.Backends, newBackend(s, i))
	}
	var group errgroup.Group
	group.Go(s.buildClient)
	group.Go(s.buildWeir)
	group.Go(s.buildRouter)
	for _, b := range s.Backends {
		group.Go(func() error { return b.build(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	s.Config = s.defaultConfig()
	return nil
}

func (s *Site) buildClient() (err error) {
	if s.ClientHost, err = s.Lab.Host("client"); err != nil {
		return err
	}
	s.Client = &traffic.Client{Dial: s.ClientHost.DialContext, Timeout: clientTimeout}
	_, err = s.ClientHost.Connect(s.FrontNet, netlab.Iface{Name: "eth0", Queues: s.opt.Queues, Addrs: []netip.Prefix{
		netip.PrefixFrom(client4, front4.Bits()), netip.PrefixFrom(client6, front6.Bits()),
	}})
	return err
}

func (s *Site) buildWeir() (err error) {
	if s.WeirHost, err = s.Lab.Host("weir"); err != nil {
		return err
	}
	if err := s.ConnectWeir(Front); err != nil || !s.opt.TwoArmed {
		return err
	}
	return s.ConnectWeir(Back)
}

// ConnectWeir cables one of weir's interfaces to its segment, as New does, for
// tests that have deleted it.
func (s *Site) ConnectWeir(name string) error {
	segment, addrs := s.FrontNet, []netip.Prefix{weirFront4, weirFront6}
	if name == Back {
		segment, addrs = s.BackNet, []netip.Prefix{weirBack4, weirBack6}
	}
	_, err := s.WeirHost.Connect(segment, netlab.Iface{Name: name, Queues: s.opt.Queues, Addrs: addrs})
	return err
}

// buildRouter gives the backends of a two-armed site their way to the clients.
func (s *Site) buildRouter() (err error) {
	if !s.opt.TwoArmed {
		return nil
	}
	if s.Router, err = s.Lab.Host("router"); err != nil {
		return err
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := s.Router.Sysctl(key, "1"); err != nil {
			return err
		}
	}
	if _, err := s.Router.Connect(s.FrontNet, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{routerFront4, routerFront6}}); err != nil {
		return err
	}
	_, err = s.Router.Connect(s.BackNet, netlab.Iface{Name: "eth1", Addrs: []netip.Prefix{routerBack4, routerBack6}})
	return err
}

// VIPs returns the VIPs of all services of the site.
func (s *Site) VIPs() []netip.AddrPort {
	if s.opt.DSROnly {
		return []netip.AddrPort{s.DSR4, s.DSR6}
	}
	return []netip.AddrPort{s.DSR4, s.DSR6, s.IPIP4, s.IPIP6}
}

// Close stops everything and removes the site with all its files. It may be
// called twice.
func (s *Site) Close() error {
	var errs []error
	for _, b := range s.Backends {
		b.closeServers()
	}
	if s.Lab != nil {
		errs = append(errs, s.Lab.Close())
	}
	s.weir = nil
	errs = append(errs, s.log.close())
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
