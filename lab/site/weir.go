package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"weir/controlplane/api"
	"weir/lab/netlab"
)

const (
	clientTimeout = 20 * time.Second // of a client's call
	stopGrace     = 10 * time.Second // from SIGTERM to SIGKILL
	pollInterval  = 20 * time.Millisecond
)

// StartWeir writes the configuration, starts weir, and waits until its api
// answers. When weir ends instead, its output is in the error.
func (s *Site) StartWeir(ctx context.Context) error {
	if s.weir != nil {
		return errors.New("start weir: it is running")
	}
	if err := s.WriteConfig(nil); err != nil {
		return err
	}
	cmd := exec.Command(s.opt.Weir, "run", "--config", s.ConfigPath)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	process, err := s.WeirHost.Start(cmd)
	if err != nil {
		return err
	}
	s.weir = process
	err = s.Await(ctx, func() error {
		select {
		case <-process.Done():
			return nil
		default:
		}
		var info api.Info
		if err := s.api.Get(ctx, "info", &info); err != nil {
			return err
		}
		if info.PID != process.PID() {
			return fmt.Errorf("the api is that of pid %d", info.PID)
		}
		return nil
	})
	select {
	case <-process.Done():
		s.weir = nil
		return fmt.Errorf("start weir: it ended, %w:\n%s", exitError(process), s.WeirLog())
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

// Weir returns the process of a weir that has been started and not stopped, or
// nil.
func (s *Site) Weir() *netlab.Process { return s.weir }

// StopWeir ends weir with SIGTERM, as a service manager does. It returns an
// error if weir did not end well, or in time.
func (s *Site) StopWeir() error { return s.end(unix.SIGTERM) }

// KillWeir ends weir with SIGKILL.
func (s *Site) KillWeir() error { return s.end(unix.SIGKILL) }

func (s *Site) end(sig unix.Signal) error {
	p := s.weir
	if p == nil {
		return nil
	}
	s.weir = nil
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
func (s *Site) Reload(ctx context.Context) (api.Reloaded, error) {
	var r api.Reloaded
	if err := s.WriteConfig(nil); err != nil {
		return r, err
	}
	return r, s.api.Do(ctx, "reload", &r)
}

// API returns a client of weir's api, which lasts as long as the site.
func (s *Site) API() *api.Client { return s.api }

// WeirLog returns all that the site's weirs have logged so far.
func (s *Site) WeirLog() string { return s.log.String() }

// RunWeir runs a weir command in weir's host to its end, for instance "show",
// "backends", and returns its output. The socket is found by itself.
func (s *Site) RunWeir(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.opt.Weir, args...)
	cmd.Env = append(os.Environ(), "WEIR_SOCKET="+s.Socket)
	p, err := s.WeirHost.Start(cmd)
	if err != nil {
		return "", err
	}
	err = p.Wait()
	return p.Output(), err
}

// WaitReady waits until all interfaces are worked, all of Config's backends that
// are active are up as the api says, and those that are checked have passed a
// check.
func (s *Site) WaitReady(ctx context.Context) error {
	err := s.Await(ctx, func() error {
		var interfaces []api.Interface
		var backends []api.Backend
		if err := errors.Join(s.api.Get(ctx, "interfaces", &interfaces), s.api.Get(ctx, "backends", &backends)); err != nil {
			return err
		}
		for _, i := range interfaces {
			if !i.Up || i.Error != "" {
				return fmt.Errorf("interface %s: up %v, error %q", i.Name, i.Up, i.Error)
			}
		}
		want := 0
		for i := range s.Config.Services {
			want += len(s.Config.Services[i].Backends)
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
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for weir to be ready: %w", err)
	}
	return nil
}

// Await calls check until it returns nil, or until ctx is done, when it returns
// the last error. Without a deadline it gives up after 10 seconds.
func (s *Site) Await(ctx context.Context, check func() error) error {
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

// logFile collects what weir writes in a file, and passes it on. It belongs to
// the process's copying goroutine, but for String.
type logFile struct {
	path string
	file *os.File
	also io.Writer
}

func (l *logFile) open(path string, also io.Writer) (err error) {
	l.path, l.also = path, also
	l.file, err = os.Create(path)
	return err
}

// Write implements [io.Writer].
func (l *logFile) Write(b []byte) (int, error) {
	if l.also != nil {
		if n, err := l.also.Write(b); err != nil {
			return n, err
		}
	}
	return l.file.Write(b)
}

func (l *logFile) String() string {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimRight(text, "\n"))
}

func (l *logFile) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
