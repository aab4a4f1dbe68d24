package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestReload(t *testing.T) {
	socket, asked := answering(t, 200, map[string]any{"generation": 12, "warnings": []string{"weir.yaml:3: warning: careful"}})
	code, out, errs := weir(t, "reload", "--socket", socket)
	if code != 0 || out != "reloaded; snapshot 12 is in force\n" || errs != "weir.yaml:3: warning: careful\n" || asked() != "POST /v1/reload" {
		t.Errorf("exit %d, output %q, errors %q, asked %q", code, out, errs, asked())
	}
	socket, _ = answering(t, 422, map[string]any{"error": "flows changed, which needs a restart"})
	code, out, errs = weir(t, "reload", "-s", socket)
	if code != 1 || out != "" || errs != "weir: flows changed, which needs a restart\n" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

func TestShowFlowsPassesItsFilterOn(t *testing.T) {
	socket, asked := answering(t, 200, map[string]any{"flows": []any{}})
	code, out, errs := weir(t, "show", "flows", "--socket", socket, "--limit", "5", "--service", "web", "--backend", "10.0.0.11")
	if code != 0 || asked() != "GET /v1/flows?backend=10.0.0.11&limit=5&service=web" {
		t.Errorf("exit %d, asked %q, output %q, errors %q", code, asked(), out, errs)
	}
	if !strings.HasPrefix(out, "PROTO  CLIENT") {
		t.Errorf("output %q", out)
	}
}

// A misspelt service must not look like one that has no flows.
func TestShowFlowsOfNoService(t *testing.T) {
	socket, asked := answering(t, 200, map[string]any{"flows": []any{}})
	for _, format := range []string{"text", "json"} {
		code, out, errs := weir(t, "show", "flows", "--socket", socket, "--service", "nope", "-o", format)
		if code != 1 || out != "" || errs != "weir: no such service: \"nope\"; there are web\n" || asked() != "GET /v1/services" {
			t.Errorf("exit %d, asked %q, output %q, errors %q", code, asked(), out, errs)
		}
	}
}

func TestDrain(t *testing.T) {
	answer := map[string]any{
		"backends": []any{map[string]any{"service": "web", "address": "10.0.0.11", "status": "draining", "drained": true, "flows": 7}},
		"warnings": []string{"service web has no backend left"},
	}
	socket, asked := answering(t, 200, answer)
	for _, tc := range []struct{ command, asked string }{
		{"drain 10.0.0.11", "POST /v1/drain?backend=10.0.0.11"},
		{"drain 10.0.0.11 --over 60s", "POST /v1/drain?backend=10.0.0.11&over=1m0s"},
		{"drain --over=5m 2001:db8::0:11 --service web", "POST /v1/drain?backend=2001%3Adb8%3A%3A11&over=5m0s&service=web"},
		{"undrain --service web 10.0.0.11", "POST /v1/undrain?backend=10.0.0.11&service=web"},
	} {
		code, out, errs := weir(t, append(strings.Fields(tc.command), "--socket", socket)...)
		if code != 0 || asked() != tc.asked || errs != "service web has no backend left\n" ||
			out != "web: 10.0.0.11 gets no new flows; 7 live flows stay until they end\n" {
			t.Errorf("weir %s: exit %d, asked %q, output %q, errors %q", tc.command, code, asked(), out, errs)
		}
	}
	code, out, _ := weir(t, "drain", "10.0.0.11", "-s", socket, "-o", "json")
	var back map[string]any
	if err := json.Unmarshal([]byte(out), &back); err != nil || code != 0 || len(back["warnings"].([]any)) != 1 {
		t.Errorf("exit %d, output %q: %v", code, out, err)
	}
	socket, _ = answering(t, 422, map[string]any{"error": "no service has a backend 10.0.0.99"})
	if code, out, errs := weir(t, "drain", "10.0.0.99", "-s", socket); code != 1 || out != "" || errs != "weir: no service has a backend 10.0.0.99\n" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

func TestPlan(t *testing.T) {
	path := file(t, "the text of the file")
	fine := map[string]any{"services": []any{map[string]any{"name": "web", "change": "changed", "moved": 0.5}}, "warnings": []string{"careful"}}
	socket, asked := answering(t, 200, fine)
	code, out, errs := weir(t, "plan", path, "--socket", socket)
	if code != 0 || !strings.HasPrefix(out, "SERVICE  CHANGE   SLOTS MOVED") || errs != "careful\n" || !strings.HasPrefix(asked(), "POST /v1/plan?name=%2F") {
		t.Errorf("exit %d, asked %q, output %q, errors %q", code, asked(), out, errs)
	}
	if code, out, _ := weir(t, "plan", "-o", "json", "-s", socket, path); code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("exit %d, output %q", code, out)
	}
	fine["needs_restart"] = []string{"interfaces", "log"}
	socket, _ = answering(t, 200, fine)
	code, out, errs = weir(t, "plan", path, "--socket", socket)
	if code != 1 || !strings.Contains(out, "needs a restart: interfaces, log") || !strings.HasSuffix(errs, "weir: interfaces, log changed, which needs a restart; weir reload would refuse the file\n") {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
	socket, _ = answering(t, 422, map[string]any{"error": "a\nb", "mistakes": []string{path + ":1: a", path + ":2: b"}})
	code, out, errs = weir(t, "plan", path, "--socket", socket)
	if code != 1 || out != "" || errs != path+":1: a\n"+path+":2: b\n2 mistakes\n" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

// Whoever asks from a script learns by the exit code whether something is wrong.
func TestDoctor(t *testing.T) {
	fine := map[string]any{"subject": "lb1", "status": "ok", "children": []any{map[string]any{"subject": "web", "status": "warn", "text": "slow"}}}
	bad := map[string]any{"subject": "lb1", "status": "fail", "children": []any{
		map[string]any{"subject": "web", "status": "fail", "text": "no VIP", "fix": "add it"}, map[string]any{"subject": "dns", "status": "fail"},
	}}
	for _, tc := range []struct {
		command    string
		answer     any
		code       int
		asked, out string
		errs       string
	}{
		{"doctor", fine, 0, "GET /v1/doctor", "ok   lb1\n  warn web: slow\n", ""},
		{"doctor web", fine, 0, "GET /v1/doctor?service=web", "ok   lb1\n  warn web: slow\n", ""},
		{"doctor", bad, 1, "GET /v1/doctor", "FAIL lb1\n  FAIL web: no VIP\n       fix: add it\n  FAIL dns\n", "weir: there are 2 faults\n"},
	} {
		socket, asked := answering(t, 200, tc.answer)
		code, out, errs := weir(t, append(strings.Fields(tc.command), "--socket", socket)...)
		if code != tc.code || out != tc.out || errs != tc.errs || asked() != tc.asked {
			t.Errorf("weir %s: exit %d, asked %q, output %q, errors %q", tc.command, code, asked(), out, errs)
		}
		code, out, errs = weir(t, append(strings.Fields(tc.command), "-o", "json", "-s", socket)...)
		var back map[string]any
		if err := json.Unmarshal([]byte(out), &back); err != nil || code != tc.code || errs != tc.errs || back["subject"] != "lb1" {
			t.Errorf("weir %s as JSON: exit %d, output %q, errors %q", tc.command, code, out, errs)
		}
	}
	socket, _ := answering(t, 422, map[string]any{"error": "no such service: \"we\"; there are web"})
	if code, out, errs := weir(t, "doctor", "we", "-s", socket); code != 1 || out != "" || errs != "weir: no such service: \"we\"; there are web\n" {
		t.Errorf("exit %d, output %q, errors %q", code, out, errs)
	}
}

// Addresses of backends are offered as the running weir has them.
func TestCompletionAsksWeir(t *testing.T) {
	socket, asked := answering(t, 200, []any{
		map[string]any{"service": "web", "address": "10.0.0.11"}, map[string]any{"service": "web", "address": "2001:db8::11"}, map[string]any{"service": "dns", "address": "10.0.0.11"},
	})
	t.Setenv("WEIR_SOCKET", socket)
	for command, want := range map[string][]string{
		"doctor":               {"web", "dns"},
		"drain":                {"10.0.0.11", "2001:db8::11"},
		"undrain":              {"10.0.0.11", "2001:db8::11"},
		"drain --service":      {"web", "dns"},
		"show flows --backend": {"10.0.0.11", "2001:db8::11"},
	} {
		code, out, errs := weir(t, append(strings.Fields(command), "--generate-bash-completion")...)
		if words := strings.Fields(out); code != 0 || errs != "" || !slices.Equal(words, want) || asked() != "GET /v1/backends" {
			t.Errorf("after %q: exit %d, errors %q, words %q", command, code, errs, words)
		}
	}
}
