package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/bgp"
	"weir/controlplane/announce/l2"
	"weir/controlplane/cluster"
	"weir/controlplane/health"
	"weir/controlplane/ipam"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/controlplane/via"
	"weir/dataplane/affinity"
	"weir/dataplane/engine"
)

// build makes all parts; none of them runs yet.
func (a *Appliance) build(l loaded) (err error) {
	cfg := l.cfg
	ec := engineConfig(cfg, a.log)
	if ec.Room, err = affinity.NewRoom(); err != nil {
		return err
	}
	if a.Engine, err = engine.New(ec); err != nil {
		return err
	}
	var peers l2.Cluster
	if cfg.Cluster != nil {
		if a.cluster, err = cluster.New(clusterConfig(cfg), a.log); err != nil {
			return err
		}
		peers = a.cluster
	}
	a.addresses = addresses{log: a.log, store: ipam.NewStore(cfg.StateDir), cluster: a.cluster}
	a.l2 = l2.New(cfg.Node, peers, a.log)
	a.l2.Configure(l2Config(cfg))
	announcers := []announce.Announcer{a.l2}
	if cfg.BGP != nil {
		// Once and for all: the box's addresses may change while sessions are up.
		if a.routerID, err = routerID(cfg, l.host); err != nil {
			return err
		}
		if a.bgp, err = bgp.New(bgpConfig(cfg, a.routerID), a.log); err != nil {
			return err
		}
		announcers = append(announcers, a.bgp)
	}
	a.network = a.openNetwork()
	a.hops, a.checker = nexthop.New(a.log), health.New(a.log, a.network)
	a.reconciler = reconcile.New(cfg, reconcile.Parts{
		DataPlane: a.Engine, NextHops: a.hops, Health: a.checker, Ways: a.network, Links: a.l2, Announcers: announcers,
		DrainsPath: filepath.Join(cfg.StateDir, "drains.json"),
	}, a.log)
	return nil
}

// network carries health checks.
type network interface {
	health.Network
	reconcile.Ways
	Run(ctx context.Context) error
	Close() error
}

// openNetwork opens the way to VIPs on single backends. Without it weir can do all
// but check these.
func (a *Appliance) openNetwork() network {
	n, err := via.Open(a.log)
	if err != nil {
		a.log.Warn("VIPs cannot be checked on their backends, which count as up; mend this, or set check_address: backend", "error", err)
		return &plainNetwork{health.NewKernel(nil), err}
	}
	return n
}

func (a *Appliance) closeNetwork() {
	if err := a.network.Close(); err != nil {
		a.log.Warn("cannot take the way of health checks away", "error", err)
	}
}

// plainNetwork knows the kernel's routes only.
type plainNetwork struct {
	*health.Kernel
	why error // nothing else works
}

func (p *plainNetwork) ChangeWays(map[string]via.Way, []string) {}

func (p *plainNetwork) Run(context.Context) error { return nil }

func (p *plainNetwork) DialContext(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error) {
	if way != "" {
		return nil, p.unable()
	}
	return p.Kernel.DialContext(ctx, network, to, way)
}

func (p *plainNetwork) Ping(ctx context.Context, to netip.Addr, way string) error {
	if way != "" {
		return p.unable()
	}
	return p.Kernel.Ping(ctx, to, way)
}

func (p *plainNetwork) unable() error { return fmt.Errorf("%w: %w", p.why, health.ErrUnable) }

// hearClaims tells the announcer on links what workers hear of others there.
func (a *Appliance) hearClaims(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-a.Claims():
			a.l2.Claim(l2.Claim{Address: c.Address, MAC: c.MAC, Interface: c.Interface, Probe: c.Probe})
		}
	}
}

// leaveTime is how long weir takes to say goodbye, beyond bgp.shutdown_delay.
const leaveTime = 5 * time.Second

// endTime is more than what it takes to end after that.
const endTime = 20 * time.Second

// leave gives up all that is announced, such that the network uses other nodes
// before this one stops to forward: routes first, as their neighbours need time.
func (a *Appliance) leave() {
	limit := leaveTime
	if b := a.reconciler.Config().BGP; b != nil {
		limit += b.ShutdownDelay
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var errs []error
	errs = append(errs, tellStopping(limit+endTime))
	if a.bgp != nil {
		a.log.Info("withdrawing routes")
		errs = append(errs, a.bgp.Leave(ctx))
	}
	errs = append(errs, a.l2.Leave(ctx))
	if a.cluster != nil {
		errs = append(errs, a.cluster.Leave(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		a.log.Warn("left the network without a proper farewell", "error", err)
	}
}
