package perf

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/balancer"
	"weir/perf/checks"
	"weir/perf/connections"
	"weir/perf/flood"
	"weir/perf/ladder"
	"weir/perf/loops"
	"weir/perf/measure"
	"weir/perf/snapshots"
	"weir/perf/soak"
	"weir/perf/wire"
)

// Command returns the command perf, for a program's list of commands.
func Command() *cli.Command {
	measurements := measurements()
	return &cli.Command{
		Name:        "perf",
		Usage:       "measure",
		Subcommands: slices.Concat([]*cli.Command{allCommand(measurements)}, measurements, []*cli.Command{pageCommand()}),
	}
}

// measurements returns the commands that measure, and what they start.
func measurements() []*cli.Command {
	return []*cli.Command{
		ladder.Command(), wireCommand(), connections.Command(), loopsCommand(), modesCommand(), floodCommand(), checksCommand(), snapshots.Command(), soak.Command(),
		loops.Command(), balancer.Command(), soak.PlaneCommand(),
	}
}

func wireCommand() *cli.Command {
	return &cli.Command{
		Name:      "wire",
		Usage:     "measure what a packet costs from wire to wire: weir, the floor under it, and what there is instead (root, two idle cores)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Anything else that runs on the machine shows in the last column: how much of the time\n" +
			"worker or generator had to wait for their core. Subjects: " + strings.Join(wire.Names(wire.Subjects()), ", ") + ".",
		Flags: setupFlags(time.Second,
			&cli.StringSliceFlag{Name: "subject", Usage: "measure this, or all (default: " + strings.Join(wire.MainSubjects(), ", ") + ")"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this: core, flood, lossfree, latency, send (default: all but send)"},
			&cli.StringSliceFlag{Name: "flows", Usage: "how many; core is measured with each number, the others with the first (default: 1024, 65536, 1048576)"},
			&cli.Float64Flag{Name: "zipf", Usage: "exponent of how popular flows are (default: they take turns)"},
			&cli.IntFlag{Name: "frame-len", Usage: "bytes (default: the least)"},
			&cli.DurationFlag{Name: "step", Value: 200 * time.Millisecond, Usage: "how long to try a rate of lossfree, and to warm up"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[wire.Report](c)
			}
			opt := wire.Options{Setup: setup(c), Subjects: c.StringSlice("subject"), Step: c.Duration("step"), Zipf: c.Float64("zipf"), FrameLen: c.Int("frame-len")}
			if slices.Contains(opt.Subjects, "all") {
				opt.Subjects = wire.Names(wire.Subjects())
			}
			opt.Scenarios = scenarios(c)
			for _, text := range c.StringSlice("flows") {
				n, err := strconv.ParseUint(text, 10, 31)
				if err != nil || n == 0 {
					return fmt.Errorf("%q is no number of flows", text)
				}
				opt.Flows = append(opt.Flows, uint32(n))
			}
			report, err := wire.Run(c.Context, opt)
			return finish(c, report, len(report.Cells), err)
		},
	}
}

func scenarios(c *cli.Context) (all []wire.Scenario) {
	for _, s := range c.StringSlice("scenario") {
		all = append(all, wire.Scenario(s))
	}
	return all
}

func loopsCommand() *cli.Command {
	return &cli.Command{
		Name:        "loops",
		Usage:       "measure forwarding loops on our AF_XDP rings and on another library's (root, two idle cores, some minutes)",
		ArgsUsage:   "[REPORT.json]",
		Description: "This is perf wire with the loops alone. It also shows the files of earlier versions.",
		Flags: setupFlags(2*time.Second,
			&cli.IntFlag{Name: "ring", Value: 2048, Usage: "entries of the other library's rings"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this: flood, lossfree, send (default: all)"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[wire.Earlier](c)
			}
			opt := wire.Options{
				Setup: setup(c), Ring: c.Int("ring"), Flows: []uint32{1024},
				Subjects:  []string{"floor-afxdp", "asavie", "asavie-drained"},
				Scenarios: []wire.Scenario{wire.Flood, wire.LossFree, wire.Send},
			}
			if c.IsSet("scenario") {
				opt.Scenarios = scenarios(c)
			}
			report, err := wire.Run(c.Context, opt)
			return finish(c, report, len(report.Cells), err)
		},
	}
}

func modesCommand() *cli.Command {
	return &cli.Command{
		Name:        "modes",
		Usage:       "measure what a worker forwards in modes dsr and nat, and what handing over costs (root, two idle cores, some minutes)",
		ArgsUsage:   "[REPORT.json]",
		Description: "This is perf wire with some of weir's modes alone. It also shows the files of earlier versions.",
		Flags:       setupFlags(2 * time.Second),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[wire.Earlier](c)
			}
			report, err := wire.Run(c.Context, wire.Options{
				Setup: setup(c), Flows: []uint32{1024},
				Subjects:  []string{"weir-dsr", "weir-nat", "weir-keep", "weir-keep-2"},
				Scenarios: []wire.Scenario{wire.Flood, wire.LossFree},
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
		Flags: setupFlags(2*time.Second,
			&cli.StringSliceFlag{Name: "mode", Usage: "measure only this (default: dsr, nat, dsr-limits; there is also nat-keep)"},
			&cli.StringSliceFlag{Name: "rate", Usage: "measure only this (default: 0, 250000, 500000, 1000000, full)"},
			&cli.UintFlag{Name: "flows", Value: 10_000, Usage: "established before the flood"},
			&cli.IntFlag{Name: "flows-rate", Value: 20_000, Usage: "packets per second of these, in all"},
			&cli.IntFlag{Name: "entries", Value: 1 << 18, Usage: "of the flow table"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return showFile[flood.Report](c)
			}
			opt := flood.Options{
				Setup: setup(c), Flows: uint32(c.Uint("flows")), FlowsRate: c.Int("flows-rate"), Entries: c.Int("entries"),
			}
			for _, m := range c.StringSlice("mode") {
				opt.Modes = append(opt.Modes, balancer.Mode(m))
			}
			for _, text := range c.StringSlice("rate") {
				rate, err := flood.ParseRate(text)
				if err != nil {
					return err
				}
				opt.Rates = append(opt.Rates, rate)
			}
			report, err := flood.Run(c.Context, opt)
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
				return showFile[checks.Report](c)
			}
			report, err := checks.Run(c.Context, checks.Options{
				Setup: setup(c), Weir: c.Path("weir"), Backends: c.Int("backends"), Interval: c.Duration("interval"),
			})
			return finish(c, report, len(report.Cells), err)
		},
	}
}

// setupFlags returns the flags of a measurement on two CPUs and further ones.
func setupFlags(window time.Duration, more ...cli.Flag) []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.IntFlag{Name: "repeats", Value: 5, Usage: "how often to measure each"},
		&cli.DurationFlag{Name: "window", Value: window, Usage: "how long to measure each"},
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
