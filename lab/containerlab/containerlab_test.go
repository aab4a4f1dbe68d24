package containerlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weir/lab/labtest"
)

// binaryVariable names the containerlab to test with; set by scripts/test-containerlab.
const binaryVariable = "WEIR_CONTAINERLAB"

// A lab that takes longer than this to deploy, check or destroy hangs.
const patience = 5 * time.Minute

// As many at a time as -parallel says: checks mostly wait.
func TestLabs(t *testing.T) {
	binary := os.Getenv(binaryVariable)
	if binary == "" {
		t.Skip("make test-containerlab prepares what is tested here")
	}
	labtest.NeedRoot(t)
	files, err := filepath.Glob("*.clab.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no labs here, %v", err)
	}
	var containerlab sync.Mutex
	for _, file := range files {
		l := lab{name: strings.TrimSuffix(file, ".clab.yml"), file: file, binary: binary, containerlab: &containerlab}
		t.Run(l.name, l.test)
	}
}

type lab struct {
	name, file, binary string

	// containerlab keeps the names of nodes in /etc/hosts, and one network for the
	// management of all labs, so one of it runs at a time.
	containerlab *sync.Mutex
}

// run has containerlab do something with the lab's topology.
func (l lab) run(args ...string) (string, time.Duration, error) {
	l.containerlab.Lock()
	defer l.containerlab.Unlock()
	return run(l.binary, append(args, "--topo", l.file)...)
}

func (l lab) test(t *testing.T) {
	t.Parallel()
	before := namespaces(t)
	t.Cleanup(func() {
		out, took, err := l.run("destroy", "--cleanup")
		if err != nil {
			t.Errorf("destroy: %v\n%s", err, out)
		}
		t.Logf("destroyed in %s", took)
		l.gone(t, before)
		_ = os.Remove("." + l.file + ".bak") // containerlab's copy, which nobody has asked for
	})
	out, took, err := l.run("deploy")
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, out)
	}
	t.Logf("deployed in %s", took)
	// containerlab reports commands of `exec` that fail, and deploys none the less.
	for line := range strings.Lines(out) {
		if strings.Contains(line, "level=error") {
			t.Errorf("deploy: %s", line)
		}
	}
	out, took, err = run("./" + filepath.Join(l.name, "check"))
	t.Logf("checked in %s\n%s", took, out)
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if t.Failed() {
		l.tell(t)
	}
}

// run returns what the command says, on both of its outputs.
func run(name string, args ...string) (string, time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begin := time.Now()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // what it has left running keeps the pipe open
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return string(out), time.Since(begin).Round(100 * time.Millisecond), err
}

// containers returns the names of the lab's containers, those that have ended too.
func (l lab) containers(t *testing.T) []string {
	t.Helper()
	out, _, err := run("docker", "ps", "--all", "--filter", "label=containerlab="+l.name, "--format", "{{.Names}}")
	if err != nil {
		t.Fatalf("docker ps: %v\n%s", err, out)
	}
	return strings.Fields(out)
}

// namespaces returns the named network namespaces of this machine.
func namespaces(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// gone checks that the lab has left nothing on this machine.
func (l lab) gone(t *testing.T, before []string) {
	if left := l.containers(t); len(left) > 0 {
		t.Errorf("containers are left: %q", left)
	}
	for _, name := range namespaces(t) {
		if strings.HasPrefix(name, "clab-"+l.name+"-") && !slices.Contains(before, name) {
			t.Errorf("the network namespace %s is left", name)
		}
	}
	if _, err := os.Stat("clab-" + l.name); err == nil {
		t.Errorf("the folder clab-%s is left", l.name)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(hosts), "clab-"+l.name+"-") {
		t.Errorf("/etc/hosts still has its nodes:\n%s", hosts)
	}
}

// tell logs what the nodes have said, which is gone with them.
func (l lab) tell(t *testing.T) {
	var text strings.Builder
	for _, name := range l.containers(t) {
		out, _, err := run("docker", "logs", "--tail", "40", name)
		if strings.TrimSpace(out) != "" || err != nil {
			fmt.Fprintf(&text, "--- %s %v\n%s", name, err, out)
		}
	}
	t.Logf("what the nodes said last:\n%s", text.String())
}
