package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/lab/labtest"
)

// programVar makes the test program weirlab itself.
const programVar = "WEIRLAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVar) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestTopology runs the command, whose exit status is that of the check script.
func TestTopology(t *testing.T) {
	labtest.NeedRoot(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "tiny.clab.yml")
	for path, text := range map[string]string{
		file:                             "name: tiny\ntopology: {nodes: {a: {kind: linux, cmd: sleep infinity}, b: {kind: linux, cmd: sleep infinity, network-mode: 'container:a'}}}",
		filepath.Join(dir, "tiny/check"): "#!/bin/sh\n\"$WEIRLAB_NODES/a\" uname -n\n\"$WEIRLAB_NODES/.kill\" b && \"$WEIRLAB_NODES/.start\" b && \"$WEIRLAB_NODES/b\" echo again\nexit 5\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{file, "--check"}, 5, "tiny is up: 2 nodes, 0 links\na\nagain\nweirlab: check " + dir + "/tiny/check failed: exit status 5\n"},
		{[]string{file}, 0, "tiny is up: 2 nodes, 0 links\n"},
		{nil, 1, "weirlab: want one topology file, got 0\n"},
		{[]string{filepath.Join(dir, "tiny/check")}, 1, "weirlab: the topology is wrong (3):\n" + dir + "/tiny/check:"},
	} {
		cmd := exec.Command(os.Args[0], append([]string{"topology"}, test.args...)...)
		cmd.Env = append(os.Environ(), programVar+"=1")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != test.status || !strings.Contains(string(out), test.want) {
			t.Errorf("%q: %v, want status %d: %s, want %s", test.args, err, test.status, out, test.want)
		}
	}
}

// TestInterspersed has flags stand before, behind and between arguments.
func TestInterspersed(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"f", "[f] bin/weir false false"},
		{"--check f", "[f] bin/weir true false"},
		{"f --check", "[f] bin/weir true false"},
		{"--weir w f --check -keep", "[f] w true true"},
		{"f --weir w", "[f] w false false"},
		{"f --weir=w g", "[f g] w false false"},
		{"f --check=false --keep", "[f] bin/weir false true"},
		{"f -", "[f -] bin/weir false false"},
		{"f --weir", "flag needs an argument: -weir"},
		{"f --other", "flag provided but not defined: -other"},
		{"f --check=perhaps", `invalid value "perhaps" for flag -check`},
	} {
		got := ""
		command := topologyCommand()
		command.Action = func(c *cli.Context) error {
			args, err := interspersed(c)
			got = fmt.Sprint(args, " ", c.String("weir"), " ", c.Bool("check"), " ", c.Bool("keep"))
			return err
		}
		app := &cli.App{Commands: []*cli.Command{command}, Writer: io.Discard, ErrWriter: io.Discard}
		if err := app.Run(append([]string{"weirlab", "topology"}, strings.Fields(test.line)...)); err != nil {
			got = err.Error()
		}
		if got != test.want && !strings.HasPrefix(got, test.want+":") {
			t.Errorf("%q: %s, want %s", test.line, got, test.want)
		}
	}
}
