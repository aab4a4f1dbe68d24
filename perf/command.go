package perf

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/balancer"
	"weir/perf/ladder"
	"weir/perf/measure"
)

// Command returns the command perf, for a program's list of commands.
func Command() *cli.Command {
	return &cli.Command{
		Name:        "perf",
		Usage:       "measure",
		Subcommands: []*cli.Command{loopsCommand(), modesCommand(), floodCommand(), checksCommand(), ladder.Command(), loopCommand(), balancerCommand()},
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
		Flags: setupFlags(
			&cli.IntFlag{Name: "ring", Value: 2048, Usage: "entries of the loops' rings"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this (default: all)"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[Report](c)
			}
			opt := Options{Setup: setup(c), Ring: c.Int("ring")}
			for _, s := range c.StringSlice("scenario") {
				opt.Scenarios = append(opt.Scenarios, Scenario(s))
			}
			report, err := Loops(c.Context, opt)
			return finish(c, report, len(report.Cells), err)
		},
	}
}

func modesCommand() *cli.Command {
	return &cli.Command{
		Name:      "modes",
		Usage:     "measure what a worker forwards in modes dsr and nat, and what handing over costs (root, two idle cores, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "This is perf loops with weir's whole data plane in place of the loops: known flows,\n" +
			"towards the backend.",
		Flags: setupFlags(),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[Report](c)
			}
			report, err := Loops(c.Context, Options{
				Setup: setup(c), Kinds: Balancers(), Scenarios: []Scenario{Overload, LossFree},
			})
			return finish(c, report, len(report.Cells), err)
		},
	}
}

func floodCommand() *cli.Command {
	return &cli.Command{
		Name:      "flood",
		Usage:     "measure what a flood of SYNs does to weir and to who was there before (root, two idle cores, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Rates are of the flood, in SYNs per second: a number, or full for as many as the\n" +
			"generator can send.",
		Flags: setupFlags(
			&cli.StringSliceFlag{Name: "mode", Usage: "measure only this (default: dsr, nat, dsr-limits; there is also nat-keep)"},
			&cli.StringSliceFlag{Name: "rate", Usage: "measure only this (default: 0, 250000, 500000, 1000000, full)"},
			&cli.UintFlag{Name: "flows", Value: 10_000, Usage: "established before the flood"},
			&cli.IntFlag{Name: "flows-rate", Value: 20_000, Usage: "packets per second of these, in all"},
			&cli.IntFlag{Name: "entries", Value: 1 << 18, Usage: "of the flow table"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[FloodReport](c)
			}
			opt := FloodOptions{
				Setup: setup(c), Flows: uint32(c.Uint("flows")), FlowsRate: c.Int("flows-rate"), Entries: c.Int("entries"),
			}
			for _, m := range c.StringSlice("mode") {
				opt.Modes = append(opt.Modes, balancer.Mode(m))
			}
			for _, text := range c.StringSlice("rate") {
				rate, err := parseRate(text)
				if err != nil {
					return err
				}
				opt.Rates = append(opt.Rates, rate)
			}
			report, err := Flood(c.Context, opt)
			return finish(c, report, len(report.Cells), err)
		},
	}
}

func checksCommand() *cli.Command {
	return &cli.Command{
		Name:      "checks",
		Usage:     "measure what thousands of health checks cost weir (root, two cores, five minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"It starts the built weir in front of that many backends, in mode ipip, and has none\n" +
			"of them checked, a fifth, and all, by TCP and by HTTP.",
		Flags: append([]cli.Flag{
			&cli.PathFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` to measure"},
			&cli.IntFlag{Name: "backends", Value: 5000, Usage: "how many there are"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "of each check"},
			&cli.IntFlag{Name: "repeats", Value: 3, Usage: "how often to measure each"},
			&cli.DurationFlag{Name: "window", Value: 10 * time.Second, Usage: "how long to measure each"},
		}, commonFlags()...),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[ChecksReport](c)
			}
			report, err := Checks(c.Context, ChecksOptions{
				Setup: setup(c), Weir: c.Path("weir"), Backends: c.Int("backends"), Interval: c.Duration("interval"),
			})
			return finish(c, report, len(report.Cells), err)
		},
	}
}

// setupFlags returns the flags of a measurement on two CPUs and further ones.
func setupFlags(more ...cli.Flag) []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.IntFlag{Name: "repeats", Value: 5, Usage: "how often to measure each"},
		&cli.DurationFlag{Name: "window", Value: 2 * time.Second, Usage: "how long to measure each"},
		&cli.IntSliceFlag{Name: "cpus", Usage: "of the generator and of what is measured (default: the first two allowed)"},
	}, commonFlags(), more)
}

// commonFlags returns the flags of any measurement.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.Uint64Flag{Name: "seed", Usage: "of the order (default: random)"},
		&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
		&cli.BoolFlag{Name: "markdown", Usage: "show a table for a page"},
	}
}

func setup(c *cli.Context) measure.Setup {
	return measure.Setup{
		Repeats: c.Int("repeats"),
		Window:  c.Duration("window"),
		CPUs:    c.IntSlice("cpus"),
		Seed:    c.Uint64("seed"),
		Log:     slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)),
	}
}

// report is what any measurement returns.
type report interface {
	WriteText(io.Writer) error
	WriteMarkdown(io.Writer) error
}

// showFile shows the report in the file that is the argument.
func showFile[R report](c *cli.Context) error {
	if c.NArg() > 1 {
		return errors.New("one file at most")
	}
	r, err := measure.ReadFile[R](c.Args().First())
	if err != nil {
		return err
	}
	return show(c, r)
}

// finish writes and shows what was measured before err.
func finish(c *cli.Context, r report, cells int, err error) error {
	if cells == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, measure.WriteFile(path, r))
	}
	return errors.Join(err, show(c, r))
}

func show(c *cli.Context, r report) error {
	write := r.WriteText
	if c.Bool("markdown") {
		write = r.WriteMarkdown
	}
	if err := write(c.App.Writer); err != nil {
		return fmt.Errorf("show report: %w", err)
	}
	return nil
}
