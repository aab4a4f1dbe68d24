package clab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

// TestKill kills a node that uses the network of another, brings it back, and
// then kills that other.
func TestKill(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, `
name: test-kill
topology:
  defaults: {kind: linux}
  nodes:
    holder: {cmd: sleep infinity, exec: [ip addr add 10.9.0.1/24 dev eth1]}
    server:
      network-mode: container:holder
      cmd: sh -c "echo start >> /var/log/starts; trap '' TERM INT; sleep 61616161.1 & wait"
      exec: [setsid --fork sleep 61616161.2]
    far: {cmd: sleep infinity}
  links: [{endpoints: [holder:eth1, far:eth1]}]`), Options{})
	const word = "61616161."
	eventually(t, "started", func() bool { return len(processes(t, word)) == 3 }) // and their shell
	starts := func() int { return strings.Count(run(t, l, "server", "cat", "/var/log/starts"), "start") }
	if starts() != 1 {
		t.Errorf("%d starts", starts())
	}

	check(t, l.Kill("server"))
	if left := processes(t, word); len(left) > 0 {
		t.Errorf("%d processes are left of the killed node", len(left))
	}
	if _, err := l.Exec(t.Context(), "server", "true"); err == nil || !strings.Contains(err.Error(), "node server is not running") {
		t.Errorf("command in a killed node: %v", err)
	}
	if err := l.Kill("server"); err == nil || err.Error() != "kill node server: it is not running" {
		t.Errorf("kill of a killed node: %v", err)
	}
	check(t, l.Start("server"))
	check(t, l.Start("server"))
	eventually(t, "started again", func() bool { return len(processes(t, word)) == 2 })
	if starts() != 2 {
		t.Errorf("%d starts: what a node writes has to outlive it", starts())
	}
	if got := run(t, l, "server", "ip", "-o", "-4", "addr", "show", "dev", "eth1"); !strings.Contains(got, "10.9.0.1/24") {
		t.Errorf("the holder's address: %q", got)
	}

	// The network is there as long as one of the two uses it.
	check(t, l.Kill("holder"))
	if got := cables(t, l, "far"); got != "eth1" {
		t.Errorf("interfaces at the other end: %q", got)
	}
	check(t, l.Kill("server"))
	if got := cables(t, l, "far"); got != "" {
		t.Errorf("interfaces at the other end after the network is gone: %q", got)
	}
	if err := l.Start("server"); err == nil || err.Error() != "start node server: node holder, whose network it uses, is not running" {
		t.Errorf("start without a network: %v", err)
	}
	check(t, l.Start("holder"))
	check(t, l.Start("server"))
	if got := cables(t, l, "server"); got != "" {
		t.Errorf("interfaces of a holder that was killed: %q", got)
	}
	if got := l.Failures(); len(got) > 0 {
		t.Errorf("nothing has ended by itself: %q", got)
	}
}

// cables returns the interfaces of a node that links have made.
func cables(t *testing.T, l *Lab, node string) string {
	t.Helper()
	return run(t, l, node, "sh", "-c", "ls /sys/class/net | grep eth || true")
}

// TestRestart has main processes that end by themselves.
func TestRestart(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, `
name: test-restart
topology:
  defaults: {kind: linux}
  nodes:
    a:
      cmd: sleep infinity
    linked:
      cmd: sh -c "while [ ! -e /tmp/end ]; do sleep 0.05; done; echo I must go; exit 4"
    always:
      network-mode: container:a
      cmd: sh -c "echo start >> /tmp/starts; sleep 0.1"
    failure:
      network-mode: container:a
      restart-policy: on-failure
      cmd: sh -c "echo start >> /tmp/starts; [ $(wc -l < /tmp/starts) -ge 3 ]"
    once:
      network-mode: container:a
      restart-policy: "no"
      cmd: sh -c "kill -9 $$$$"
  links: [{endpoints: [linked:eth1, a:eth1]}]`), Options{})
	has := func(part string) func() bool {
		return func() bool {
			return slices.ContainsFunc(l.Failures(), func(line string) bool { return strings.Contains(line, part) })
		}
	}
	for _, line := range []string{
		"node always: sh has ended by itself (exit status 0) and is started again in 100ms",
		"node always: sh has ended by itself (exit status 0) and is started again in 200ms",
		"node failure: sh has ended by itself (exit status 1) and is started again in 200ms",
		"node failure: sh has ended by itself (exit status 0) and is not started again",
		"node once: sh has ended by itself (signal: killed) and is not started again",
	} {
		eventually(t, line, has(line))
	}
	check(t, l.Start("failure")) // succeeds at once, and that is all
	eventually(t, "ended again", func() bool {
		out, err := exec.Command(filepath.Join(l.Dir(), "failure"), "true").CombinedOutput()
		return err != nil && string(out) == "node failure is not running\n"
	})
	// Killed while it waits to be started again, it stays so.
	eventually(t, "killed", func() bool { return l.Kill("always") == nil })
	if err := l.Kill("always"); err == nil {
		t.Error("it was not killed")
	}

	run(t, l, "linked", "touch", "/tmp/end")
	line := "node linked: sh has ended by itself (exit status 4) and is not started again"
	eventually(t, line, has(line))
	eventually(t, "said", func() bool { return must(l.Output("linked"))(t) == "I must go\n" })
	eventually(t, "unlinked", func() bool { return cables(t, l, "a") == "" })
}

// TestClose has a closed lab leave nothing, and say so to who is late.
func TestClose(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, "name: test-close\ntopology: {nodes: {a: {kind: linux, cmd: setpriv --reuid 65534 --clear-groups sleep 51515151.1, exec: [setsid --fork sleep 51515151.2]}}}"), Options{})
	eventually(t, "started", func() bool { return len(processes(t, "51515151.")) == 2 })
	for range 2 {
		check(t, l.Close())
	}
	if left := processes(t, "51515151."); len(left) > 0 {
		t.Errorf("%d processes are left", len(left))
	}
	nothingLeft(t, l.Dir())
	if err := l.Kill("a"); err == nil {
		t.Error("kill after close")
	}
	if err := l.Start("a"); err == nil {
		t.Error("start after close")
	}
	if _, err := l.Exec(t.Context(), "a", "true"); err == nil {
		t.Error("command after close")
	}
}

// TestLost has the first process of a node die, which nothing in the node can do.
func TestLost(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, "name: test-lost\ntopology: {nodes: {a: {kind: linux, cmd: sleep 21212121.1}}}"), Options{})
	run(t, l, "a", "sh", "-c", "kill -9 1; kill -TERM 1; kill -INT 1")
	if got := run(t, l, "a", "echo", "here"); got != "here" {
		t.Errorf("%q", got)
	}
	check(t, l.nodes["a"].process.Signal(os.Kill))
	eventually(t, "noticed", func() bool { return len(l.Failures()) > 0 })
	if got := l.Failures()[0]; got != "node a: the node's first process has ended" {
		t.Errorf("%q", got)
	}
	eventually(t, "killed", func() bool { return len(processes(t, "21212121.1")) == 0 })
	if _, err := l.Exec(t.Context(), "a", "true"); err == nil || !strings.Contains(err.Error(), "node a is not running") {
		t.Errorf("%v", err)
	}
	if err := l.Start("a"); !errors.Is(err, errGone) {
		t.Errorf("%v", err)
	}
}

// TestMakerKilled kills the process that has made a lab while it runs a check
// that does not end.
func TestMakerKilled(t *testing.T) {
	labtest.NeedRoot(t)
	const word = "81818181."
	maker := exec.Command(os.Args[0])
	maker.Env = append(os.Environ(), makerVar+"="+copied(t, "killed.clab.yml"))
	var said bytes.Buffer
	maker.Stderr = &said
	out := must(maker.StdoutPipe())(t)
	check(t, maker.Start())
	lines := bufio.NewScanner(out)
	var dir string
	for lines.Scan() && lines.Text() != "checking" {
		dir = lines.Text()
	}
	if dir == "" {
		_ = maker.Process.Kill()
		t.Fatalf("no lab: %s", said.String())
	}
	eventually(t, "running", func() bool { return len(processes(t, word)) >= 5 })
	must(Sweep())(t)
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("sweep has removed the directory of a living lab: %v", err)
	}
	children := childrenOf(t, maker.Process.Pid)
	if len(children) != 3 {
		t.Errorf("children %v, want the first processes of two nodes, and the guard", children)
	}
	check(t, maker.Process.Kill())
	go func() {
		for lines.Scan() {
		}
	}()
	defer func() { _ = maker.Wait() }() // it is a zombie until then
	eventually(t, "killed by the kernel", func() bool {
		return len(processes(t, word)) == 0 && !slices.ContainsFunc(append(children, maker.Process.Pid), alive)
	})
	// Whoever sweeps first: packages are tested beside this one.
	eventually(t, "swept", func() bool {
		must(Sweep())(t)
		must(netlab.Sweep())(t)
		left := must(filepath.Glob("/run/netns/" + filepath.Base(dir) + "-*"))(t)
		_, err := os.Stat(dir)
		return len(left) == 0 && errors.Is(err, os.ErrNotExist)
	})
}

// script writes a check script.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "check")
	check(t, os.WriteFile(path, []byte("#!/bin/bash\n"+text), 0o755))
	return path
}

func TestCheck(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, "name: test-check\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity}}}"), Options{})
	var out bytes.Buffer
	path := script(t, `echo "$("$WEIRLAB_NODES/a" uname -n) in $PWD"; touch "$TMPDIR/x"; echo to stderr >&2; sleep 41414141.1 & exit 0`)
	check(t, l.Check(t.Context(), path, &out))
	if want := "a in " + filepath.Dir(path) + "\nto stderr\n"; out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
	eventually(t, "killed", func() bool { return len(processes(t, "41414141.1")) == 0 })

	for text, status := range map[string]int{"exit 3": 3, "kill -9 $$": 137} {
		var failed *CheckFailed
		err := l.Check(t.Context(), script(t, text), &out)
		if !errors.As(err, &failed) || failed.Status != status {
			t.Errorf("%s: %v, want status %d", text, err, status)
		}
	}
	path = script(t, "")
	check(t, os.Chmod(path, 0o644))
	if err := l.Check(t.Context(), path, &out); err == nil || !strings.Contains(err.Error(), "check is no program: for NAME.clab.yml it is NAME/check, and executable") {
		t.Errorf("%v", err)
	}
	if err := l.Check(t.Context(), path+"x", &out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestCheckInterrupted has a script told to end, and cleaned up after whether it
// does or not.
func TestCheckInterrupted(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, "name: test-check-end\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity}}}"), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	file := filepath.Join(t.TempDir(), "cleaned")
	text := fmt.Sprintf("trap 'echo cleaned > %s; exit' EXIT\nsleep 31313131.1 &\nsleep 31313131.2", file)
	go func() {
		defer cancel()
		for ctx.Err() == nil && len(processes(t, "31313131.")) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if err := l.Check(ctx, script(t, text), new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got, err := os.ReadFile(file); string(got) != "cleaned\n" {
		t.Errorf("the script has not cleaned up: %q, %v", got, err)
	}
	eventually(t, "killed", func() bool { return len(processes(t, "31313131.")) == 0 })
}

// TestEvidence shows the end of what main processes have said.
func TestEvidence(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, `
name: test-evidence
topology:
  nodes:
    a: {kind: linux, cmd: sh -c "seq 30; exec sleep infinity"}
    b: {kind: linux, cmd: sleep infinity}
    sw: {kind: bridge}`), Options{})
	eventually(t, "said", func() bool { return strings.HasSuffix(must(l.Output("a"))(t), "\n30\n") })
	var out bytes.Buffer
	Job{Out: &out}.evidence(l)
	var want strings.Builder
	want.WriteString("--- a: sh -c seq 30; exec sleep infinity\n")
	for i := 11; i <= 30; i++ {
		fmt.Fprintf(&want, "    %d\n", i)
	}
	if out.String() != want.String() {
		t.Errorf("%q, want %q", out.String(), want.String())
	}
}

// TestJob runs what the command does, on a lab whose script fails.
func TestJob(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "some.clab.yml")
	check(t, os.WriteFile(file, []byte(`
name: test-job
topology:
  nodes:
    a: {kind: linux, cmd: sleep infinity, labels: {x: y}}
    sw: {kind: bridge}
  links: [{endpoints: [a:eth1, sw:p1]}]`), 0o644))
	check(t, os.Mkdir(filepath.Join(dir, "some"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "some/check"), []byte("#!/bin/sh\necho FAILED: something\nexit 5\n"), 0o755))
	var out bytes.Buffer
	err := Job{File: file, Check: true, Out: &out}.Run(t.Context())
	var failed *CheckFailed
	if !errors.As(err, &failed) || failed.Status != 5 {
		t.Errorf("%v", err)
	}
	want := file + ": labels is ignored: it is for Docker (line 5)\n" +
		"test-job is up: 2 nodes, 1 links\nFAILED: something\n"
	for _, line := range strings.SplitAfter(want, "\n") { // something may have been swept as well
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in %q", line, out.String())
		}
	}
	nothingLeft(t, fmt.Sprintf("%s/weir-test_job-%d", directories, os.Getpid()))

	// Kept, it is there until the end.
	ctx, cancel := context.WithCancel(t.Context())
	kept := watched{until: "nodes: a\n", then: cancel}
	kept.at = func() {
		out, err := exec.Command(fmt.Sprintf("%s/weir-test_job-%d/a", directories, os.Getpid()), "uname", "-n").Output()
		if string(out) != "a\n" || err != nil {
			t.Errorf("in a kept lab: %q, %v", out, err)
		}
	}
	if err := (Job{File: file, Keep: true, Out: &kept}).Run(ctx); err != nil {
		t.Errorf("%v", err)
	}
	nothingLeft(t, fmt.Sprintf("%s/weir-test_job-%d", directories, os.Getpid()))
}

// TestJobWithoutScript has a check that is not there reported before anything is
// made.
func TestJobWithoutScript(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	file := filepath.Join(t.TempDir(), "some.clab.yml")
	check(t, os.WriteFile(file, []byte("name: test-no-script\ntopology: {nodes: {a: {kind: linux, cmd: weirlab-no-such-program}}}"), 0o644))
	err := Job{File: file, Check: true, Out: new(bytes.Buffer)}.Run(t.Context())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "for NAME.clab.yml it is NAME/check") {
		t.Errorf("%v", err)
	}
}

// TestJobInterrupted has a check that a person ends show nothing of what nodes
// have said.
func TestJobInterrupted(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	file := filepath.Join(t.TempDir(), "some.clab.yml")
	check(t, os.WriteFile(file, []byte("name: test-job-end\ntopology: {nodes: {a: {kind: linux, cmd: sh -c 'echo something; exec sleep infinity'}}}"), 0o644))
	check(t, os.Mkdir(filepath.Dir(CheckScript(file)), 0o755))
	check(t, os.WriteFile(CheckScript(file), []byte("#!/bin/sh\necho checking\nsleep 21212121.3\n"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil && len(processes(t, "21212121.3")) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	var out bytes.Buffer
	if err := (Job{File: file, Check: true, Out: &out}).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if strings.Contains(out.String(), "something") || !strings.Contains(out.String(), "checking") {
		t.Errorf("%q", out.String())
	}
}

// TestJobKept says of any lab how to look around.
func TestJobKept(t *testing.T) {
	for nodes, want := range map[string]string{
		"":                                  "[] ",
		"sw: {kind: bridge}":                "[] ",
		"sw: {kind: bridge}, b: *n, a: *n":  "[a b] a",
		"b: *n, a: *n, x: *side, c: *side2": "[a b c x] c",
	} {
		file := "name: x\nsettings: {n: &n {kind: linux, cmd: x}, side: &side {kind: linux, cmd: x, network-mode: 'container:a'}, side2: &side2 {kind: linux, cmd: x, network-mode: 'container:b'}}\ntopology: {nodes: {" + nodes + "}}"
		topology := must(Parse("f", []byte(file), nothing))(t)
		names, example := containers(topology)
		if got := fmt.Sprint(names, " ", example); got != want {
			t.Errorf("%s: %s, want %s", nodes, got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out bytes.Buffer
		Job{Out: &out}.keep(ctx, &Lab{topology: topology, directory: "/some/where"})
		if got := out.String(); !strings.Contains(got, "WEIRLAB_NODES=/some/where\n") || strings.Contains(got, ".kill") != (example != "") {
			t.Errorf("%s: %s", nodes, got)
		}
	}
}

// watched calls functions when a text has been written.
type watched struct {
	bytes.Buffer
	until    string
	at, then func()
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	if strings.HasSuffix(w.String(), w.until) {
		w.at()
		w.then()
	}
	return n, err
}

// TestJobWrong has the mistakes of a file reported before anything is made.
func TestJobWrong(t *testing.T) {
	err := Job{File: "testdata/wrong.clab.yml", Out: new(bytes.Buffer)}.Run(t.Context())
	var wrong Mistakes
	if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), "the topology is wrong ("+strconv.Itoa(len(wrong))+"):\ntestdata/wrong.clab.yml:2: ") {
		t.Errorf("%v", err)
	}
	if err := (Job{File: "no-such-file", Out: new(bytes.Buffer)}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
