package connections

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// commandName is the command's, below perf.
const commandName = "connections"

// Command returns the command connections, for the list of perf's.
func Command() *cli.Command {
	return &cli.Command{
		Name:      commandName,
		Usage:     "measure TCP connections per second, and what each costs weir and what could be in its place (root, two idle cores, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Anything else that runs on the machine shows in the last column: how much of the time\n" +
			"the balancer's core was at something else.",
		Flags: []cli.Flag{
			&cli.PathFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` to measure"},
			&cli.StringSliceFlag{Name: "through", Usage: "measure only this (default: direct, weir-dsr, weir-nat, haproxy, nginx, nft-dsr, nft-dnat, ipvs)"},
			&cli.StringSliceFlag{Name: "load", Usage: "measure only this (default: closed, paced)"},
			&cli.IntFlag{Name: "clients", Value: 64, Usage: "connections at a time"},
			&cli.IntFlag{Name: "rate", Value: 2000, Usage: "connections per second, paced"},
			&cli.IntFlag{Name: "repeats", Value: 5, Usage: "how often to measure each"},
			&cli.DurationFlag{Name: "window", Value: 2 * time.Second, Usage: "how long to measure each"},
			&cli.IntSliceFlag{Name: "cpus", Usage: "of clients and backends, and of the balancer (default: the first two allowed)"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the order (default: random)"},
			&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "show a table for a page"},
		},
		Subcommands:     []*cli.Command{clientCommand(), serverCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return errors.New("one file at most")
			}
			if c.NArg() == 1 {
				report, err := measure.ReadFile[Report](c.Args().First())
				if err != nil {
					return err
				}
				return show(c, report)
			}
			report, err := Measure(c.Context, options(c))
			if len(report.Cells) == 0 {
				return err
			}
			if path := c.Path("write"); path != "" {
				err = errors.Join(err, measure.WriteFile(path, report))
			}
			return errors.Join(err, show(c, report))
		},
	}
}

func options(c *cli.Context) Options {
	opt := Options{
		Setup: measure.Setup{
			Repeats: c.Int("repeats"), Window: c.Duration("window"), CPUs: c.IntSlice("cpus"), Seed: c.Uint64("seed"),
			Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)),
		},
		Weir: c.Path("weir"), Clients: c.Int("clients"), Rate: c.Int("rate"),
	}
	for _, s := range c.StringSlice("through") {
		opt.Subjects = append(opt.Subjects, Subject(s))
	}
	for _, l := range c.StringSlice("load") {
		opt.Loads = append(opt.Loads, Load(l))
	}
	return opt
}

func show(c *cli.Context, r Report) error {
	write := r.WriteText
	if c.Bool("markdown") {
		write = r.WriteMarkdown
	}
	if err := write(c.App.Writer); err != nil {
		return fmt.Errorf("show report: %w", err)
	}
	return nil
}
