package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"weir/lab/netlab"
)

// Where Debian has BIRD.
const (
	birdPath  = "/usr/sbin/bird"
	birdcPath = "/usr/sbin/birdc"
)

// BIRD is a BIRD 2 in a host.
type BIRD struct {
	host *netlab.Host
	dir  string
	bird *netlab.Process // nil while it is not running
	past []*netlab.Process
}

// StartBIRD starts BIRD with a configuration, and waits until it answers.
func StartBIRD(ctx context.Context, host *netlab.Host, text string) (*BIRD, error) {
	b := &BIRD{host: host}
	err := errors.Join(program(birdPath), program(birdcPath))
	if err == nil {
		b.dir, err = os.MkdirTemp("", "weir-bird-")
	}
	if err == nil {
		err = os.WriteFile(b.file("bird.conf"), []byte(text), 0o600)
	}
	if err == nil {
		_, err = host.Run(ctx, birdPath, "-p", "-c", b.file("bird.conf")) // only reads it
	}
	if err == nil {
		err = b.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start bird on %s: %w", host.Name(), err), b.Stop())
	}
	return b, nil
}

func (b *BIRD) file(name string) string { return filepath.Join(b.dir, name) }

// Start starts BIRD again after Kill.
func (b *BIRD) Start(ctx context.Context) error {
	if b.bird != nil {
		return errors.New("start bird: it is running")
	}
	p, err := b.host.Start(exec.Command(birdPath, "-f", "-c", b.file("bird.conf"), "-s", b.file("bird.ctl"), "-P", b.file("bird.pid")))
	if err != nil {
		return err
	}
	b.past = append(b.past, p)
	if err := awaitSocket(ctx, p, b.file("bird.ctl")); err != nil {
		return err
	}
	b.bird = p
	// It listens before it reads its configuration, and answers after that.
	_, err = b.Query(ctx, "show status")
	return err
}

// Stop ends BIRD, which takes its routes out of the kernel, and removes its
// files. It may be called twice.
func (b *BIRD) Stop() error {
	var errs []error
	if b.bird != nil {
		errs = append(errs, b.bird.Stop(stopGrace))
		b.bird = nil
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// Query has birdc execute a command, and returns what it prints.
func (b *BIRD) Query(ctx context.Context, command string) (string, error) {
	args := append([]string{"-s", b.file("bird.ctl")}, strings.Fields(command)...)
	out, err := b.host.Run(ctx, birdcPath, args...)
	if err == nil && strings.Contains(out, "syntax error") {
		err = errors.New("refused")
	}
	if err != nil {
		return "", fmt.Errorf("birdc on %s: %q: %w: %s", b.host.Name(), command, err, out)
	}
	return out, nil
}

// Log returns what BIRD has written to standard error so far.
func (b *BIRD) Log() string {
	var all strings.Builder
	for _, p := range b.past {
		all.WriteString(p.Output())
	}
	return all.String()
}
