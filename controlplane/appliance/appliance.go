// Package appliance puts weir together: it makes all parts from a configuration
// file, connects them, and runs them until told to stop.
package appliance

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/controlplane/announce/bgp"
	"weir/controlplane/announce/l2"
	"weir/controlplane/api"
	"weir/controlplane/cluster"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/controlplane/reserve"
	"weir/dataplane/afxdp"
	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nic"
)

// Options are what the command line says.
type Options struct {
	ConfigPath string
	Version    string
	Log        io.Writer
}

// Appliance is a running weir. It is what the api asks.
type Appliance struct {
	*engine.Engine
	opt        Options
	log        *slog.Logger
	started    time.Time
	reconciler *reconcile.Reconciler
	hops       *nexthop.Tracker
	checker    *health.Checker
	network    network // of the checks
	reserved   *reserve.Reservation
	addresses  addresses
	cluster    *cluster.Cluster // nil without one
	l2         *l2.Announcer
	bgp        *bgp.Speaker // nil without BGP
	routerID   netip.Addr   // of bgp

	reload sync.Mutex // one reload at a time
}

// Run runs weir until ctx ends or a part fails. SIGHUP reloads the
// configuration. All that is wrong with the file is in the error, a line each.
// When ctx ends, VIPs are given up in good order before forwarding ends, which
// takes as long as bgp.shutdown_delay says.
func Run(ctx context.Context, opt Options) error {
	hup := make(chan os.Signal, 1) // from the start, since an unexpected SIGHUP ends a process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	l, err := load(opt.ConfigPath)
	if err != nil {
		return err
	}
	cfg := l.cfg
	if err := checkPrivilege(); err != nil {
		return err
	}
	log := newLogger(opt.Log, cfg.Log)
	for _, w := range l.warnings {
		log.Warn(w)
	}
	a := &Appliance{opt: opt, log: log, started: time.Now()}
	if err := a.build(l); err != nil {
		return err
	}
	defer a.closeNetwork()
	server, err := api.Listen(cfg.API.Socket, cfg.API.Metrics, a, log)
	if err != nil {
		return err
	}
	defer server.Close()
	a.addresses.begin(l.given, l.had) // only now, as another weir might have had the socket, and the file beside it
	if err := a.reserve(cfg); err != nil {
		return err
	}
	defer a.release()
	if a.cluster != nil {
		if err := a.cluster.Listen(); err != nil {
			return err
		}
	}
	if err := a.Open(); err != nil {
		return err
	}
	a.logStart(cfg)

	// The parts go on for a while when ctx has ended: weir says goodbye first.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	for _, part := range []func(context.Context) error{
		a.Engine.Run, a.hops.Run, a.network.Run, a.checker.Run, a.reconciler.Run, a.l2.Run, server.Run,
		a.watch, a.watchFlows, a.hearClaims, a.agree, a.tellManager,
		func(ctx context.Context) error { return a.reloadOnSignal(ctx, hup) },
	} {
		g.Go(func() error { return part(running) })
	}
	if a.cluster != nil {
		g.Go(func() error { return a.cluster.Run(running) })
	}
	if a.bgp != nil {
		g.Go(func() error { return a.bgp.Run(running) })
	}
	g.Go(func() error {
		defer stop()
		select {
		case <-ctx.Done():
			a.leave()
		case <-running.Done():
		}
		return nil
	})
	err = g.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		log.Info("stopped")
		return nil
	}
	return err
}

func newLogger(w io.Writer, cfg config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		level = slog.LevelInfo
	}
	opt := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// runDir is the folder for what is to outlive the process, but not the kernel.
func runDir(cfg *config.Config) string { return filepath.Dir(cfg.API.Socket) }

func engineConfig(cfg *config.Config, log *slog.Logger) engine.Config {
	ec := engine.Config{
		FlowEntries: cfg.Flows.Entries, Timeouts: timeouts(cfg.Flows.Timeouts),
		StateDir: runDir(cfg), Log: log,
	}
	for _, i := range cfg.Interfaces {
		ei := engine.Interface{
			Name: i.Name, Driver: nic.Driver(i.Driver), Queues: int(i.Queues), CPUs: i.CPUs,
		}
		if i.XDPMode != config.XDPAuto {
			ei.XDPModes = []afxdp.Mode{afxdp.Mode(i.XDPMode)}
		}
		ec.Interfaces = append(ec.Interfaces, ei)
	}
	return ec
}

// timeouts puts the flow table's own default where the configuration has none.
func timeouts(c config.Timeouts) flow.Timeouts {
	t := flow.DefaultTimeouts()
	set := func(to *time.Duration, from time.Duration) {
		if from != 0 {
			*to = from
		}
	}
	set(&t.UDP, c.UDP)
	set(&t.TCPSYN, c.TCPSyn)
	set(&t.TCPEstablished, c.TCPEstablished)
	set(&t.TCPFIN, c.TCPFin)
	set(&t.TCPTimeWait, c.TCPTimeWait)
	set(&t.TCPClosed, c.TCPClosed)
	return t
}

func (a *Appliance) logStart(cfg *config.Config) {
	for _, i := range a.Interfaces() {
		args := []any{"interface", i.Name, "driver", i.Driver}
		if i.Mode != "" {
			args = append(args, "mode", i.Mode)
		}
		args = append(args, "queues", i.Workers)
		if len(i.Reasons) > 0 {
			args = append(args, "why_not_better", strings.Join(i.Reasons, "; "))
		}
		a.log.Info("interface taken", args...)
	}
	for _, w := range fewPorts(cfg, a.workerCount()) {
		a.log.Warn(w)
	}
	a.log.Info("weir runs", "version", a.opt.Version, "node", cfg.Node, "services", len(cfg.Services), "api", cfg.API.Socket)
}

func (a *Appliance) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if _, err := a.Reload(); err != nil {
				a.log.Error("not reloaded; the old configuration stays in force", "error", err)
			}
		}
	}
}

// Info implements api.Appliance.
func (a *Appliance) Info() api.Info {
	return api.Info{
		Version: a.opt.Version, Node: a.reconciler.Config().Node, Config: a.opt.ConfigPath,
		PID: os.Getpid(), Started: a.started, Generation: a.View().Generation,
	}
}

// View implements api.Appliance.
func (a *Appliance) View() *reconcile.View { return a.reconciler.View() }
