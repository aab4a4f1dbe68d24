package perf

import (
	"path/filepath"
	"strings"
	"testing"
)

// A measurement's command shows its own reports, those that are committed too, and
// refuses all others. Those of loops and modes are of wire, or of before that.
func TestKinds(t *testing.T) {
	committed, err := filepath.Glob("results/*.json")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var paths []string
	for _, path := range results(t, dir) {
		paths = append(paths, path)
	}
	loops := filepath.Join(dir, "2026-11-27b-loops.json")
	write(t, loops, read(t, filepath.Join(dir, "2026-11-27b-wire.json")))
	old := filepath.Join(dir, "2026-11-27c-loops.json") // from between the two
	write(t, old, strings.Replace(read(t, loops), `"kind": "wire",`, "", 1))
	for _, path := range append(paths, append(committed, loops, old)...) {
		kind := kindName(path)
		for _, command := range kinds() {
			either := command.name == "loops" || command.name == "modes"
			mine := command.name == kind || path == loops && command.name == "wire"
			mine = mine || either && (kind == "wire" || kind == "loops" || kind == "modes")
			if err := run(t, command.name, path); (err == nil) != mine {
				t.Errorf("perf %s %s: %v", command.name, path, err)
			}
		}
		r, err := readResult(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if wires := kind == "wire" || path == loops || path == old; wires != (r.Kind() == "wire") {
			t.Errorf("%s is read as one of %s", path, r.Kind())
		}
	}
}
