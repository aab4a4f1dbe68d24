package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asWeir is set for the copies of the test that are to be weir.
const asWeir = "WEIR_TEST_IS_WEIR"

func TestMain(m *testing.M) {
	if os.Getenv(asWeir) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// weir runs the command.
func weir(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asWeir+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const valid = `interfaces: [{name: lo}]
services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`

func TestCheckOfAValidFile(t *testing.T) {
	path := file(t, valid)
	code, out, errs := weir(t, "check", path)
	if code != 0 || out != path+" is valid: 1 interfaces, 1 services, 2 backends\n" || errs != "" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

func TestCheckPrintsWarnings(t *testing.T) {
	path := file(t, valid+"    table_size: 11\n")
	code, out, errs := weir(t, "check", path)
	if code != 0 || out == "" || !strings.HasPrefix(errs, path+":7: services[0].table_size: ") {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

// Each mistake is on a line of its own, in the form that editors understand.
func TestCheckPrintsEveryMistake(t *testing.T) {
	path := file(t, strings.NewReplacer("lo}", "eth77}", "tcp/80", "tcp/0", "10.0.0.12", "10.0.0.300").Replace(valid)+"speed: 9\n")
	code, out, errs := weir(t, "check", path)
	if code != 1 || out != "" {
		t.Errorf("exit %d, output %q", code, out)
	}
	lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
	want := []string{
		path + ":1: interfaces[0].name: unknown interface eth77",
		path + ":5: services[0].ports[0]: ",
		path + ":6: services[0].backends[1].address: ",
		path + ":7: speed: ",
		"4 mistakes",
	}
	if len(lines) != len(want) {
		t.Fatalf("got:\n%s", errs)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want[i])
		}
	}
}

func TestErrors(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none.sock")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"check"}, "weir: name one file: weir check FILE\n"},
		{[]string{"check", "/nowhere/weir.yaml"}, "weir: open configuration: open /nowhere/weir.yaml: no such file or directory\n"},
		{[]string{"run", "weir.yaml"}, "weir: unexpected argument \"weir.yaml\"; name the file with --config\n"},
		{[]string{"run", "--config", "/nowhere/weir.yaml"}, "no such file or directory\n"},
		{[]string{"show", "services", "--socket", none}, "no weir is running on " + none},
		{[]string{"reload", "--socket", none}, "no weir is running on " + none},
		{[]string{"show", "services", "-o", "yaml"}, `output format "yaml" is neither text nor json`},
		{[]string{"show", "flows", "now"}, `unexpected argument "now"`},
		{[]string{"show", "unicorns"}, "unicorns"},
		{[]string{"unicorns"}, "unicorns"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			code, out, errs := weir(t, tc.args...)
			if code == 0 || !strings.Contains(errs, tc.want) {
				t.Errorf("exit %d, output %q, errors %q; want %q", code, out, errs, tc.want)
			}
		})
	}
}

func TestCompletionListsWhatCanComeNext(t *testing.T) {
	for _, tc := range []struct {
		before []string
		want   []string
	}{
		{nil, []string{"run", "check", "show", "reload", "decap", "completion"}},
		{[]string{"show"}, []string{"services", "backends", "flows", "workers", "drops", "interfaces", "announcements"}},
		{[]string{"completion"}, []string{"bash", "zsh"}},
	} {
		code, out, errs := weir(t, append(tc.before, "--generate-bash-completion")...)
		words := strings.Fields(out)
		if code != 0 || errs != "" {
			t.Errorf("after %q: exit %d, errors %q", tc.before, code, errs)
		}
		for _, w := range tc.want {
			if !slices.Contains(words, w) {
				t.Errorf("after %q: %q is not among %q", tc.before, w, words)
			}
		}
	}
}

func TestCompletionScriptsAreValid(t *testing.T) {
	for _, shell := range []string{"bash", "zsh"} {
		t.Run(shell, func(t *testing.T) {
			code, script, _ := weir(t, "completion", shell)
			if code != 0 || !strings.Contains(script, "weir") {
				t.Fatalf("exit %d: %s", code, script)
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("no %s to try it with", shell)
			}
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// What bash makes of "weir sh" and "weir show w".
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash to try it with")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "weir")); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{"weir sh": "show", "weir show w": "workers", "weir show flows --se": "--service"} {
		const script = `source <(weir completion bash); COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _weir_complete; echo "${COMPREPLY[@]}"`
		cmd := exec.Command(bash, "-c", script, "bash", words)
		cmd.Env = append(os.Environ(), asWeir+"=1", "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%q is completed to %q (%v), want %q", words, out, err, want)
		}
	}
}

// answering is a weir that answers whatever it is asked with v, and notes it.
func answering(t *testing.T, code int, v any) (socket string, asked *string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "weir.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked = new(string)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = r.Method + " " + r.URL.String()
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return socket, asked
}

func TestReload(t *testing.T) {
	socket, asked := answering(t, 200, map[string]any{"generation": 12, "warnings": []string{"weir.yaml:3: careful"}})
	code, out, errs := weir(t, "reload", "--socket", socket)
	if code != 0 || out != "reloaded; snapshot 12 is in force\n" || errs != "weir.yaml:3: careful\n" || *asked != "POST /v1/reload" {
		t.Errorf("exit %d, output %q, errors %q, asked %q", code, out, errs, *asked)
	}
	socket, _ = answering(t, 422, map[string]any{"error": "flows changed, which needs a restart"})
	code, out, errs = weir(t, "reload", "-s", socket)
	if code != 1 || out != "" || errs != "weir: flows changed, which needs a restart\n" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

func TestShowFlowsPassesItsFilterOn(t *testing.T) {
	socket, asked := answering(t, 200, map[string]any{"flows": []any{}})
	code, out, errs := weir(t, "show", "flows", "--socket", socket, "--limit", "5", "--service", "web&x", "--backend", "10.0.0.11")
	if code != 0 || *asked != "GET /v1/flows?backend=10.0.0.11&limit=5&service=web%26x" {
		t.Errorf("exit %d, asked %q, output %q, errors %q", code, *asked, out, errs)
	}
	if !strings.HasPrefix(out, "PROTO  CLIENT") {
		t.Errorf("output %q", out)
	}
}
