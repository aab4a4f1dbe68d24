package clab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"weir/lab/netlab"
)

// Job is what the command topology does.
type Job struct {
	File  string
	Weir  string // see [Options]
	Check bool   // runs the check script
	Keep  bool   // leaves the lab up until ctx ends, and says how to look around
	Out   io.Writer
}

// Run reads the file, deploys it, does what it is asked to, and removes the lab.
// The error is of type [Mistakes] if the file is wrong, and a [*CheckFailed] if
// the check has failed. The end of ctx while a lab is kept is no error.
func (j Job) Run(ctx context.Context) (err error) {
	t, err := Read(j.File)
	var wrong Mistakes
	if errors.As(err, &wrong) {
		return fmt.Errorf("the topology is wrong (%d):\n%w", len(wrong), err)
	}
	if err != nil {
		return err
	}
	for _, note := range t.Notes {
		j.say("%s", note)
	}
	if os.Geteuid() != 0 {
		return errors.New("a lab's nodes are network namespaces, which need root: run it with sudo")
	}
	script := CheckScript(j.File)
	if j.Check {
		if err := program(script); err != nil {
			return noCheck(err)
		}
	}
	namespaces, err := netlab.Sweep()
	if err != nil {
		return err
	}
	directories, err := Sweep()
	if err != nil {
		return err
	}
	if n := len(namespaces) + len(directories); n > 0 {
		j.say("removed what a lab that was killed has left (%d)", n)
	}
	l, err := Deploy(ctx, t, Options{Weir: j.Weir, Out: j.Out})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	j.say("%s is up: %d nodes, %d links", t.Name, len(t.Nodes), len(t.Links))
	if j.Check {
		err = l.Check(ctx, script, j.Out)
		if err != nil && ctx.Err() == nil {
			j.evidence(l)
		}
	}
	if j.Keep && ctx.Err() == nil {
		j.keep(ctx, l)
	}
	return err
}

// CheckScript returns the path of a topology file's check script: for
// l2-failover.clab.yml it is l2-failover/check beside it.
func CheckScript(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.TrimSuffix(base, ".clab")
	return filepath.Join(filepath.Dir(file), base, "check")
}

func (j Job) say(format string, args ...any) { fmt.Fprintf(j.Out, format+"\n", args...) }

// evidenceLines is how much of what a node has said is shown.
const evidenceLines = 20

// evidence shows what the nodes' main processes said last.
func (j Job) evidence(l *Lab) {
	for _, n := range l.topology.Nodes {
		said, err := l.Output(n.Name)
		if err != nil || strings.TrimSpace(said) == "" {
			continue
		}
		lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
		j.say("--- %s: %s", n.Name, strings.Join(n.Args, " "))
		for _, line := range lines[max(0, len(lines)-evidenceLines):] {
			j.say("    %s", line)
		}
	}
}

// keep says how to look around, and waits.
func (j Job) keep(ctx context.Context, l *Lab) {
	names, example := containers(l.topology)
	j.say("\nThe lab stays up until Ctrl-C. In another terminal, as root:")
	j.say("  export WEIRLAB_NODES=%s", l.Dir())
	if len(names) > 0 {
		j.say("  \"$WEIRLAB_NODES/%s\" ip addr              # a command in a node", example)
		j.say("  \"$WEIRLAB_NODES/.kill\" %s                # SIGKILL to all that runs in it; links are gone with their node", example)
		j.say("  \"$WEIRLAB_NODES/.start\" %s               # starts its main process again", example)
	}
	if script := CheckScript(j.File); program(script) == nil {
		j.say("  %s", script)
	}
	j.say("nodes: %s", strings.Join(names, " "))
	<-ctx.Done()
}

// containers returns the nodes that commands can run in, and the one to try that
// on: if there is one, a node that uses the network of another, as it can be
// killed and started again without loss of links.
func containers(t *Topology) (names []string, example string) {
	for _, n := range t.Nodes {
		if n.Kind != Linux {
			continue
		}
		names = append(names, n.Name)
		if old := t.node(example); old == nil || old.Shares == "" && n.Shares != "" {
			example = n.Name
		}
	}
	return names, example
}
