package clab

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// deploy takes a node through its stages, as containerlab's scheduleNodes does
// (clab/clab.go): the main process is started, then come the links, then the
// stage configure, which has only what the file puts there; and when that is
// over, and whoever waits for it goes on, the node's other commands.
func (n *node) deploy(ctx context.Context) error {
	for _, s := range []struct {
		stage Stage
		work  func(context.Context) error
	}{
		{Create, n.create},
		{CreateLinks, n.createLinks},
		{Configure, func(context.Context) error { return nil }},
	} {
		if err := n.lab.await(ctx, n.spec, s.stage); err != nil {
			return err
		}
		plan := n.spec.Stages[s.stage]
		if err := n.runAll(ctx, plan.Enter); err != nil {
			return err
		}
		if err := s.work(ctx); err != nil {
			return fmt.Errorf("node %s: %s: %w", n.spec.Name, s.stage, err)
		}
		if err := n.runAll(ctx, plan.Exit); err != nil {
			return err
		}
		close(n.lab.over[Wait{n.spec.Name, s.stage}])
	}
	return n.runAll(ctx, n.spec.Exec)
}

// deployBridge takes a bridge through its stages. It has nothing to do there: it
// is up before, and a link to it is made by the node at the other end.
func (l *Lab) deployBridge(ctx context.Context, name string) error {
	n := l.topology.node(name)
	for _, stage := range []Stage{Create, CreateLinks, Configure} {
		if err := l.await(ctx, n, stage); err != nil {
			return err
		}
		close(l.over[Wait{name, stage}])
	}
	return nil
}

func bridges(t *Topology) []string {
	var names []string
	for _, n := range t.Nodes {
		if n.Kind == Bridge {
			names = append(names, n.Name)
		}
	}
	return names
}

// await waits until a node may enter a stage. A node that uses another's network
// waits for that to be there.
func (l *Lab) await(ctx context.Context, n *Node, stage Stage) error {
	waits := n.Stages[stage].WaitFor
	if stage == Create && n.Shares != "" {
		waits = append([]Wait{{n.Shares, Create}}, waits...)
	}
	for _, w := range waits {
		select {
		case <-l.over[w]:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// runAll runs commands in the node, one after the other. One that fails is only
// noted.
func (n *node) runAll(ctx context.Context, commands [][]string) error {
	for _, command := range commands {
		_, err := n.exec(ctx, command)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			n.lab.failure("%v", err)
		}
	}
	return nil
}

// exec runs a command in the node.
func (n *node) exec(ctx context.Context, command []string) (string, error) {
	// By its name, a script that was just written may be busy for whoever has it
	// open by a fork at that moment (execve(2), ETXTBSY).
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{n.lab.path(n.spec.Name)}, command...)...)
	cmd.WaitDelay = time.Second // for what the command leaves running
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("node %s: %s: %w", n.spec.Name, strings.Join(command, " "), err)
		if said := strings.TrimSpace(string(out)); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
	}
	return string(out), err
}
