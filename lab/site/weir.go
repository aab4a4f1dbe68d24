package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"weir/controlplane/api"
	"weir/lab/netlab"
)

const (
	stopGrace    = 10 * time.Second // from SIGTERM to SIGKILL
	pollInterval = 20 * time.Millisecond
)

// Weir is one weir in a host: the built binary, its file, its socket, its log.
// Its methods are not to be called by two goroutines at once, but for API, Log
// and Await.
type Weir struct {
	Host *netlab.Host

	// Config is what Start, Reload and WriteConfig render to ConfigPath.
	Config     *Config
	ConfigPath string
	Socket     string // of the api

	binary  string
	api     *api.Client
	log     logFile
	process *netlab.Process // nil if it is not running
}

// NewWeir prepares a weir, which keeps its files in a directory of its own that
// exists. What it logs is written to also as well, which may be nil.
func NewWeir(host *netlab.Host, binary, dir string, config *Config, also io.Writer) (*Weir, error) {
	w := &Weir{
		Host: host, Config: config, ConfigPath: filepath.Join(dir, "weir.yaml"), Socket: filepath.Join(dir, "weir.sock"),
		binary: binary,
	}
	w.api = api.NewClient(w.Socket)
	config.API.Socket = w.Socket
	return w, w.log.open(filepath.Join(dir, "weir.log"), also)
}

// WriteConfig changes Config, if mutate is not nil, and writes it to ConfigPath.
func (w *Weir) WriteConfig(mutate func(*Config)) error {
	if mutate != nil {
		mutate(w.Config)
	}
	text, err := yaml.Marshal(w.Config)
	if err != nil {
		return fmt.Errorf("render configuration: %w", err)
	}
	if err := os.WriteFile(w.ConfigPath, text, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// Start writes the configuration, starts weir, and waits until its api answers.
// When weir ends instead, its output is in the error.
func (w *Weir) Start(ctx context.Context) error {
	if w.process != nil {
		return errors.New("start weir: it is running")
	}
	if err := w.WriteConfig(nil); err != nil {
		return err
	}
	cmd := exec.Command(w.binary, "run", "--config", w.ConfigPath)
	cmd.Stdout, cmd.Stderr = &w.log, &w.log
	process, err := w.Host.Start(cmd)
	if err != nil {
		return err
	}
	w.process = process
	err = Await(ctx, func() error {
		select {
		case <-process.Done():
			return nil
		default:
		}
		var info api.Info
		if err := w.api.Get(ctx, "info", &info); err != nil {
			return err
		}
		if info.PID != process.PID() {
			return fmt.Errorf("the api is that of pid %d", info.PID)
		}
		return nil
	})
	select {
	case <-process.Done():
		w.process = nil
		return fmt.Errorf("start weir: it ended, %w:\n%s", exitError(process), w.Log())
	default:
	}
	if err != nil {
		return fmt.Errorf("start weir: %w", err)
	}
	return nil
}

// exitError returns how a process ended, even if that was well.
func exitError(p *netlab.Process) error {
	if err := p.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// Process returns the process of a weir that has been started and not stopped,
// or nil.
func (w *Weir) Process() *netlab.Process { return w.process }

// Stop ends weir with SIGTERM, as a service manager does. It returns an error
// if weir did not end well, or in time.
func (w *Weir) Stop() error { return w.end(unix.SIGTERM) }

// Kill ends weir with SIGKILL.
func (w *Weir) Kill() error { return w.end(unix.SIGKILL) }

func (w *Weir) end(sig unix.Signal) error {
	p := w.process
	if p == nil {
		return nil
	}
	w.process = nil
	if err := p.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-time.After(stopGrace):
		return errors.Join(fmt.Errorf("weir did not end within %v of %v", stopGrace, sig), p.Signal(unix.SIGKILL))
	}
	if err := p.Wait(); err != nil && sig != unix.SIGKILL {
		return fmt.Errorf("weir ended on %v: %w", sig, err)
	}
	return nil
}

// Reload writes Config and has weir put it in force.
func (w *Weir) Reload(ctx context.Context) (api.Reloaded, error) {
	var r api.Reloaded
	if err := w.WriteConfig(nil); err != nil {
		return r, err
	}
	return r, w.api.Do(ctx, "reload", &r)
}

// API returns a client of weir's api, which lasts as long as the Weir.
func (w *Weir) API() *api.Client { return w.api }

// Log returns all that has been logged so far, by weirs before this one too.
func (w *Weir) Log() string { return w.log.String() }

// Run runs a weir command in weir's host to its end, for instance "show",
// "backends", and returns its output. The socket is found by itself.
func (w *Weir) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.binary, args...)
	cmd.Env = append(os.Environ(), "WEIR_SOCKET="+w.Socket)
	p, err := w.Host.Start(cmd)
	if err != nil {
		return "", err
	}
	err = p.Wait()
	return p.Output(), err
}

// WaitReady waits until all interfaces are worked, all of Config's backends that
// are active are up as the api says, and those that are checked have passed a
// check, and it is settled of each VIP whether this weir announces it on links.
func (w *Weir) WaitReady(ctx context.Context) error {
	err := Await(ctx, func() error {
		var interfaces []api.Interface
		var backends []api.Backend
		if err := errors.Join(w.api.Get(ctx, "interfaces", &interfaces), w.api.Get(ctx, "backends", &backends)); err != nil {
			return err
		}
		for _, i := range interfaces {
			if !i.Up || i.Error != "" {
				return fmt.Errorf("interface %s: up %v, error %q", i.Name, i.Up, i.Error)
			}
		}
		want := 0
		for i := range w.Config.Services {
			want += len(w.Config.Services[i].Backends)
		}
		if len(backends) != want { // none at all before the first snapshot
			return fmt.Errorf("the api has %d backends of %d", len(backends), want)
		}
		for _, b := range backends {
			unchecked := b.Health != nil && b.Health.State != "up"
			if b.Admin == "active" && b.Weight > 0 && (b.Status != "up" || unchecked) {
				return fmt.Errorf("backend %s of %s is %s, health %+v: %s", b.Address, b.Service, b.Status, b.Health, b.Reason)
			}
		}
		return w.settled(ctx)
	})
	if err != nil {
		return fmt.Errorf("wait for weir to be ready: %w", err)
	}
	return nil
}

// settled returns an error if weir has not found out yet whether a VIP can be
// its own.
func (w *Weir) settled(ctx context.Context) error {
	var services []api.Service
	var announcements []api.Announcement
	if err := errors.Join(w.api.Get(ctx, "services", &services), w.api.Get(ctx, "announcements", &announcements)); err != nil {
		return err
	}
	said := make(map[string]bool)
	for _, a := range announcements {
		if a.State == "probing" {
			return fmt.Errorf("%s is asked for on %s", a.Address, a.To)
		}
		said[a.Address] = true
	}
	for _, s := range services {
		for _, addr := range s.Addresses {
			if !said[addr.String()] && w.announced(s.Name) {
				return fmt.Errorf("%s of service %s is not announced", addr, s.Name)
			}
		}
	}
	return nil
}

// announced says whether the addresses of a service are certainly announced
// one by one: pools may say something else.
func (w *Weir) announced(service string) bool {
	by := w.Config.Service(service).Announce
	return len(w.Config.Pools) == 0 && (by == nil || len(*by) > 0)
}

// Close closes the log. Weir's process is the lab's to end.
func (w *Weir) Close() error { return w.log.close() }

// Await calls check until it returns nil, or until ctx is done, when it returns
// the last error. Without a deadline it gives up after 10 seconds.
func Await(ctx context.Context, check func() error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", context.Cause(ctx), err)
		}
	}
}
