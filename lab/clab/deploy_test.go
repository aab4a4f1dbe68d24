package clab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/lab/labtest"
)

// TestDeploy has everything of testdata/all.clab.yml come out as the file says.
func TestDeploy(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	file := copied(t, "all.clab.yml")
	var out bytes.Buffer
	l := deployed(t, must(Read(file))(t), Options{Out: &out})

	if got, want := l.Failures(), []string{"node a: false: exit status 1"}; fmt.Sprint(got) != fmt.Sprint(want) || out.String() != want[0]+"\n" {
		t.Errorf("failures %q, reported as %q, want %q", got, out.String(), want)
	}
	eventually(t, "started", func() bool { return must(l.Output("a-side"))(t) == "it has started\n" })
	for _, test := range []struct {
		what, node, script, want string
	}{
		{"links when a node is created", "a", "cut -d: -f2 /tmp/created", " lo"},
		{"order of commands", "a", "cat /tmp/order", "enter\nexit\ndefaults\nkind\nnode"},
		{"order without a stage", "b", "cat /tmp/order", "defaults\nkind"},
		{"what a node that waited has seen", "a-side", "awk '{ print $4 }' /tmp/seen", "10.9.0.1/24"},
		{"variables", "a", `echo "$WHO|$FROM_KIND|$FROM_DEFAULTS|$CLAB_INTFS|$HOSTNAME|$HOME"`, `it's "a"|2|yes|1|a|/root`},
		{"variables of a bridge's neighbour", "b", `echo "$WHO|$CLAB_INTFS"`, "kind|2"},
		{"search path", "a", "echo $PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"bind from the defaults", "b", "cat /greeting", "from the defaults"},
		{"bind of the node's own", "a", "cat /greeting", "from the node"},
		{"bind of a folder", "a", "cat /opt/weirlab-test/all/defaults", "from the defaults"},
		{"bind through a symbolic link", "a", "cat /run/bound", "from the node"},
		{"read-only bind", "a", "echo x 2>&1 > /greeting | grep -o Read-only", "Read-only"},
		{"name", "a", "uname -n; cat /etc/hostname", "a\na"},
		{"name of a node that shares", "a-side", "uname -n", "a"},
		{"first process", "a", "tr '\\0' ' ' < /proc/1/cmdline | grep -o ' topology-part hold'", " topology-part hold"},
		{"interfaces", "b", "ls /sys/class/net | grep eth", "eth1\neth2"},
		{"mtu", "b", "cat /sys/class/net/eth1/mtu /sys/class/net/eth2/mtu", "1400\n9500"},
		{"mac", "b", "cut -d: -f1-3 /sys/class/net/eth1/address", "aa:c1:ab"},
		{"mac from the file", "c", "cat /sys/class/net/net0/address", "02:00:00:00:00:0c"},
		{"sysctl", "a", "cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"no sysctl", "b", "cat /proc/sys/net/ipv4/ip_forward", "0"},
		{"empty directories", "c", "ls /run /dev/shm", "/dev/shm:\n\n/run:\nlock"},
		{"shared network", "a-side", "ls /sys/class/net | grep eth", "eth1"},
		{"roots of nodes that share", "a-side", "cat /tmp/order", "defaults\nkind"},
		{"main process", "a-side", "ps -eo args | grep -c '[s]leep infinity'", "1"},
	} {
		if got := run(t, l, test.node, "sh", "-c", test.script); got != test.want {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}

	for from, to := range map[string]string{"a": "10.9.0.2", "b": "10.9.1.3", "c": "10.9.1.2"} {
		eventually(t, "reached "+to+" from "+from, func() bool { return l.hosts[from].Ping(t.Context(), netip.MustParseAddr(to)) == nil })
	}

	// What a node writes is its own, but for what is bound.
	run(t, l, "a", "sh", "-c", "echo mine > /etc/weirlab-test; mkdir /weirlab-test; echo x > /usr/weirlab-test; rm /etc/passwd; echo bound > /opt/weirlab-test/all/new")
	for _, path := range []string{"/etc/weirlab-test", "/weirlab-test", "/usr/weirlab-test", "/greeting", "/opt/weirlab-test", "/run/bound"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is on the machine: %v", path, err)
		}
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
	if got := string(must(os.ReadFile(filepath.Join(filepath.Dir(file), "all/new")))(t)); got != "bound\n" {
		t.Errorf("written to what is bound: %q", got)
	}
	if got := run(t, l, "b", "ls", "/etc/passwd"); got != "/etc/passwd" {
		t.Errorf("another node's file: %q", got)
	}
}

// TestCommands uses what scripts use.
func TestCommands(t *testing.T) {
	t.Parallel()
	l := deployed(t, parsed(t, "name: test-commands\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity, env: {X: y}}, b: {kind: linux, cmd: sleep infinity, network-mode: 'container:a'}}}"), Options{})
	for _, test := range []struct {
		what   string
		args   []string
		stdin  string
		want   string
		status int
	}{
		{"status", []string{"a", "sh", "-c", "exit 7"}, "", "", 7},
		{"arguments", []string{"a", "printf", "%s|", "a b", "", "c'd", "$X"}, "", "a b||c'd|$X|", 0},
		{"input", []string{"a", "cat"}, "some input", "some input", 0},
		{"variables are the node's", []string{"a", "sh", "-c", "echo $X$SECRET"}, "", "y\n", 0},
		{"no command", []string{"a"}, "", "usage: " + l.Dir() + "/a COMMAND [ARGUMENT]...\n", 2},
		{"a pipe that breaks", []string{"a", "bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}"}, "", "y\n141\n", 0},
		{"kill", []string{".kill", "b"}, "", "", 0},
		{"killed", []string{"b", "true"}, "", "node b is not running\n", 1},
		{"kill the killed", []string{".kill", "b"}, "", "kill node b: it is not running\n", 1},
		{"start", []string{".start", "b"}, "", "", 0},
		{"start the started", []string{".start", "b"}, "", "", 0},
		{"started", []string{"b", "echo", "again"}, "", "again\n", 0},
		{"kill nobody", []string{".kill", "x"}, "", "there is no container \"x\" in test-commands\n", 1},
		{"no node", []string{".start"}, "", "usage: " + l.Dir() + "/.start NODE\n", 2},
	} {
		cmd := exec.Command(filepath.Join(l.Dir(), test.args[0]), test.args[1:]...)
		cmd.Stdin = strings.NewReader(test.stdin)
		cmd.Env = append(os.Environ(), "SECRET=x")
		out, err := cmd.CombinedOutput()
		if string(out) != test.want || cmd.ProcessState.ExitCode() != test.status {
			t.Errorf("%s: %q, %v, want %q and status %d", test.what, out, err, test.want, test.status)
		}
	}
}

// TestDeployFails has labs that cannot come up go away again, and say why.
func TestDeployFails(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	for name, test := range map[string]struct {
		nodes string
		want  string
	}{
		"no such program": {"{a: {kind: linux, cmd: weirlab-no-such-program}, b: {kind: linux, cmd: sleep infinity}}", `node a: create: exec: "weirlab-no-such-program": executable file not found`},
		"no such weir":    {"{a: {kind: linux, image: weir}}", "node a: no weir: stat no-such-weir: no such file or directory; build it with `make build`"},
		"no such bind":    {"{a: {kind: linux, cmd: sleep infinity, binds: ['/no-such-file:/x']}}", "node a: create: bind /no-such-file: no such file or directory"},
		"bind to nowhere": {"{a: {kind: linux, cmd: sleep infinity, binds: ['/etc/passwd:/etc/group/x']}}", "node a: create: bind /etc/passwd to /etc/group/x: mkdir /etc/group: not a directory"},
		"no such sysctl":  {"{a: {kind: linux, cmd: sleep infinity, sysctls: {net.no.such: 1}}}", "node a: create: host a: set: sysctl net.no.such=1: open"},
	} {
		topology := parsed(t, "name: test-fails\ntopology: {nodes: "+test.nodes+"}")
		l, err := Deploy(t.Context(), topology, Options{Weir: "no-such-weir"})
		if l != nil || err == nil || !strings.HasPrefix(err.Error(), "deploy test-fails: ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		nothingLeft(t, fmt.Sprintf("%s/weir-test_fails-%d", directories, os.Getpid()))
	}
}

// TestDeployTwice has a lab of the same name refused while one is up, and leaves
// that alone.
func TestDeployTwice(t *testing.T) {
	t.Parallel()
	topology := parsed(t, "name: test-twice\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity}}}")
	l := deployed(t, topology, Options{})
	if _, err := Deploy(t.Context(), topology, Options{}); err == nil || !strings.Contains(err.Error(), "a lab of this name is up in this process") {
		t.Errorf("%v", err)
	}
	if got := run(t, l, "a", "echo", "here"); got != "here" {
		t.Errorf("%q", got)
	}
}

// TestInterrupted has a context end in the middle of a deployment, while one node
// runs a command and another waits for that.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	labtest.NeedRoot(t)
	const word = "71717171.5"
	topology := parsed(t, "name: test-interrupted\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity, stages: {configure: {exec: [{command: sleep "+word+"}]}}}, b: {kind: linux, cmd: sleep infinity, stages: {create: {wait-for: [{node: a, stage: configure}]}}}}}")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for ctx.Err() == nil && len(processes(t, word)) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}()
	l, err := Deploy(ctx, topology, Options{})
	if l != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	eventually(t, "killed", func() bool { return len(processes(t, word)) == 0 })
	nothingLeft(t, fmt.Sprintf("%s/weir-test_interrupted-%d", directories, os.Getpid()))
}
