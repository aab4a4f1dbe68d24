package clab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weir/lab/labtest"
)

const labs = "../containerlab"

// TestLabsRead reads every lab, as it is without any variable.
func TestLabsRead(t *testing.T) {
	files := must(filepath.Glob(labs + "/*.clab.yml"))(t)
	if len(files) != 6 {
		t.Errorf("%d labs, want 6: %q", len(files), files)
	}
	for _, file := range files {
		topology, err := read(file, string(must(os.ReadFile(file))(t)), nothing, func(path string) error {
			_, err := os.Stat(path)
			return err
		})
		if err != nil {
			t.Error(err)
			continue
		}
		if want := strings.TrimSuffix(filepath.Base(file), ".clab.yml"); topology.Name != want {
			t.Errorf("%s: name %s, want %s", file, topology.Name, want)
		}
		if len(topology.Notes) > 0 {
			t.Errorf("%s has what is for Docker only: %q", file, topology.Notes)
		}
	}
}

// TestLabs runs every lab of the project with its check script. No command of a
// lab may fail, and no process end by itself.
func TestLabs(t *testing.T) {
	labtest.NeedRoot(t)
	if testing.Short() {
		t.Skip("takes minutes")
	}
	weir := filepath.Join(t.TempDir(), "weir")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", weir, "weir/cmd/weir")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weir: %v: %s", err, out)
	}
	for _, file := range must(filepath.Glob(labs + "/*.clab.yml"))(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".clab.yml"), func(t *testing.T) {
			t.Parallel()
			var out output
			l := deployed(t, must(Read(file))(t), Options{Weir: weir, Out: &out})
			err := l.Check(t.Context(), CheckScript(file), &out)
			if failures := l.Failures(); err != nil || len(failures) > 0 {
				Job{Out: &out}.evidence(l)
				t.Errorf("%v; what has gone wrong beside: %q\n%s", err, failures, out.String())
				return
			}
			t.Log(out.String())
		})
	}
}
