package seed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// box is a root file system with what is there when the seed is applied.
func box(t *testing.T) (b *Box, said *[]string) {
	t.Helper()
	b = &Box{Root: t.TempDir(), State: t.TempDir()}
	said = new([]string)
	b.Say = func(format string, args ...any) { *said = append(*said, fmt.Sprintf(format, args...)) }
	b.Check = func(path string) error {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), "mistake") {
			err = errors.New("it has a mistake")
		}
		return err
	}
	put(t, b, "/etc/shadow", "daemon:*:1:0:::::\nroot:*:20000:0:99999:7:::\nweir:!*:20000::::::\n")
	put(t, b, "/etc/chrony/sources.d/weir-default.sources", "pool x\n")
	put(t, b, "/etc/weir/weir.yaml", "# nothing yet\n")
	return b, said
}

func put(t *testing.T, b *Box, name, text string) {
	t.Helper()
	path := b.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// get returns a file, or what there is instead.
func get(t *testing.T, b *Box, name string) string {
	t.Helper()
	text, err := os.ReadFile(b.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func apply(t *testing.T, b *Box, files Files) error {
	t.Helper()
	s, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	return b.Apply(&s)
}

func TestApply(t *testing.T) {
	b, said := box(t)
	err := apply(t, b, Files{
		MetaData: []byte("local-hostname: lb1\n"),
		UserData: []byte("#cloud-config\npassword: $6$a$b\nssh_authorized_keys: [" + key1 + ", " + key2 + "]\nntp: {servers: [10.0.0.1]}\nlocale: C\n"),
		WeirYAML: []byte("interfaces: []\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/etc/hostname":                              "lb1\n",
		"/etc/shadow":                                "daemon:*:1:0:::::\nroot:$6$a$b:20000:0:99999:7:::\nweir:!*:20000::::::\n",
		"/etc/ssh/authorized_keys/root":              key1 + "\n" + key2 + "\n",
		"/etc/chrony/sources.d/seed.sources":         "server 10.0.0.1 iburst\n",
		"/etc/chrony/sources.d/weir-default.sources": "(none)",
		"/etc/weir/weir.yaml":                        "interfaces: []\n",
		"/etc/weir/weir.yaml.before":                 "# nothing yet\n",
		"/etc/weir/weir.yaml.seed":                   "(none)",
	} {
		if got := get(t, b, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(get(t, b, "/etc/hosts"), "127.0.1.1 lb1\n") || !strings.Contains(get(t, b, "/etc/systemd/network/80-dhcp.network"), "DHCP=yes") {
		t.Error("no host name in /etc/hosts, or no network")
	}
	for path, want := range map[string]os.FileMode{"/etc/shadow": 0o600, "/etc/weir/weir.yaml": 0o640, "/etc/ssh/authorized_keys/root": 0o644} {
		if info, err := os.Stat(b.path(path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if all := strings.Join(*said, "\n"); !strings.Contains(all, "locale") {
		t.Errorf("nobody was told of what has no effect: %s", all)
	}
}

// The seed and the operator both write weir.yaml. Each step is one boot, with what the
// seed has and what the operator did before it.
func TestNewerFileCounts(t *testing.T) {
	b, _ := box(t)
	for i, step := range []struct {
		edit, seed string // "": no edit, no file on the seed
		want       string
		fails      bool
	}{
		{"", "one", "one", false},
		{"", "one", "one", false},
		{"mine", "one", "mine", false},
		{"", "two", "two", false},
		{"", "mistake", "two", true},
		{"", "mistake", "two", true},
		{"mine again", "mistake", "mine again", true},
		{"", "three", "three", false},
		{"mine", "", "mine", false},
		{"", "three", "three", false}, // a seed that is back is new
	} {
		if step.edit != "" {
			put(t, b, "/etc/weir/weir.yaml", step.edit)
		}
		files := make(Files)
		if step.seed != "" {
			files[WeirYAML] = []byte(step.seed)
		}
		err := apply(t, b, files)
		if got := get(t, b, "/etc/weir/weir.yaml"); got != step.want || (err != nil) != step.fails {
			t.Errorf("boot %d: %q, %v; want %q", i, got, err, step.want)
		}
	}
	if got := get(t, b, "/etc/weir/weir.yaml.before"); got != "mine" {
		t.Errorf("before the seed's there was %q", got)
	}
}
