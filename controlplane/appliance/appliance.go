// Package appliance puts weir together: it makes all parts from a configuration
// file, connects them, and runs them until told to stop.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/controlplane/announce/l2"
	"weir/controlplane/api"
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
	announcer  *l2.Announcer
	reserved   *reserve.Reservation

	reload sync.Mutex // one reload at a time
}

// Run runs weir until ctx ends or a part fails. SIGHUP reloads the
// configuration. All that is wrong with the file is in the error, a line each.
func Run(ctx context.Context, opt Options) error {
	hup := make(chan os.Signal, 1) // from the start, since an unexpected SIGHUP ends a process
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	cfg, warnings, err := Load(opt.ConfigPath)
	if err != nil {
		return err
	}
	if err := checkPrivilege(); err != nil {
		return err
	}
	log := newLogger(opt.Log, cfg.Log)
	for _, w := range warnings {
		log.Warn(w)
	}
	a := &Appliance{opt: opt, log: log, started: time.Now(), announcer: l2.New(log)}
	if a.Engine, err = engine.New(engineConfig(cfg, log)); err != nil {
		return err
	}
	hops, checker := nexthop.New(log), health.New(log)
	a.reconciler = reconcile.New(cfg, reconcile.Parts{
		DataPlane: a.Engine, NextHops: hops, Health: checker, Announcer: a.announcer,
		DrainsPath: filepath.Join(stateDir(cfg), "drains.json"),
	}, log)
	server, err := api.Listen(cfg.API.Socket, cfg.API.Metrics, a, log)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := a.reserve(cfg); err != nil {
		return err
	}
	defer a.release()
	if err := a.Open(); err != nil {
		return err
	}
	a.logStart(cfg)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.Engine.Run(ctx) })
	g.Go(func() error { return hops.Run(ctx) })
	g.Go(func() error { return checker.Run(ctx) })
	g.Go(func() error { return a.reconciler.Run(ctx) })
	g.Go(func() error { return a.announcer.Run(ctx) })
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return a.reloadOnSignal(ctx, hup) })
	g.Go(func() error { return a.watch(ctx) })
	err = g.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		log.Info("stopped")
		return nil
	}
	return err
}

// Load reads a configuration file and checks it, also against this host.
func Load(path string) (*config.Config, []string, error) {
	host, err := thisHost(nil)
	if err != nil {
		return nil, nil, err
	}
	return loaded(config.Load(path, &host))
}

// loaded turns the warnings of a configuration into texts, and holds its
// nat.shared.ports against this host's.
func loaded(cfg *config.Config, warnings config.Warnings, err error) (*config.Config, []string, error) {
	var texts []string
	for _, w := range warnings {
		texts = append(texts, w.Error())
	}
	if err != nil || len(cfg.NAT.Shared.Addresses) == 0 {
		return cfg, texts, err
	}
	if err := reserve.Check(shared(cfg)); err != nil {
		return nil, texts, fmt.Errorf("nat.shared.ports: %w", err)
	}
	if warning := socketsOn(shared(cfg)); warning != "" {
		texts = append(texts, warning)
	}
	return cfg, texts, nil
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

// stateDir is the folder for what is to outlive the process.
func stateDir(cfg *config.Config) string { return filepath.Dir(cfg.API.Socket) }

func engineConfig(cfg *config.Config, log *slog.Logger) engine.Config {
	ec := engine.Config{
		FlowEntries: cfg.Flows.Entries, Timeouts: timeouts(cfg.Flows.Timeouts),
		StateDir: stateDir(cfg), Log: log,
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

// Announcements implements api.Appliance.
func (a *Appliance) Announcements() map[l2.Key]l2.Status { return a.announcer.Status() }
