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
	"sync/atomic"
	"testing"
)

// asWeir is set for the copies of the test that are to be weir.
const asWeir = "WEIR_TEST_IS_WEIR"

// noRaceSleep spares each of them the second that the race detector waits at the
// end.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

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
	cmd.Env = append(os.Environ(), asWeir+"=1", noRaceSleep)
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

// ethernet returns an interface of this host that weir could work on.
func ethernet(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if len(i.HardwareAddr) == 6 {
			return i.Name
		}
	}
	t.Skip("this host has no Ethernet interface")
	return ""
}

// valid is a configuration without its interfaces.
const valid = `services:
  - name: web
    addresses: [203.0.113.10]
    ports: [tcp/80]
    backends: [{address: 10.0.0.11}, {address: 10.0.0.12}]
`

func interfaces(name string) string { return "interfaces: [{name: " + name + "}]\n" }

func TestCheckOfAValidFile(t *testing.T) {
	path := file(t, interfaces(ethernet(t))+valid)
	code, out, errs := weir(t, "check", path)
	if code != 0 || out != path+" is valid: 1 interfaces, 1 services, 2 backends\n" || errs != "" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

func TestCheckPrintsWarnings(t *testing.T) {
	path := file(t, interfaces(ethernet(t))+valid+"    table_size: 11\n")
	code, out, errs := weir(t, "check", path)
	if code != 0 || out == "" || !strings.HasPrefix(errs, path+":7: warning: services[0].table_size: ") {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

// What this host is matters, too: it has a loopback, and not this much memory.
func TestCheckKnowsTheHost(t *testing.T) {
	path := file(t, interfaces("lo, queues: 1024")+"flows: {entries: 268435456}\n"+valid)
	code, _, errs := weir(t, "check", path)
	if code != 1 || !strings.Contains(errs, path+":1: interfaces[0].name: lo is a loopback") ||
		!strings.Contains(errs, path+":2: flows.entries: 268435456 entries for each of at least 1024 workers take 18874368 MiB") {
		t.Errorf("exit %d, errors:\n%s", code, errs)
	}
}

// Each mistake is on a line of its own, in the form that editors understand, and
// told from warnings.
func TestCheckPrintsEveryMistake(t *testing.T) {
	text := strings.NewReplacer("tcp/80", "tcp/0", "10.0.0.12", "10.0.0.300").Replace(valid)
	path := file(t, interfaces("eth77")+text+"speed: 9\n")
	text = strings.Replace(valid, "10.0.0.11}", "10.0.0.11, state: draining}", 1)
	path2 := file(t, interfaces("eth77")+strings.Replace(text, ", {address: 10.0.0.12}", "", 1)+"speed: 9\n")
	for _, tc := range []struct {
		path string
		want []string
	}{
		{path, []string{
			path + ":1: interfaces[0].name: unknown interface eth77",
			path + ":5: services[0].ports[0]: ",
			path + ":6: services[0].backends[1].address: ",
			path + ":7: speed: ",
			"4 mistakes",
		}},
		{path2, []string{
			path2 + ":6: warning: services[0].backends: no IPv4 backend is active",
			path2 + ":1: interfaces[0].name: unknown interface eth77",
			path2 + ":7: speed: ",
			"2 mistakes",
		}},
	} {
		code, out, errs := weir(t, "check", tc.path)
		if code != 1 || out != "" {
			t.Errorf("exit %d, output %q", code, out)
		}
		lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
		if len(lines) != len(tc.want) {
			t.Fatalf("got:\n%s", errs)
		}
		for i := range tc.want {
			if !strings.HasPrefix(lines[i], tc.want[i]) {
				t.Errorf("line %d is %q, want %q", i, lines[i], tc.want[i])
			}
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
		{[]string{"drain", "10.0.0.11", "--socket", none}, "no weir is running on " + none},
		{[]string{"doctor", "--socket", none}, "no weir is running on " + none},
		{[]string{"plan", "/dev/null", "-s", none}, "no weir is running on " + none + "; start one with `weir run`"},
		{[]string{"show", "services", "-o", "yaml"}, `output format "yaml" is neither text nor json`},
		{[]string{"show", "flows", "now"}, `unexpected argument "now"`},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			code, out, errs := weir(t, tc.args...)
			if code == 0 || !strings.Contains(errs, tc.want) {
				t.Errorf("exit %d, output %q, errors %q; want %q", code, out, errs, tc.want)
			}
		})
	}
}

// Whatever is wrong with the words of a command is one line, and not all help.
func TestUsageErrors(t *testing.T) {
	const nouns = "; did you mean one of services, backends, flows, workers, drops, nat, interfaces, announcements, pools, members, peers?"
	for _, tc := range []struct{ command, want string }{
		{"bogus", `unknown command "weir bogus"; did you mean one of run, check, plan, reload, show, doctor, drain, undrain, decap, completion, help?`},
		{"drain", "name one backend by its address: weir drain BACKEND"},
		{"undrain 10.0.0.11 10.0.0.12", "name one backend by its address: weir undrain BACKEND"},
		{"drain web1", `"web1" is not the address of a backend, as 10.0.0.11 or 2001:db8::11; weir show backends lists them`},
		{"drain 10.0.0.11 --over soon", "invalid value \"soon\" for flag -over: parse error; see `weir drain --help`"},
		{"drain 10.0.0.11 --over -5s", "--over: -5s is less than nothing; want a time as 60s or 5m"},
		{"drain 10.0.0.11 --over", "flag needs an argument: -over; see `weir drain --help`"},
		{"undrain 10.0.0.11 --over 5s", "flag provided but not defined: -over; see `weir undrain --help`"},
		{"plan", "name one file: weir plan FILE"},
		{"doctor web dns", "name one service, or none for all: weir doctor [SERVICE]"},
		{"doctor web -o yaml", `output format "yaml" is neither text nor json`},
		{"doctor --fix", "flag provided but not defined: -fix; see `weir doctor --help`"},
		{"plan a b", "name one file: weir plan FILE"},
		{"plan /nowhere/weir.yaml", "read configuration: open /nowhere/weir.yaml: no such file or directory"},
		{"plan -o yaml /dev/null", `output format "yaml" is neither text nor json`},
		{"show", `unknown command "weir show"` + nouns},
		{"show pond", `unknown command "weir show pond"` + nouns},
		{"help bogus", "No help topic for 'bogus'"},
		{"show help", `unknown command "weir show help"` + nouns},
		{"completion fish", `unknown command "weir completion fish"; did you mean one of bash, zsh?`},
		{"--speed", "flag provided but not defined: -speed; see `weir --help`"},
		{"run --speed 9", "flag provided but not defined: -speed; see `weir run --help`"},
		{"run --config", "flag needs an argument: -config; see `weir run --help`"},
		{"show --speed", "flag provided but not defined: -speed; see `weir show --help`"},
		{"show flows --limit many", "invalid value \"many\" for flag -limit: parse error; see `weir show flows --help`"},
		{"show backends help", "unexpected argument \"help\"; see `weir show backends --help`"},
		{"decap", "--interface is missing; want the NIC on which tunnelled packets arrive"},
		{"decap -i eth0", "--vip is missing; want an IP address, as 203.0.113.10 or 2001:db8::10"},
		{"decap -i eth0 --vip xx", `--vip: "xx" is not a VIP; want an IP address, as 203.0.113.10 or 2001:db8::10`},
		{"decap -i eth0 --vip 203.0.113.10/32", `--vip: "203.0.113.10/32" is not a VIP; want an IP address, as 203.0.113.10 or 2001:db8::10`},
		{"decap -i eth0 --vip 203.0.113.10 --from 10.0.0.1/24", `--from: "10.0.0.1/24" has bits set after its length; want 10.0.0.0/24`},
		{"decap -i eth0 --vip 203.0.113.10 --from 2001:db8::1/64", `--from: "2001:db8::1/64" has bits set after its length; want 2001:db8::/64`},
		{"decap -i eth0 --vip 203.0.113.10 --from lb1", `--from: "lb1" is not a prefix; want one as 10.0.0.0/24 or 2001:db8::/64, or an address`},
	} {
		code, out, errs := weir(t, strings.Fields(tc.command)...)
		if code != 1 || out != "" || errs != "weir: "+tc.want+"\n" {
			t.Errorf("weir %s: exit %d, output %q, errors\n%s\nwant\n%s", tc.command, code, out, errs, tc.want)
		}
	}
}

func TestHelp(t *testing.T) {
	for command, want := range map[string]string{
		"":                  "weir [global options] command",
		"--help":            "weir [global options] command",
		"help run":          "weir run [command options]",
		"run --help":        "weir run [command options]",
		"check -h":          "weir check [command options] FILE",
		"show --help":       "announcements",
		"show flows --help": "weir show flows [command options]",
		"completion --help": "zsh",
		"drain --help":      "weir drain [command options] BACKEND",
		"undrain --help":    "slow_start",
		"plan --help":       "weir plan [command options] FILE",
		"doctor --help":     "weir doctor [command options] [SERVICE]",
	} {
		code, out, errs := weir(t, strings.Fields(command)...)
		if code != 0 || !strings.Contains(out, want) || errs != "" {
			t.Errorf("weir %s: exit %d, errors %q, output\n%s\nwant %q in it", command, code, errs, out, want)
		}
	}
}

func TestSourcePrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/24": "10.0.0.0/24", "10.0.0.1": "10.0.0.1/32", "2001:db8::/64": "2001:db8::/64", "2001:db8::1": "2001:db8::1/128",
	} {
		if got, err := parsePrefix(text); err != nil || got.String() != want {
			t.Errorf("%s is %v (%v), want %s", text, got, err, want)
		}
	}
	if got, err := parsePrefix("fe80::1%eth0"); err == nil {
		t.Errorf("an address with a zone is %v", got)
	}
}

func TestCompletionListsWhatCanComeNext(t *testing.T) {
	for _, tc := range []struct {
		before []string
		want   []string
	}{
		{nil, []string{"run", "check", "plan", "reload", "show", "doctor", "drain", "undrain", "decap", "completion", "help"}},
		{[]string{"show"}, []string{"services", "backends", "flows", "workers", "drops", "nat", "interfaces", "announcements", "pools", "members", "peers"}},
		{[]string{"show", "-"}, []string{"--help", "-h"}},
		{[]string{"completion"}, []string{"bash", "zsh"}},
	} {
		code, out, errs := weir(t, append(tc.before, "--generate-bash-completion")...)
		if words := strings.Fields(out); code != 0 || errs != "" || !slices.Equal(words, tc.want) {
			t.Errorf("after %q: exit %d, errors %q, words %q", tc.before, code, errs, words)
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

// What bash itself offers for a line, by the script: COMP_WORDS are the words as
// it would split them. Nothing means that it goes on to offer files.
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
	const script = `source <(weir completion bash) || exit; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _weir_complete; echo "${COMPREPLY[@]}"; complete -p weir`
	for _, tc := range []struct {
		words []string
		want  string
	}{
		{[]string{"weir", ""}, "run check plan reload show doctor drain undrain decap completion help"},
		{[]string{"weir", "sh"}, "show"},
		{[]string{"weir", "--"}, "--help --version"},
		{[]string{"weir", "show", ""}, "services backends flows workers drops nat interfaces announcements pools members peers"},
		{[]string{"weir", "show", "w"}, "workers"},
		{[]string{"weir", "show", "backends", ""}, ""},
		{[]string{"weir", "show", "backends", "-"}, "--socket -s --output -o --help -h"},
		{[]string{"weir", "show", "backends", "-o", ""}, "text json"},
		{[]string{"weir", "show", "backends", "-o", "j"}, "json"},
		{[]string{"weir", "show", "backends", "--output", ""}, "text json"},
		{[]string{"weir", "show", "backends", "--output", "="}, "text json"},
		{[]string{"weir", "show", "backends", "--output", "=", "t"}, "text"},
		{[]string{"weir", "show", "backends", "-o", "json", ""}, ""},
		{[]string{"weir", "show", "backends", "-o", "json", "--s"}, "--socket"},
		{[]string{"weir", "show", "backends", "--socket", ""}, ""},
		{[]string{"weir", "show", "flows", "--se"}, "--service"},
		{[]string{"weir", "run", "--"}, "--config --help"},
		{[]string{"weir", "run", ""}, ""},
		{[]string{"weir", "run", "--config", ""}, ""},
		{[]string{"weir", "run", "--config", "we"}, ""},
		{[]string{"weir", "run", "-c", ""}, ""},
		{[]string{"weir", "check", ""}, ""},
		{[]string{"weir", "check", "we"}, ""},
		{[]string{"weir", "decap", "--"}, "--interface --vip --from --generic --help"},
		{[]string{"weir", "decap", "--vip", "203.0.113.10", "--v"}, "--vip"},
		{[]string{"weir", "decap", "--generic", "--f"}, "--from"},
		{[]string{"weir", "completion", "b"}, "bash"},
		{[]string{"weir", "drain", "--"}, "--socket --service --output --over --help"},
		{[]string{"weir", "drain", "10.0.0.11", "--ov"}, "--over"},
		{[]string{"weir", "drain", "--over", ""}, ""},
		{[]string{"weir", "undrain", "-o", "j"}, "json"},
		{[]string{"weir", "doctor", "--"}, "--socket --output --help"},
		{[]string{"weir", "plan", "--o"}, "--output"},
		{[]string{"weir", "plan", "we"}, ""},
	} {
		cmd := exec.Command(bash, append([]string{"--norc", "-c", script, "bash"}, tc.words...)...)
		cmd.Env = append(os.Environ(), asWeir+"=1", noRaceSleep, "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		got, rest, _ := strings.Cut(string(out), "\n")
		if err != nil || got != tc.want {
			t.Errorf("%q is completed to %q (%v), want %q", tc.words, got, err, tc.want)
		}
		if !strings.Contains(rest, "-o default") {
			t.Errorf("files are not offered: %q", rest)
		}
	}
}

// answering is a weir that answers whatever it is asked with v, but for its
// services, and notes what it is asked last.
func answering(t *testing.T, code int, v any) (socket string, asked func() string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "weir.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var last atomic.Value
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last.Store(r.Method + " " + r.URL.String())
		w.WriteHeader(code)
		v := v
		if r.URL.Path == "/v1/services" {
			v = []any{map[string]any{"name": "web"}}
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return socket, func() string { text, _ := last.Load().(string); return text }
}
