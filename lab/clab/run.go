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
		if err = l.Check(ctx, CheckScript(j.File), j.Out); err != nil {
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
	var containers []string
	for _, n := range l.topology.Nodes {
		if n.Kind == Linux {
			containers = append(containers, n.Name)
		}
	}
	j.say("\nThe lab stays up until Ctrl-C. In another terminal:")
	j.say("  export WEIRLAB_NODES=%s", l.Dir())
	j.say("  \"$WEIRLAB_NODES/%s\" ip addr              # a command in a node", containers[0])
	j.say("  \"$WEIRLAB_NODES/.kill\" %s                # SIGKILL to all that runs in it", containers[0])
	j.say("  \"$WEIRLAB_NODES/.start\" %s               # starts its main process again", containers[0])
	j.say("nodes: %s", strings.Join(containers, " "))
	<-ctx.Done()
}
