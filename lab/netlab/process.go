package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputKept is how many bytes at least of a process's output, its last, are
// kept for [Process.Output].
const outputKept = 1 << 20

// Process is a program that runs in a host. The lab kills it when it is closed,
// and the kernel does when the lab's own process dies.
type Process struct {
	cmd    *exec.Cmd
	output tail
	done   chan struct{} // closed when it has ended and err is set
	err    error
}

// Start starts a command that the caller has made with [exec.Command] and not
// started, inside the host, in a process group of its own. Standard output and
// standard error go to [Process.Output] where the caller set nothing else. All
// that the program sees of networking is the host's, /sys included.
//
// The command belongs to the Process from then on: the caller may not call its
// Wait. Close and a cancelled context kill it with SIGKILL.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	operation := "start " + filepath.Base(cmd.Path)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.output
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.output
	}
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second // for children that keep the output open
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true

	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.closed {
		return nil, h.wrap(operation, ErrClosed)
	}
	if err := h.ns.onOwnThread(cmd.Start); err != nil {
		return nil, h.wrap(operation, err)
	}
	h.lab.processes = append(h.lab.processes, p)
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Run runs a program inside the host to its end and returns its output,
// standard error included. An error contains the output.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	p, err := h.Start(exec.CommandContext(ctx, name, args...))
	if err != nil {
		return "", err
	}
	err = p.Wait()
	if err != nil {
		err = h.wrap("run "+name, fmt.Errorf("%w: %s", err, p.Output()))
	}
	return p.Output(), err
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output returns what the program has written so far, the last mebibyte at
// least.
func (p *Process) Output() string { return p.output.String() }

// Done returns a channel that is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the program and returns what [exec.Cmd.Wait] says
// about it: nil for exit status 0. It may be called any number of times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal. One that has ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", filepath.Base(p.cmd.Path), err)
	}
	return nil
}

// Stop asks the program to end with SIGTERM, kills it if it has not within the
// grace time, and returns what [Process.Wait] does.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(grace):
		p.kill()
	}
	return p.Wait()
}

// kill kills the program with all of its process group, unless it has ended.
func (p *Process) kill() {
	select {
	case <-p.done:
	default:
		_ = unix.Kill(-p.PID(), unix.SIGKILL) // ESRCH: it has just ended
	}
}

// tail is a writer that keeps the end of what it is given.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2*outputKept {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-outputKept:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
