package perf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// run runs a command of this package as weirlab does.
func run(t *testing.T, args ...string) error {
	t.Helper()
	app := &cli.App{Name: "weirlab", Commands: []*cli.Command{Command()}, Writer: t.Output(), ErrWriter: t.Output()}
	return app.Run(append([]string{"weirlab", "perf"}, args...))
}

// played is a measurement that writes what another has measured.
func played(t *testing.T, name, result string, err error) *cli.Command {
	return &cli.Command{
		Name:  name,
		Flags: []cli.Flag{&cli.PathFlag{Name: "write"}, &cli.BoolFlag{Name: "markdown"}},
		Action: func(c *cli.Context) error {
			fmt.Fprintf(c.App.Writer, "table of %s\n", name)
			fmt.Fprintln(c.App.ErrWriter, "level=INFO msg=measured")
			fmt.Fprintln(c.App.ErrWriter, "level=WARN msg=odd")
			if result != "" {
				write(t, c.Path("write"), read(t, result))
			}
			return err
		},
	}
}

// list returns the names in a directory, but for some.
func list(t *testing.T, dir string, but ...string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(but, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// One that fails does not stop the others, what it had measured is kept, and no
// file is written over.
func TestAll(t *testing.T) {
	source, dir := t.TempDir(), filepath.Join(t.TempDir(), "new")
	paths := results(t, source)
	broken := errors.New("no haproxy")
	var out, log bytes.Buffer
	a := all{
		commands: []*cli.Command{
			played(t, "flood", "", errors.New("nobody asked for it")),
			played(t, "connections", paths["connections"], broken),
			played(t, "snapshots", "", errors.New("not a thing")),
			played(t, "wire", paths["wire"], nil),
			played(t, "ladder", paths["ladder"], nil),
		},
		dir: dir, now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), out: &out, log: &log,
	}
	err := a.run(t.Context())
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "snapshots: not a thing") || strings.Contains(err.Error(), "ladder:") {
		t.Errorf("failed: %v", err)
	}
	first := []string{"2026-11-30-connections.json", "2026-11-30-ladder.json", "2026-11-30-ladder.svg", "2026-11-30-wire.json", "2026-11-30-wire.svg"}
	if got := list(t, dir); !slices.Equal(got, first) {
		t.Errorf("files %q, want %q", got, first)
	}
	text := out.String()
	at := 0
	for _, want := range []string{
		"=== ladder: What", "table of ladder", "=== wire: What", "table of wire", "=== connections: What", "table of connections",
		"connections FAILED: no haproxy", "snapshots FAILED: not a thing", "=== side by side", "3.50 times",
		"Charts: " + filepath.Join(dir, first[2]) + " " + filepath.Join(dir, first[4]), "perf all " + filepath.Join(dir, first[1]),
	} {
		i := strings.Index(text[at:], want)
		if i < 0 {
			t.Fatalf("no %q after %q in\n%s", want, text[:at], text)
		}
		at += i
	}
	if strings.Contains(text, "table of flood") {
		t.Error("measured what all does not")
	}
	if got := log.String(); !strings.Contains(got, "wire: 1 measured after") || !strings.Contains(got, "level=WARN msg=odd") || strings.Contains(got, "INFO") {
		t.Errorf("log %q", got)
	}

	before := read(t, filepath.Join(dir, first[1]))
	a.commands = a.commands[3:]
	if err := a.run(t.Context()); err != nil {
		t.Error(err)
	}
	second := []string{"2026-11-30b-ladder.json", "2026-11-30b-ladder.svg", "2026-11-30b-wire.json", "2026-11-30b-wire.svg"}
	if got := list(t, dir, first...); !slices.Equal(got, second) {
		t.Errorf("files of another run %q, want %q", got, second)
	}
	if read(t, filepath.Join(dir, first[1])) != before {
		t.Error("written over")
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out.Reset()
	if err := a.run(ctx); !errors.Is(err, context.Canceled) || strings.Contains(out.String(), "table") {
		t.Errorf("interrupted: %v\n%s", err, out.String())
	}
}

// Now and then there is a line that says how far it is.
func TestProgress(t *testing.T) {
	var log bytes.Buffer
	p := progress{to: &log, what: "wire", begun: time.Now()}
	for range 3 {
		fmt.Fprintln(&p, "level=INFO msg=measured")
	}
	p.told = p.told.Add(-progressEvery)
	fmt.Fprintln(&p, "level=INFO msg=measured")
	p.told = p.told.Add(-progressEvery)
	slog.New(slog.NewTextHandler(&p, nil)).With(measure.ProgressKey, "7/60").Info("measured", "ns", 5)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "wire: 1 measured after ") || !strings.HasPrefix(lines[1], "wire: 4 measured after ") ||
		!strings.HasPrefix(lines[2], "wire: 7 of 60 measured after ") {
		t.Errorf("%q", lines)
	}
}

// Letters end, and other measurements of the same day do not count.
func TestPrefix(t *testing.T) {
	a := all{dir: t.TempDir(), now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	next := func() string {
		t.Helper()
		prefix, err := a.prefix()
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Base(prefix)
	}
	write(t, filepath.Join(a.dir, "2026-11-30-checks.json"), "")
	if got := next(); got != "2026-11-30" {
		t.Error(got)
	}
	write(t, filepath.Join(a.dir, "2026-11-30-wire.svg"), "")
	for letter := 'b'; letter <= 'z'; letter++ {
		if got := next(); got != fmt.Sprintf("2026-11-30%c", letter) {
			t.Error(got)
		}
		write(t, filepath.Join(a.dir, next()+"-ladder.json"), "")
	}
	if prefix, err := a.prefix(); err == nil {
		t.Errorf("%s, and there are no more letters", prefix)
	}
}

// The measurements have the options that all gives them, and write files that all
// can read.
func TestSteps(t *testing.T) {
	commands := measurements()
	found := 0
	for _, s := range steps() {
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == s.command })
		if i < 0 {
			continue
		}
		found++
		asked := false
		commands[i].Action = func(c *cli.Context) error {
			asked = true
			if c.Path("write") != "file" || c.NArg() > 0 {
				t.Errorf("%s: write to %q, arguments %q", s.command, c.Path("write"), c.Args().Slice())
			}
			return nil
		}
		a := all{quick: true, out: t.Output(), log: t.Output()}
		if err := a.measure(t.Context(), commands[i], &s, "file"); err != nil || !asked {
			t.Errorf("%s: %v", s.command, err)
		}
		if !slices.ContainsFunc(kinds(), func(k kind) bool { return k.name == s.command }) {
			t.Errorf("files of %s cannot be read", s.command)
		}
	}
	if found < 3 {
		t.Errorf("%d measurements", found)
	}
}

// Without arguments it measures, with files it shows; nothing else is a file.
func TestShowAll(t *testing.T) {
	dir := t.TempDir()
	paths := results(t, dir)
	if err := run(t, "all", paths["wire"], paths["ladder"]); err != nil {
		t.Error(err)
	}
	other := filepath.Join(dir, "2026-11-27-other.json")
	write(t, other, "{}")
	for _, args := range [][]string{{"--quick", paths["wire"]}, {paths["wire"], "--quick"}} {
		if err := run(t, append([]string{"all"}, args...)...); err == nil || !strings.Contains(err.Error(), "--quick is ") {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, kind := range []string{"ladder", "connections", "loops"} {
		// Those of perf loops are reports of wire.
		misnamed := filepath.Join(dir, "2026-11-28-"+kind+".json")
		write(t, misnamed, read(t, paths["wire"]))
		if kind == "loops" {
			if err := run(t, "all", misnamed); err != nil {
				t.Error(err)
			}
		} else if err := run(t, "all", misnamed); err == nil || !strings.Contains(err.Error(), "perf wire FILE") {
			t.Errorf("a file of wire, named as one of %s: %v", kind, err)
		}
	}
	if err := run(t, "all", other); err == nil {
		t.Error("a file of no kind was shown")
	}
}
