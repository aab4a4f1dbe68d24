package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"weir/controlplane/api"
	"weir/lab/netlab"
	"weir/lab/site"
	"weir/perf/measure"
)

// Addresses of the network in which weir checks. Backends are in a network for
// each of their hosts, behind a router: weir has one neighbour.
//
//	weir eth0 .2 ── 10.0.0.0/24 ── .1 router .1 ── 10.0.1.0/24 ── .2 farm0, 10.64.x.y
//	                                         .1 ── 10.0.2.0/24 ── .2 farm1, 10.65.x.y
var (
	vip      = netip.MustParseAddrPort("10.0.0.200:80")
	nearAddr = netip.MustParsePrefix("10.0.0.2/24")
	hopAddr  = netip.MustParsePrefix("10.0.0.1/24")
	farNet   = netip.MustParsePrefix("10.64.0.0/10")
)

const (
	minChecked = 5
	maxChecked = 16 * farmSize

	// farmSize is how many backends are one host. weir decap takes packets for
	// 4,096 addresses of a host.
	farmSize = 2500

	// patrol is how often weir is asked how far it is. That costs it something,
	// which is in Cell.StartCPU, and not in what is measured later.
	patrol      = 250 * time.Millisecond
	readyWithin = 2 * time.Minute
)

// rig is weir, and behind a router everybody it checks.
type rig struct {
	lab     *netlab.Lab
	router  *netlab.Host
	farms   []*farm
	weir    *site.Weir
	dir     string
	started time.Time
}

func newRig(ctx context.Context, opt *Options, cell *Cell) (_ *rig, err error) {
	r := &rig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = os.MkdirTemp("", "weir-checks-"); err != nil {
		return nil, err
	}
	if r.lab, err = netlab.New("checks"); err != nil {
		return nil, err
	}
	if r.router, err = r.lab.Host("router"); err != nil {
		return nil, err
	}
	if err := r.router.Forward(); err != nil {
		return nil, err
	}
	host, err := r.lab.Host("weir")
	if err != nil {
		return nil, err
	}
	err = host.ConnectTo(r.router,
		netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{nearAddr}},
		netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{hopAddr}})
	if err != nil {
		return nil, err
	}
	if err := host.AddRoute(farNet, hopAddr.Addr()); err != nil {
		return nil, err
	}
	var backends []netip.Addr
	for len(backends) < opt.Backends {
		f, err := newFarm(ctx, r.lab, r.router, len(r.farms), min(farmSize, opt.Backends-len(backends)), opt.Weir)
		if err != nil {
			return nil, err
		}
		r.farms = append(r.farms, f)
		backends = append(backends, f.backends...)
	}
	if r.weir, err = site.NewWeir(host, opt.Weir, r.dir, config(opt, cell, backends), nil); err != nil {
		return nil, err
	}
	r.started = time.Now()
	return r, r.weir.Start(ctx)
}

// config has the backends that are checked in one service, and the others
// in another.
func config(opt *Options, cell *Cell, backends []netip.Addr) *site.Config {
	service := func(name string, port uint16, backends []netip.Addr) site.Service {
		s := site.Service{
			Name: name, Mode: "ipip", Addresses: []string{vip.Addr().String()}, Ports: []string{fmt.Sprintf("tcp/%d", port)},
		}
		for _, b := range backends {
			s.Add(b)
		}
		return s
	}
	c := &site.Config{
		Node:       "lb1",
		Interfaces: []site.Interface{{Name: "eth0"}},
		Flows:      site.Flows{Entries: site.FlowEntries},
	}
	if cell.Checked > 0 {
		s := service("checked", vip.Port(), backends[:cell.Checked])
		s.Health = &site.Health{Interval: opt.Interval.String(), CheckAddress: string(cell.To)}
		if cell.Kind == HTTP {
			s.Health.HTTP = &site.HTTPCheck{Path: "/healthz"}
		} else {
			s.Health.TCP = &site.TCPCheck{}
		}
		if cell.To == ToVIP {
			s.Health.CheckAddress = "" // the default
		}
		c.Services = append(c.Services, s)
	}
	if rest := backends[cell.Checked:]; len(rest) > 0 {
		c.Services = append(c.Services, service("unchecked", vip.Port()+1, rest))
	}
	return c
}

// up returns how many backends are up, and how many of these have passed a check.
func (r *rig) up(ctx context.Context) (up, passed int, err error) {
	var backends []api.Backend
	if err := r.weir.API().Get(ctx, "backends", &backends); err != nil {
		return 0, 0, err
	}
	for i := range backends {
		b := &backends[i]
		if b.Status != "up" {
			continue
		}
		up++
		if b.Health != nil && b.Health.State == "up" {
			passed++
		}
	}
	return up, passed, nil
}

// ready waits until all backends are up, and those that are checked have passed
// a check.
func (r *rig) ready(ctx context.Context, all, checked int) error {
	for {
		up, passed, err := r.up(ctx)
		if err != nil {
			return err
		}
		if up == all && passed == checked {
			return nil
		}
		if time.Since(r.started) > readyWithin {
			return fmt.Errorf("of %d backends %d are up, and of %d checked ones %d have passed, after %v", all, up, checked, passed, readyWithin)
		}
		if err := measure.Sleep(ctx, patrol); err != nil {
			return err
		}
	}
}

// served returns what all farms have served.
func (r *rig) served() (s served) {
	for _, f := range r.farms {
		s.add(f.served())
	}
	return s
}

// close ends everything and removes it. What was not got to is nil.
func (r *rig) close() error {
	var errs []error
	if r.weir != nil {
		errs = append(errs, r.weir.Stop(), r.weir.Close())
	}
	for _, f := range r.farms {
		errs = append(errs, f.close())
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}
