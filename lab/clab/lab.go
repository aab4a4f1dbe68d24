package clab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"weir/lab/netlab"
)

// Options say how a topology is deployed.
type Options struct {
	// Weir is the program that nodes of weir's image have at /weir. It is needed
	// only if there are any.
	Weir string

	// Out gets a line for what happens that the file does not make one expect: a
	// command that fails, a main process that ends. Nil: nothing is said.
	Out io.Writer
}

// Lab is a topology that is up. Its methods may be called by several goroutines.
type Lab struct {
	topology *Topology
	net      *netlab.Lab
	self     string // this program
	directory
	control *control

	nodes    map[string]*node
	hosts    map[string]*netlab.Host   // by the name of the node that has the namespace
	switches map[string]*netlab.Switch // by the name of the bridge
	cables   []*cable
	over     map[Wait]chan struct{} // closed when a node's stage is over

	mu       sync.Mutex
	out      io.Writer
	failures []string
}

// Deploy brings a topology up: each node goes through its stages, as many at a
// time as may, and Deploy returns when all commands of all nodes have run. As with
// containerlab, a command that fails is reported and stops nothing, see
// [Lab.Failures]. If anything else fails, or ctx ends, all is removed again.
//
// The program has to run [Part] for the processes that hold the nodes.
func Deploy(ctx context.Context, t *Topology, opt Options) (*Lab, error) {
	l, err := newLab(t, opt)
	if err != nil {
		return nil, fmt.Errorf("deploy %s: %w", t.Name, err)
	}
	nodes, ctx := errgroup.WithContext(ctx)
	for _, n := range l.nodes {
		nodes.Go(func() error { return n.deploy(ctx) })
	}
	for _, name := range bridges(t) {
		nodes.Go(func() error { return l.deployBridge(ctx, name) })
	}
	if err := nodes.Wait(); err != nil {
		return nil, fmt.Errorf("deploy %s: %w", t.Name, errors.Join(err, l.Close()))
	}
	return l, nil
}

// newLab makes all that nodes need before the first of them starts.
func newLab(t *Topology, opt Options) (l *Lab, err error) {
	if opt.Out == nil {
		opt.Out = io.Discard
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		return nil, fmt.Errorf("%w: install util-linux", err)
	}
	short := strings.ReplaceAll(t.Name, "-", "_")
	net, err := netlab.New(short)
	if err != nil {
		return nil, err
	}
	l = &Lab{
		topology: t, net: net, self: self, out: opt.Out,
		nodes: make(map[string]*node), hosts: make(map[string]*netlab.Host), switches: make(map[string]*netlab.Switch),
		over: make(map[Wait]chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if l.directory, err = newDirectory(short); err != nil {
		return l, err
	}
	if l.control, err = newControl(l.socket(), l.answer); err != nil {
		return l, err
	}
	if err := l.writeControls(self); err != nil {
		return l, err
	}
	return l, l.populate(opt.Weir)
}

// populate makes the namespaces, and gives each node what it will be made of.
func (l *Lab) populate(weir string) (err error) {
	for _, n := range l.topology.Nodes {
		for _, stage := range []Stage{Create, CreateLinks, Configure} {
			l.over[Wait{n.Name, stage}] = make(chan struct{})
		}
		switch {
		case n.Kind == Bridge:
			if l.switches[n.Name], err = l.net.Switch(n.Name); err != nil {
				return err
			}
			continue
		case n.Shares == "":
			if l.hosts[n.Name], err = l.net.Host(n.Name); err != nil {
				return err
			}
		}
		if n.Weir {
			if err := program(weir); err != nil {
				return fmt.Errorf("node %s: no weir: %w; build it with `make build`, or name it with --weir", n.Name, err)
			}
		}
		l.nodes[n.Name] = newNode(l, n, weir)
	}
	l.cables = newCables(l)
	return nil
}

// program checks that a path is that of a program.
func program(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is no program", path)
	}
	return err
}

// Dir returns the directory in which scripts find the lab's nodes: a program of
// each node's name, which runs its arguments as a command in the node, and
// .kill and .start, which are given a node's name.
func (l *Lab) Dir() string { return string(l.directory) }

// Exec runs a command in a node to its end and returns its output, standard error
// included. An error has the output.
func (l *Lab) Exec(ctx context.Context, name string, command ...string) (string, error) {
	n, err := l.node(name)
	if err != nil {
		return "", err
	}
	return n.exec(ctx, command)
}

// Kill kills all that runs in a node, as SIGKILL does, and waits for its end. What
// the node has written stays. Its links are gone for good, as with Docker, unless
// another node uses them.
func (l *Lab) Kill(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	return n.kill()
}

// Start starts the main process of a node that was killed, or has ended.
func (l *Lab) Start(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	return n.startAgain()
}

// Output returns what a node's main process has written, however often it was
// started, the last mebibyte at least.
func (l *Lab) Output(name string) (string, error) {
	n, err := l.node(name)
	if err != nil {
		return "", err
	}
	return n.output(), nil
}

// Failures returns, a line each, what has happened that the file does not make
// one expect: commands that failed and main processes that ended by themselves.
func (l *Lab) Failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.failures...)
}

// failure takes note of something.
func (l *Lab) failure(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	l.failures = append(l.failures, line)
	fmt.Fprintln(l.out, line)
}

func (l *Lab) node(name string) (*node, error) {
	if n := l.nodes[name]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("there is no container %q in %s", name, l.topology.Name)
}

// answer does what a script asks for.
func (l *Lab) answer(r request) error {
	switch r.Do {
	case killAll:
		return l.Kill(r.Node)
	case startMain:
		return l.Start(r.Node)
	}
	return fmt.Errorf("there is no request %q", r.Do)
}

// Close removes the lab and all that runs in it. It may be called twice.
func (l *Lab) Close() error {
	l.mu.Lock()
	control := l.control
	l.control = nil
	l.mu.Unlock()
	var errs []error
	if control != nil {
		errs = append(errs, control.close())
	}
	for _, n := range l.nodes {
		n.close()
	}
	errs = append(errs, l.net.Close())
	if l.directory != "" {
		errs = append(errs, l.remove())
	}
	return errors.Join(errs...)
}
