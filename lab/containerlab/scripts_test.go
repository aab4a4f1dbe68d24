package containerlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bench is a machine for a script to run on: a folder with the programs that it finds,
// some of which are the test's own.
type bench struct{ programs, log string }

// newBench returns one that has what the scripts need besides.
func newBench(t *testing.T) bench {
	t.Helper()
	dir := t.TempDir()
	b := bench{programs: filepath.Join(dir, "programs"), log: filepath.Join(dir, "log")}
	if err := os.Mkdir(b.programs, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"awk", "bash", "cat", "chmod", "cp", "cut", "dirname", "grep", "mkdir", "mktemp", "rm", "sed", "sha256sum"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(b.programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// has makes a program of the lines of a shell script; $log is a file that is the test's.
func (b bench) has(t *testing.T, name, script string) {
	t.Helper()
	text := "#!" + filepath.Join(b.programs, "bash") + "\nlog=" + b.log + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(b.programs, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// run returns what a script prints on its standard output, and on the other one.
func (b bench) run(t *testing.T, script string, args ...string) (out, said string, err error) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(filepath.Join(b.programs, "bash"), append([]string{script}, args...)...)
	cmd.Env = []string{"PATH=" + b.programs, "TMPDIR=" + t.TempDir()}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if left, _ := filepath.Glob(filepath.Join(strings.TrimPrefix(cmd.Env[1], "TMPDIR="), "*")); len(left) > 0 {
		t.Errorf("%s has left %q", script, left)
	}
	return stdout.String(), stderr.String(), err
}

// TestImages holds that images.sh gives an image its name only when it is whole.
func TestImages(t *testing.T) {
	const (
		root      = "echo 0"
		whole     = `echo whole >"${@: -1}"`
		half      = `echo half >"${@: -1}"; exit 1`
		answers   = `[ "$1" = version ]` // and has no image
		imports   = answers + ` || { [ "$1" = import ] && echo "$3: $(cat "$2")" >>"$log"; }`
		hasImages = "exit 0"
	)
	for _, test := range []struct {
		name, id, docker, mmdebstrap string
		imported                     string // what the image of this name was made of
		said                         string // on failure, part of it
	}{
		{"made", root, imports, whole, "whole", ""},
		{"there already", root, hasImages, half, "", ""},
		{"half a tree", root, imports, half, "", "tree"},
		{"import fails", root, answers, whole, "", "import"},
		{"no Docker", root, "exit 1", whole, "", "Docker does not answer"},
		{"no root", "echo 1000", imports, whole, "", "needs root"},
		{"no mmdebstrap, no Debian", root, imports, "", "", "missing: mmdebstrap"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.has(t, "id", test.id)
			b.has(t, "docker", "echo \"$@\" >&2\n"+test.docker)
			if test.mmdebstrap != "" {
				b.has(t, "mmdebstrap", "echo tree >&2\n"+test.mmdebstrap)
			}
			out, said, err := b.run(t, "images.sh")
			if failed := err != nil; failed != (test.said != "") || !strings.Contains(said, test.said) {
				t.Errorf("%v, and said %q", err, said)
			}
			image, imported := "", ""
			if log, err := os.ReadFile(b.log); err == nil {
				image, imported, _ = strings.Cut(strings.TrimSpace(string(log)), ": ")
			}
			if imported != test.imported {
				t.Errorf("made an image of %q, want %q", imported, test.imported)
			}
			lines := strings.Fields(out)
			if want := 4; err != nil && len(lines) > 0 || err == nil && len(lines) != want {
				t.Errorf("printed %q", out)
			}
			for _, line := range lines {
				if !strings.HasPrefix(line[strings.IndexByte(line, '=')+1:], "weir-lab:bookworm-") || !strings.HasSuffix(line, image) {
					t.Errorf("printed %q, and made %q", line, image)
				}
			}
		})
	}
}
