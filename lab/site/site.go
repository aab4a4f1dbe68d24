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
// For mode ipip the backends run weir decap. In mode nat they know nothing of
// weir: they serve their own addresses. Where nat keeps the client's address,
// their way to the clients leads through weir.
//
// Besides, there may be a client far away, and a narrow link before the
// backends, each behind the router:
//
//	far    .100 ── 10.0.90.0/24, fd00:90::/64 ── .1 router .1 ── front segment
//	b1 … bN .11 ── 10.0.1.0/24, fd00:1::/64   ── .1 router
//
// Weir's host has no route to the far client. A site needs root.
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
	NAT4  = "nat4"  // mode nat, IPv4, to another port
	NAT6  = "nat6"  // mode nat, IPv6, to another port
	NAT46 = "nat46" // mode nat, an IPv4 VIP with IPv6 backends
	NAT64 = "nat64" // mode nat, an IPv6 VIP with IPv4 backends
)

// Modes is a set of modes of services.
type Modes uint8

// The modes. Keep is nat with the client's address kept; there are no NAT46 and
// NAT64 in it, and it is alone in a site, because the backends' way to the
// clients is another one.
const (
	DSR Modes = 1 << iota
	IPIP
	NAT
	Keep
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
	Modes    Modes  // of the services; 0: DSR and IPIP

	// FarMTU is that of a link between the router and one more client, 0: there
	// is none. The client announces an MSS for 1500 bytes all the same, as one
	// does whose link is not the narrow one on the path.
	FarMTU int

	// HopMTU is that of the backends' segment, which weir then reaches through
	// the router only, 0: they are on a segment of weir's. They announce an MSS
	// for 1500 bytes all the same.
	HopMTU int

	BackMTU int  // of weir's interface Back, whatever the segment takes; 0: 1500
	FullMSS bool // backends do not announce a smaller MSS for a VIP behind a tunnel

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
	Router     *netlab.Host // nil if nothing is behind one
	FarHost    *netlab.Host // nil without a far client

	// Client talks from the client's host, FarClient from the far client's.
	Client, FarClient *traffic.Client

	// Client4 and Client6 are the client's addresses, Far4 and Far6 the far
	// client's.
	Client4, Client6, Far4, Far6 netip.Addr

	// The VIPs. TCP and UDP have the same port: HTTP and echo of
	// [traffic.Server] are behind it.
	DSR4, DSR6, IPIP4, IPIP6, NAT4, NAT6, NAT46, NAT64 netip.AddrPort

	// SNAT4 and SNAT6 are where the SNAT addresses are taken from.
	SNAT4, SNAT6 netip.Prefix

	Backends []*Backend

	// Config is what StartWeir and WriteConfig render to ConfigPath. What it
	// points at may be changed.
	Config     *Config
	ConfigPath string
	Socket     string // of weir's api

	opt  Options
	dir  string // of all files; removed by Close
	weir *Weir  // it has Config, ConfigPath and Socket too
}

// New builds a site and starts its backends, but not weir.
func New(ctx context.Context, opt Options) (*Site, error) {
	if opt.Backends == 0 {
		opt.Backends = 2
	}
	if opt.Modes == 0 {
		opt.Modes = DSR | IPIP
	}
	opt.Queues = max(opt.Queues, 1)
	switch {
	case opt.Backends < 1 || opt.Backends > 80:
		return nil, fmt.Errorf("new site: %d backends, want 1 to 80", opt.Backends)
	case opt.Modes&Keep != 0 && opt.Modes != Keep:
		return nil, errors.New("new site: mode keep goes with no other")
	case opt.HopMTU != 0 && (opt.TwoArmed || opt.Modes&(DSR|Keep) != 0):
		return nil, errors.New("new site: behind a hop, weir is one-armed, and modes are ipip and nat")
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
		opt: opt, Client4: client4, Client6: client6, Far4: far4, Far6: far6, SNAT4: snatFront4, SNAT6: snatFront6,
		DSR4: vipDSR4, DSR6: vipDSR6, IPIP4: vipIPIP4, IPIP6: vipIPIP6,
		NAT4: vipNAT4, NAT6: vipNAT6, NAT46: vipNAT46, NAT64: vipNAT64,
	}
	if opt.TwoArmed {
		s.SNAT4, s.SNAT6 = snatBack4, snatBack6
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
	if s.Lab, err = netlab.New(s.opt.Name); err != nil {
		return err
	}
	if s.FrontNet, err = s.Lab.Switch("front"); err != nil {
		return err
	}
	s.BackNet = s.FrontNet
	if s.split() {
		if s.BackNet, err = s.Lab.Switch("back"); err != nil {
			return err
		}
	}
	s.Backends = make([]*Backend, s.opt.Backends)
	var group errgroup.Group
	group.Go(s.buildClient)
	group.Go(s.buildWeir)
	group.Go(s.buildRouter)
	for i := range s.Backends {
		group.Go(func() (err error) {
			s.Backends[i], err = NewBackend(ctx, s.Lab, s.backendSpec(i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	s.Config = s.defaultConfig()
	if s.weir, err = NewWeir(s.WeirHost, s.opt.Weir, s.dir, s.Config, s.opt.Log); err != nil {
		return err
	}
	s.ConfigPath, s.Socket = s.weir.ConfigPath, s.weir.Socket
	return nil
}

// VIPs returns the VIPs of all services of the site.
func (s *Site) VIPs() []netip.AddrPort {
	vips := s.localVIPs()
	if s.opt.Modes&(NAT|Keep) != 0 {
		vips = append(vips, s.NAT4, s.NAT6)
	}
	if s.opt.Modes&NAT != 0 {
		vips = append(vips, s.NAT46, s.NAT64)
	}
	return vips
}

// localVIPs returns those that the backends hold themselves. Health checks ask
// there.
func (s *Site) localVIPs() (vips []netip.AddrPort) {
	if s.opt.Modes&DSR != 0 {
		vips = append(vips, s.DSR4, s.DSR6)
	}
	if s.opt.Modes&IPIP != 0 {
		vips = append(vips, s.IPIP4, s.IPIP6)
	}
	return vips
}

// backendSpec says what backend number i, from 0, is like.
func (s *Site) backendSpec(i int) BackendSpec {
	number := byte(11 + i)
	spec := BackendSpec{
		Name: fmt.Sprintf("b%d", i+1), Net: s.BackNet, MTU: s.opt.HopMTU, VIPs: s.localVIPs(), Weir: s.opt.Weir, Routes: s.backendRoutes,
		Addr4: netip.AddrFrom4([4]byte{10, 0, 0, number}), Addr6: netip.MustParseAddr(fmt.Sprintf("fd00::%d", number)),
	}
	if s.split() {
		spec.Addr4, spec.Addr6 = netip.AddrFrom4([4]byte{10, 0, 1, number}), netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", number))
	}
	if s.opt.Modes&IPIP != 0 {
		spec.Tunnelled = []netip.Addr{s.IPIP4.Addr(), s.IPIP6.Addr()}
	}
	return spec
}

// split says whether the backends are on a segment of their own.
func (s *Site) split() bool { return s.opt.TwoArmed || s.opt.HopMTU != 0 }

// Close stops everything and removes the site with all its files. It may be
// called twice.
func (s *Site) Close() error {
	var errs []error
	for _, b := range s.Backends {
		if b != nil {
			b.Close()
		}
	}
	if s.Lab != nil {
		errs = append(errs, s.Lab.Close())
	}
	if s.weir != nil {
		errs = append(errs, s.weir.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
