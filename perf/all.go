package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// step is a measurement that all makes.
type step struct {
	command  string // its name, and that of its files
	question string // that it answers
	quick    []string
}

// steps returns what all measures, in order. One that there is no command for is
// left out.
func steps() []step {
	return []step{
		{"ladder", "What does weir itself do with a packet, without any I/O?",
			[]string{"--repeats=1", "--window=5ms", "--mode=dsr4", "--protocol=udp", "--no-memory"}},
		{"wire", "What does a packet cost from wire to wire, weir and everybody else?",
			[]string{"--repeats=1", "--window=100ms", "--step=50ms", "--flows=1024"}},
		{"connections", "What does a TCP connection cost, weir and what could be in its place?",
			[]string{"--repeats=1", "--window=200ms"}},
		{"snapshots", "How long until a change is in a snapshot, and what do workers notice of it?",
			[]string{"--repeats=1", "--services=50", "--changes=20"}},
	}
}

// all is a run of several measurements.
type all struct {
	commands []*cli.Command
	dir      string // of the results
	quick    bool
	now      time.Time
	out      io.Writer // tables
	log      io.Writer // progress
}

func allCommand(measurements []*cli.Command) *cli.Command {
	return &cli.Command{
		Name:      "all",
		Usage:     "measure weir beside what a user would pick instead, one thing after the other (root, two idle cores, an hour or more)",
		ArgsUsage: "[REPORT.json...]",
		Description: "Without an argument it measures, as perf ladder, wire, connections and snapshots do,\n" +
			"shows each table when it is there, writes all results, and puts the main figures side by side.\n" +
			"If one fails, the others go on, and the exit status says so. With files of an earlier run it\n" +
			"only shows these, and puts them side by side.",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "dir", Value: "perf/results", Usage: "write results to this directory, as DATE-ladder.json and so on"},
			&cli.BoolFlag{Name: "quick", Usage: "measure briefly and once: to see that everything works, not for figures"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				if err := measure.CheckShow(c); err != nil {
					return err
				}
				return showAll(c.App.Writer, c.Args().Slice())
			}
			a := all{commands: measurements, dir: c.Path("dir"), quick: c.Bool("quick"), now: time.Now(), out: c.App.Writer, log: c.App.ErrWriter}
			return a.run(c.Context)
		},
	}
}

// run measures everything. What has failed is in the error.
func (a *all) run(ctx context.Context) error {
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return fmt.Errorf("make directory of results: %w", err)
	}
	prefix, err := a.prefix()
	if err != nil {
		return err
	}
	var results, charts []string
	var errs []error
	for _, s := range steps() {
		i := slices.IndexFunc(a.commands, func(c *cli.Command) bool { return c.Name == s.command })
		if i < 0 || ctx.Err() != nil {
			continue
		}
		path := prefix + "-" + s.command + ".json"
		err := a.measure(ctx, a.commands[i], &s, path)
		if _, missing := os.Stat(path); missing == nil {
			// Also of one that has failed: what it has measured until then.
			results = append(results, path)
			chart, errChart := drawResult(path)
			if err = errors.Join(err, errChart); chart != "" {
				charts = append(charts, chart)
			}
		}
		if err != nil {
			fmt.Fprintf(a.out, "\n%s FAILED: %v\n", s.command, err)
			errs = append(errs, fmt.Errorf("%s: %w", s.command, err))
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, ctx.Err())
	}
	if len(results) > 0 {
		errs = append(errs, a.conclude(results, charts))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("not everything was measured: %w", err)
	}
	return nil
}

// measure runs a measurement's command.
func (a *all) measure(ctx context.Context, command *cli.Command, s *step, path string) error {
	args := []string{"perf", s.command, "--write=" + path}
	if a.quick {
		args = append(args, s.quick...)
	}
	fmt.Fprintf(a.out, "\n=== %s: %s\n    weirlab %s\n\n", s.command, s.question, strings.Join(args, " "))
	app := &cli.App{
		Name: "weirlab", HelpName: "weirlab perf", Commands: []*cli.Command{command},
		Writer: a.out, ErrWriter: &progress{to: a.log, what: s.command, begun: time.Now()},
		ExitErrHandler: func(*cli.Context, error) {}, // that a command failed is not the end
	}
	return app.RunContext(ctx, args)
}

// conclude says what came out, and where it is.
func (a *all) conclude(results, charts []string) error {
	reports, err := readAll(results)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	if err := sideBySide(a.out, reports); err != nil {
		return err
	}
	if a.quick {
		fmt.Fprintln(a.out, "\nThis was a quick run: its figures say little.")
	}
	fmt.Fprintf(a.out, "\nWritten, every single value: %s\n", strings.Join(results, " "))
	if len(charts) > 0 {
		fmt.Fprintf(a.out, "Charts: %s\n", strings.Join(charts, " "))
	}
	fmt.Fprintf(a.out, "To see it again: weirlab perf all %s\n", strings.Join(results, " "))
	return nil
}

// prefix returns what the names of all files of this run begin with: the date,
// and a letter if there are files of an earlier run.
func (a *all) prefix() (string, error) {
	date := filepath.Join(a.dir, a.now.Format(time.DateOnly))
	free := func(prefix string) bool {
		return !slices.ContainsFunc(steps(), func(s step) bool {
			for _, ext := range []string{".json", ".svg"} {
				if _, err := os.Lstat(prefix + "-" + s.command + ext); !errors.Is(err, os.ErrNotExist) {
					return true
				}
			}
			return false
		})
	}
	if free(date) {
		return date, nil
	}
	for letter := 'b'; letter <= 'z'; letter++ {
		if prefix := date + string(letter); free(prefix) {
			return prefix, nil
		}
	}
	return "", fmt.Errorf("%s has results %s to %sz: name another directory with --dir", a.dir, filepath.Base(date), filepath.Base(date))
}

// showAll shows results of any kind, and what there is to compare.
func showAll(w io.Writer, paths []string) error {
	reports, err := readAll(paths)
	if err != nil {
		return err
	}
	for i, r := range reports {
		name := kindName(paths[i])
		heading := name
		if n := slices.IndexFunc(steps(), func(s step) bool { return s.command == name }); n >= 0 {
			heading += ": " + steps()[n].question
		}
		if _, err := fmt.Fprintf(w, "=== %s\n    %s\n\n", heading, paths[i]); err != nil {
			return err
		}
		if err := measure.WriteText(w, r.Tables()); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return sideBySide(w, reports)
}

func readAll(paths []string) (reports []measure.Report, err error) {
	for _, path := range paths {
		r, err := readResult(path)
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func sideBySide(w io.Writer, reports []measure.Report) error {
	s := summarize(reports)
	if s.empty() {
		return nil
	}
	if _, err := fmt.Fprint(w, "=== side by side\n\n"); err != nil {
		return err
	}
	return measure.WriteText(w, s.tables())
}
