package containerlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	for _, name := range []string{"awk", "bash", "cat", "chmod", "cp", "cut", "dirname", "grep", "mkdir", "mktemp", "rm", "sed", "sha256sum", "sleep", "xargs"} {
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

// TestSetupContainerlab holds that setup.sh says which containerlab it has found, and
// that it builds none which is not the one it means to build.
func TestSetupContainerlab(t *testing.T) {
	const found = `echo "    version: 1.2.3"`
	// Has the source below the folder of programs.
	const golang = `case $2 in download) printf '\t"Dir": "%s",\n' "${0%/*}/source" ;; edit) ;;
		*) while [ "$1" != -o ]; do shift; done; grep -h open utils/* >>"$log"; cp containerlab "$2" ;; esac`
	_, err := os.Stat("/proc/modules")
	modules := err == nil
	reads := "/dev/null"
	if modules {
		reads = "/proc/modules"
	}
	for _, test := range []struct {
		name, containerlab, source string
		out, said, built           string
		fails                      bool
	}{
		{"there already", found, "", "containerlab 1.2.3, PROGRAMS/containerlab\n", "", "", false},
		{"broken", "exit 1", "", "", "PROGRAMS/containerlab is no containerlab that runs\n", "", true},
		{"built", "", `open("/proc/modules")`, "containerlab 1.2.3, TREE/bin/containerlab/containerlab\n", "", `open("` + reads + `")` + "\n", false},
		{"another source", "", `open("/proc/" + "modules")`, "", "does not read /proc/modules", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if modules && test.name == "another source" {
				t.Skip("with a /proc/modules, nothing is replaced")
			}
			b := newBench(t)
			tree := t.TempDir()
			place := strings.NewReplacer("PROGRAMS", b.programs, "TREE", tree)
			script := filepath.Join(tree, "lab/containerlab/setup.sh")
			text, err := os.ReadFile("setup.sh")
			if err != nil {
				t.Fatal(err)
			}
			write(t, script, string(text))
			b.has(t, "go", golang)
			write(t, filepath.Join(b.programs, "source/utils/kernel_module.go"), test.source)
			write(t, filepath.Join(b.programs, "source/containerlab"), "#!"+filepath.Join(b.programs, "bash")+"\n"+found+"\n")
			if test.containerlab != "" {
				b.has(t, "containerlab", test.containerlab)
			}
			out, said, err := b.run(t, script, "containerlab")
			if (err != nil) != test.fails || out != place.Replace(test.out) || !strings.Contains(said, place.Replace(test.said)) {
				t.Errorf("%v, printed %q, and said %q", err, out, said)
			}
			if built, _ := os.ReadFile(b.log); string(built) != test.built {
				t.Errorf("built from %q, want %q", built, test.built)
			}
		})
	}
}

// TestSetupDown holds that the daemon is ended, whether Docker lets go of the network or not.
func TestSetupDown(t *testing.T) {
	for _, test := range []struct{ name, remove, said string }{
		{"all goes", `echo "$3" >>"$log"`, ""},
		{"lost count", `echo "has active endpoints" >&2; exit 1`, "the labs' network stays"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, tree := newBench(t), t.TempDir()
			text, err := os.ReadFile("setup.sh")
			if err != nil {
				t.Fatal(err)
			}
			script := filepath.Join(tree, "lab/containerlab/setup.sh")
			write(t, script, string(text))
			b.has(t, "docker", `case $1$2 in networkls) echo clab ;; networkrm) `+test.remove+` ;; esac`)

			program, err := exec.LookPath("sleep")
			if err != nil {
				t.Fatal(err)
			}
			binary, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			daemon := exec.Command(filepath.Join(tree, "dockerd"), "600")
			if err := os.WriteFile(daemon.Path, binary, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- daemon.Wait() }()
			defer daemon.Process.Kill()
			write(t, filepath.Join(tree, "bin/containerlab/dockerd.pid"), strconv.Itoa(daemon.Process.Pid))

			out, said, err := b.run(t, script, "down")
			if err != nil || out != "" || !strings.Contains(said, test.said) {
				t.Fatalf("%v, printed %q, and said %q", err, out, said)
			}
			<-ended
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
