package soak

import (
	"errors"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// ErrFailed is returned by the command when something grew or is not accounted
// for. What it is has been shown.
var ErrFailed = errors.New("soak: something grew, or is not accounted for")

// Command returns the command soak.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "soak",
		Usage:     "run the data plane at full load for long, and see whether anything grows or gets lost (root, two cores)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it runs. With the file of an earlier run it only shows that. The\n" +
			"exit status is 0 only if nothing grew and every frame is accounted for. Memory takes some\n" +
			"minutes to be what it will be, so a run of less than five says little of it.",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "for", Value: 30 * time.Minute, Usage: "how long"},
			&cli.DurationFlag{Name: "every", Value: time.Second, Usage: "how often to apply a snapshot and to look"},
			&cli.StringFlag{Name: "mode", Value: string(DSR), Usage: "dsr or nat"},
			&cli.UintFlag{Name: "flows", Value: 1 << 16, Usage: "that stay"},
			&cli.Float64Flag{Name: "new", Value: 0.05, Usage: "share of packets that begin another flow"},
			&cli.IntFlag{Name: "rate", Usage: "packets per second (default: as many as possible)"},
			&cli.IntFlag{Name: "entries", Value: 1 << 20, Usage: "of the flow table"},
			&cli.IntSliceFlag{Name: "cpus", Usage: "of the generator and of the worker (default: the first two allowed)"},
			&cli.Uint64Flag{Name: "seed", Usage: "of the traffic (default: random)"},
			&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "show a table for a page"},
		},
		Action: act,
	}
}

func act(c *cli.Context) error {
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
	report, err := Run(c.Context, Options{
		Setup: measure.Setup{CPUs: c.IntSlice("cpus"), Seed: c.Uint64("seed"), Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, nil))},
		For:   c.Duration("for"), Every: c.Duration("every"), Mode: Mode(c.String("mode")), Flows: uint32(c.Uint("flows")),
		New: c.Float64("new"), Rate: c.Int("rate"), Entries: c.Int("entries"),
	})
	if len(report.Samples) == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, measure.WriteFile(path, report))
	}
	return errors.Join(err, show(c, report))
}

func show(c *cli.Context, r Report) error {
	write := r.WriteText
	if c.Bool("markdown") {
		write = r.WriteMarkdown
	}
	if err := write(c.App.Writer); err != nil {
		return err
	}
	if !r.OK() {
		return ErrFailed
	}
	return nil
}
