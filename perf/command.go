package perf

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"
)

// Command returns the command perf, for a program's list of commands.
func Command() *cli.Command {
	return &cli.Command{
		Name:        "perf",
		Usage:       "measure",
		Subcommands: []*cli.Command{loopsCommand(), loopCommand()},
	}
}

func loopsCommand() *cli.Command {
	return &cli.Command{
		Name:      "loops",
		Usage:     "measure forwarding loops on our AF_XDP rings and on another library's (root, two idle cores, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Anything else that runs on the machine shows in the last column: how much of the time\n" +
			"loop or generator had to wait for their core.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "repeats", Value: 5, Usage: "how often to measure each"},
			&cli.DurationFlag{Name: "window", Value: 2 * time.Second, Usage: "how long to measure each"},
			&cli.IntFlag{Name: "ring", Value: 2048, Usage: "entries of the loops' rings"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this (default: all)"},
			&cli.IntSliceFlag{Name: "cpus", Usage: "of generator and loop (default: the first two allowed)"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the order (default: random)"},
			&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "show a table for a page"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return errors.New("perf loops: one file at most")
			}
			if path := c.Args().First(); path != "" {
				report, err := ReadReport(path)
				if err != nil {
					return err
				}
				return show(c, report)
			}
			return measure(c)
		},
	}
}

func measure(c *cli.Context) error {
	var scenarios []Scenario
	for _, s := range c.StringSlice("scenario") {
		scenarios = append(scenarios, Scenario(s))
	}
	report, err := Loops(c.Context, Options{
		Repeats:   c.Int("repeats"),
		Window:    c.Duration("window"),
		Ring:      c.Int("ring"),
		Scenarios: scenarios,
		CPUs:      c.IntSlice("cpus"),
		Seed:      c.Uint64("seed"),
		Log:       slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)),
	})
	if len(report.Cells) == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, report.WriteFile(path))
	}
	return errors.Join(err, show(c, report))
}

func show(c *cli.Context, report Report) error {
	write := report.WriteText
	if c.Bool("markdown") {
		write = report.WriteMarkdown
	}
	if err := write(c.App.Writer); err != nil {
		return fmt.Errorf("show report: %w", err)
	}
	return nil
}
