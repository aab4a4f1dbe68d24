// Package pair is two weirs or more that are one fault-tolerant load balancer,
// with clients, backends and, where routes are announced, a router.
//
// The problem it solves: a single weir is right or wrong at once; two of them
// are only proven by what goes wrong around them. So here are the two networks
// that such weirs are put in, and the faults that befall them, each of which
// can be caused and mended again by one call. What a test or the demonstration
// wants different is in the configuration, which is open to it until a weir is
// started.
//
// On one Ethernet segment, weirs take turns in answering ARP and NDP:
//
//	client    .100 ──┐
//	lb1, lb2  .2   ──┤ 10.0.0.0/24, fd00::/64, VIPs from .200 on
//	b1 … bN   .11  ──┘
//
// Behind a router, which runs FRR or BIRD, they announce routes to VIPs that are
// on no segment, 203.0.113.0/28 and 2001:db8:1::/124:
//
//	client    .100 ── 10.0.90.0/24, fd00:90::/64 ── .1 router
//	lb1, lb2  .2   ──┐
//	b1 … bN   .11  ──┤ 10.0.0.0/24, fd00::/64    ── .1 router
//	r1 … rN   .31  ──── 10.0.1.0/24, fd00:1::/64 ── .1 router
//
// There b1 … bN serve the VIPs of mode dsr, and r1 … rN those of mode ipip. On
// one segment, or if Options.Together says so, b1 … bN serve all. All of it needs
// root.
package pair

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/lab/netlab"
	"weir/lab/router"
	"weir/lab/site"
	"weir/lab/traffic"
)

// Front is the name of the weirs' only interface.
const Front = "eth0"

// GossipPort is that of the weirs' membership protocol, TCP and UDP.
const GossipPort = 7946

// PoolName is the name of the pool that the VIPs are from, where there is one.
const PoolName = "public"

// Routing is who is between the clients and the weirs.
type Routing int

// The kinds.
const (
	NoRouter Routing = iota // all are on one segment
	FRR
	BIRD
)

// Options say what a pair is like. Only Name and Weir have to be set.
type Options struct {
	Name string // of the lab, see [netlab.New]
	Weir string // path of the weir binary

	Weirs    int        // 0: 2; 3 at most
	Backends int        // of each kind; 0: 2; 20 at most
	Modes    site.Modes // DSR, IPIP and NAT; 0: DSR. NAT only without a router
	Routing  Routing
	Driver   string // of the weirs' interfaces; empty: auto
	XDPMode  string

	// Together has no r1 … rN behind a router: b1 … bN serve mode ipip too.
	Together bool

	// Pool says that VIPs are from a pool called PoolName, as they always are
	// behind a router. AllActive says that the weirs on one segment spread new
	// flows over each other.
	Pool, AllActive bool

	// RouterText changes the router's configuration; nil: it stays.
	RouterText func(string) string

	Log io.Writer // what the weirs log is written here as well as kept; may be nil
}

// Weir is one of the weirs.
type Weir struct {
	*site.Weir
	Name         string // of the host and of the node
	Addr4, Addr6 netip.Addr
}

// Pair is a network with clients and backends in it, and weirs as far as they
// have been started. Its methods are not to be called by two goroutines at
// once, but for those that only ask; the clients may be used by any number of
// them.
type Pair struct {
	Lab        *netlab.Lab
	Net        *netlab.Switch // that the weirs are on
	ClientHost *netlab.Host
	Client     *traffic.Client

	// Client4 and Client6 are the client's addresses.
	Client4, Client6 netip.Addr

	// The VIPs of the modes that there are. HTTP and UDP echo are on the port,
	// TCP echo is on site.StreamPort.
	DSR4, DSR6, IPIP4, IPIP6, NAT4, NAT6 netip.AddrPort

	Weirs    []*Weir
	Backends []*site.Backend // b1 … bN
	Remote   []*site.Backend // r1 … rN; none without a router, or together

	Router *netlab.Host // nil without one
	FRR    *router.FRR  // nil unless Routing is FRR
	BIRD   *router.BIRD // nil unless Routing is BIRD

	opt Options
	dir string // of all files; removed by Close
	key string
}

// New builds a pair and starts its backends and its router, but no weir.
func New(ctx context.Context, opt Options) (*Pair, error) {
	if opt.Weirs == 0 {
		opt.Weirs = 2
	}
	if opt.Backends == 0 {
		opt.Backends = 2
	}
	if opt.Modes == 0 {
		opt.Modes = site.DSR
	}
	opt.Together = opt.Together || opt.Routing == NoRouter
	opt.Pool = opt.Pool || opt.AllActive || opt.Routing != NoRouter
	switch {
	case opt.Weirs < 1 || opt.Weirs > 3:
		return nil, fmt.Errorf("new pair: %d weirs, want 1 to 3", opt.Weirs)
	case opt.Backends < 1 || opt.Backends > 20:
		return nil, fmt.Errorf("new pair: %d backends, want 1 to 20", opt.Backends)
	case opt.Modes&^(site.DSR|site.IPIP|site.NAT) != 0:
		return nil, errors.New("new pair: modes are dsr, ipip and nat")
	case opt.Routing != NoRouter && (opt.Modes&site.NAT != 0 || opt.AllActive):
		return nil, errors.New("new pair: behind a router there is no mode nat, and all weirs are active anyway")
	}
	if _, err := os.Stat(opt.Weir); err != nil {
		return nil, fmt.Errorf("new pair: the weir binary: %w; build it with make build", err)
	}
	weir, err := filepath.Abs(opt.Weir)
	if err != nil {
		return nil, fmt.Errorf("new pair: %w", err)
	}
	opt.Weir = weir
	p := &Pair{opt: opt, Client4: client4, Client6: client6, key: base64.StdEncoding.EncodeToString([]byte("the lab's weirs only"[:16]))}
	p.DSR4, p.DSR6, p.IPIP4, p.IPIP6, p.NAT4, p.NAT6 = vip(200), vip6(0x200), vip(201), vip6(0x201), vip(202), vip6(0x202)
	if opt.Routing != NoRouter {
		p.Client4, p.Client6 = far4, far6
		p.DSR4, p.DSR6, p.IPIP4, p.IPIP6 = routed(1), routed6(1), routed(2), routed6(2)
	}
	if err := p.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("new pair: %w", err), p.Close())
	}
	return p, nil
}

func (p *Pair) build(ctx context.Context) (err error) {
	if p.dir, err = os.MkdirTemp("", "weir-pair-"); err != nil {
		return err
	}
	if p.Lab, err = netlab.New(p.opt.Name); err != nil {
		return err
	}
	if p.Net, err = p.Lab.Switch("front"); err != nil {
		return err
	}
	back := p.Net
	if p.opt.Routing != NoRouter {
		if back, err = p.Lab.Switch("back"); err != nil {
			return err
		}
		if err := p.buildRouter(back); err != nil {
			return err
		}
	}
	specs := p.backendSpecs(back)
	all := make([]*site.Backend, len(specs))
	p.Weirs = make([]*Weir, p.opt.Weirs)
	var group errgroup.Group
	group.Go(p.buildClient)
	for i := range specs {
		group.Go(func() (err error) {
			all[i], err = site.NewBackend(ctx, p.Lab, specs[i])
			return err
		})
	}
	for i := range p.Weirs {
		group.Go(func() error { return p.buildWeir(i) })
	}
	err = group.Wait()
	for i, b := range all {
		if b != nil && specs[i].Net == p.Net {
			p.Backends = append(p.Backends, b)
		} else if b != nil {
			p.Remote = append(p.Remote, b)
		}
	}
	if err != nil {
		return err
	}
	for i, w := range p.Weirs {
		*w.Config = *p.config(i)
		w.Config.API.Socket = w.Socket
	}
	return p.startRouter(ctx)
}

// VIPs returns the VIPs of all services.
func (p *Pair) VIPs() (vips []netip.AddrPort) {
	for _, m := range []struct {
		mode site.Modes
		vips []netip.AddrPort
	}{{site.DSR, []netip.AddrPort{p.DSR4, p.DSR6}}, {site.IPIP, []netip.AddrPort{p.IPIP4, p.IPIP6}}, {site.NAT, []netip.AddrPort{p.NAT4, p.NAT6}}} {
		if p.opt.Modes&m.mode != 0 {
			vips = append(vips, m.vips...)
		}
	}
	return vips
}

// Configure changes the configuration of each weir, without putting it in force.
func (p *Pair) Configure(mutate func(*site.Config)) {
	for _, w := range p.Weirs {
		mutate(w.Config)
	}
}

// Start starts weirs at the same time, all unless some are named, and waits
// until they are ready.
func (p *Pair) Start(ctx context.Context, weirs ...*Weir) error {
	if len(weirs) == 0 {
		weirs = p.Weirs
	}
	var group errgroup.Group
	for _, w := range weirs {
		group.Go(func() error {
			err := w.Start(ctx)
			if err == nil {
				err = w.WaitReady(ctx)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// LinkDown pulls the cable out of a weir.
func (p *Pair) LinkDown(w *Weir) error { return w.Host.Unplug(Front) }

// LinkUp puts it back.
func (p *Pair) LinkUp(w *Weir) error { return w.Host.Plug(Front) }

// Isolate has a weir and the others lose each other's gossip, and nothing else,
// until heal is called.
func (p *Pair) Isolate(w *Weir) (heal func() error, err error) {
	return p.Net.Block(w.Host, Front, GossipPort)
}

// Steady returns a client that asks a VIP for a page at an interval.
func (p *Pair) Steady(vip netip.AddrPort, interval, timeout time.Duration) *traffic.Steady {
	client := &traffic.Client{Dial: p.ClientHost.DialContext, Timeout: timeout}
	return traffic.NewSteady(traffic.SteadyConfig{
		Interval: interval,
		Request:  func(ctx context.Context) traffic.Result { return client.Fetch(ctx, vip, 1000) },
	})
}

// Close stops everything and removes the pair with all its files. It may be
// called twice.
func (p *Pair) Close() error {
	var errs []error
	for _, b := range p.Backends {
		b.Close()
	}
	for _, b := range p.Remote {
		b.Close()
	}
	if p.FRR != nil {
		errs = append(errs, p.FRR.Stop())
	}
	if p.BIRD != nil {
		errs = append(errs, p.BIRD.Stop())
	}
	if p.Lab != nil {
		errs = append(errs, p.Lab.Close())
	}
	for _, w := range p.Weirs {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
