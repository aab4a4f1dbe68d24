package clab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// CheckFailed is returned for a check script that has not exited with 0.
type CheckFailed struct {
	Script string
	Status int // of the script, or 128 and the signal that has ended it
}

func (e *CheckFailed) Error() string {
	return fmt.Sprintf("check %s failed: exit status %d", e.Script, e.Status)
}

// lastWords is how long a script has to clean up after itself.
const lastWords = 3 * time.Second

// Check runs a script that finds the lab's nodes by the variable WEIRLAB_NODES,
// see [Lab.Dir], and returns a [*CheckFailed] if it fails. Its working directory
// is that of the script, and TMPDIR goes with the lab. When the script ends, or ctx
// does, or this process, what is left of the script's process group is killed.
func (l *Lab) Check(ctx context.Context, script string, out io.Writer) error {
	script, err := filepath.Abs(script)
	if err != nil {
		return fmt.Errorf("run check: %w", err)
	}
	if info, err := os.Stat(script); err != nil {
		return fmt.Errorf("run check: %w", err)
	} else if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("run check: %s is no program: chmod +x it", script)
	}
	cmd := exec.CommandContext(ctx, l.self, PartCommand, guardPart, script)
	cmd.Dir = filepath.Dir(script)
	cmd.Env = append(os.Environ(), "WEIRLAB_NODES="+l.Dir(), "TMPDIR="+l.temporary())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 2 * lastWords

	// The parent-death signal comes when the thread ends (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run check: %w", err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("run check: %w", ctx.Err())
	case errors.As(err, &exit):
		return &CheckFailed{Script: script, Status: exit.ExitCode()}
	case err != nil:
		return fmt.Errorf("run check: %w", err)
	}
	return nil
}

// guard runs a script in a process group of its own and returns its exit status.
// When the script ends, when guard is told to end, or when the engine has died,
// which is how it is told then, no process of the group is left.
func guard(script string) (int, error) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	cmd := exec.Command(script)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("run check: %w", err)
	}
	kill := func(sig syscall.Signal) { _ = unix.Kill(-cmd.Process.Pid, sig) } // ESRCH: nothing is left
	defer kill(unix.SIGKILL)
	finished := make(chan error, 1)
	go func() { finished <- cmd.Wait() }()
	select {
	case <-finished:
		return exitStatus(cmd.ProcessState), nil
	case <-told:
	}
	kill(unix.SIGTERM)
	select {
	case <-finished:
	case <-time.After(lastWords):
		kill(unix.SIGKILL)
		<-finished
	}
	return exitStatus(cmd.ProcessState), nil
}

// exitStatus returns what a shell has in $?.
func exitStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
