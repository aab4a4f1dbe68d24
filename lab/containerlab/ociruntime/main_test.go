package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The names are in the order of the kernel's numbers, of which x/sys has some.
func TestNames(t *testing.T) {
	for name, number := range map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_SETPCAP": unix.CAP_SETPCAP, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_SYS_MODULE": unix.CAP_SYS_MODULE,
		"CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYSLOG": unix.CAP_SYSLOG,
		"CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_LAST_CAP,
	} {
		if number >= len(names) || names[number] != name {
			t.Errorf("%s is not number %d", name, number)
		}
	}
}

func TestWithheld(t *testing.T) {
	for _, tt := range []struct {
		status string
		want   []string
	}{
		{"Name:\tx\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n", nil},
		{"CapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n", []string{"CAP_SYS_RESOURCE"}},
		{"CapBnd:\t0000007ffffefffe\n", []string{"CAP_CHOWN", "CAP_SYS_MODULE", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"}},
		{"CapBnd:\tffffffffffffffff\n", nil}, // a kernel that knows more
	} {
		got, err := withheld(tt.status)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q withholds %q, %v; want %q", tt.status, got, err, tt.want)
		}
	}
	for _, status := range []string{"", "CapEff:\t000001ffffffffff\n", "CapBnd:\tall\n"} {
		if got, err := withheld(status); err == nil {
			t.Errorf("%q withholds %q, and no error", status, got)
		}
	}
}

func TestDescription(t *testing.T) {
	for _, tt := range []struct {
		args      string
		path      string
		inProcess bool
	}{
		{"--root /run/r --log /run/log.json --log-format json create --bundle /run/b --pid-file /run/p ID", "/run/b/config.json", true},
		{"--root /run/r --log=/run/create create -b /run/b ID", "/run/b/config.json", true},
		{"--systemd-cgroup run --bundle=/run/b ID", "/run/b/config.json", true},
		{"create ID", "config.json", true},
		{"--log /l --log-format json exec --process /tmp/process1 --detach --pid-file /p ID", "/tmp/process1", false},
		{"exec -p /tmp/process1 ID", "/tmp/process1", false},
		{"exec ID sh -c true", "", false},
		{"exec ID -- sh --process /etc/passwd", "", false},
		{"--root /run/r start ID", "", false},
		{"--root create kill --all ID 9", "", false},
		{"--version", "", false},
		{"", "", false},
	} {
		if path, inProcess := description(strings.Fields(tt.args)); path != tt.path || inProcess != tt.inProcess {
			t.Errorf("%q is described by %q, %t; want %q, %t", tt.args, path, inProcess, tt.path, tt.inProcess)
		}
	}
}

// Of what a daemon writes, a part: numbers that no float64 holds, and text that JSON
// escapes, have to come through.
const bundle = `{"ociVersion":"1.0.2","process":{"args":["sh","-c","a < b && c"],"capabilities":{
	"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_SOMETHING_NEW"],"effective":["CAP_SYS_RESOURCE","CAP_CHOWN"],"permitted":["CAP_CHOWN"]},
	"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615}],"oomScoreAdj":0},
	"linux":{"resources":{"devices":[{"allow":true,"major":9007199254740993}]}}}`

func TestEdit(t *testing.T) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(bundle), &whole); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		text      string
		inProcess bool
		lacking   []string
		want      map[string]any // the capabilities; nil, where there are none
	}{
		{"create", bundle, true, []string{"CAP_SYS_RESOURCE"}, map[string]any{
			"bounding": []any{"CAP_CHOWN", "CAP_SOMETHING_NEW"}, "effective": []any{"CAP_CHOWN"}, "permitted": []any{"CAP_CHOWN"}}},
		{"exec", string(whole["process"]), false, []string{"CAP_CHOWN", "CAP_SYS_RESOURCE"}, map[string]any{
			"bounding": []any{"CAP_SOMETHING_NEW"}, "effective": []any{}, "permitted": []any{}}},
		{"nothing withheld", bundle, true, nil, map[string]any{
			"bounding": []any{"CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_SOMETHING_NEW"}, "effective": []any{"CAP_SYS_RESOURCE", "CAP_CHOWN"}, "permitted": []any{"CAP_CHOWN"}}},
		{"no capabilities", `{"args":["true"]}`, false, []string{"CAP_CHOWN"}, nil},
		{"no process", `{"ociVersion":"1.0.2"}`, true, []string{"CAP_CHOWN"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(tt.text), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := edit(path, tt.inProcess, tt.lacking); err != nil {
				t.Fatal(err)
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, beforeCaps := parts(t, []byte(tt.text), tt.inProcess)
			rest, caps := parts(t, after, tt.inProcess)
			if !reflect.DeepEqual(caps, tt.want) && (beforeCaps != nil || tt.want != nil) {
				t.Errorf("capabilities are %v, want %v", caps, tt.want)
			}
			if !reflect.DeepEqual(rest, before) {
				t.Errorf("the rest is now %v, was %v", rest, before)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode: %v, %v", info.Mode(), err)
			}
		})
	}
	for name, text := range map[string]string{"no object": `[]`, "cut off": `{"process":{"capab`, "sets that are none": `{"process":{"capabilities":["CAP_CHOWN"]}}`} {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := edit(path, true, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
		if after, _ := os.ReadFile(path); string(after) != text {
			t.Errorf("%s: is now %s", name, after)
		}
	}
}

// parts returns a description without its capabilities, and these.
func parts(t *testing.T, text []byte, inProcess bool) (rest, caps map[string]any) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	if err := decoder.Decode(&rest); err != nil {
		t.Fatal(err)
	}
	process := rest
	if inProcess {
		process, _ = rest["process"].(map[string]any)
	}
	caps, _ = process["capabilities"].(map[string]any)
	delete(process, "capabilities")
	return rest, caps
}
