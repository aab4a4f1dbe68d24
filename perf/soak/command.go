package soak

import (
	"errors"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/balancer"
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
		Flags: append([]cli.Flag{
			&cli.DurationFlag{Name: "for", Value: 30 * time.Minute, Usage: "how long"},
			&cli.DurationFlag{Name: "every", Value: time.Second, Usage: "how often to apply a snapshot and to look"},
			&cli.StringFlag{Name: "mode", Value: string(balancer.DSR), Usage: "dsr or nat"},
			&cli.UintFlag{Name: "flows", Value: 1 << 16, Usage: "that stay"},
			&cli.Float64Flag{Name: "new", Value: 0.05, Usage: "share of packets that begin another flow"},
			&cli.IntFlag{Name: "rate", Usage: "packets per second", DefaultText: "as many as possible"},
			&cli.IntFlag{Name: "entries", Value: 1 << 20, Usage: "of the flow table"},
			measure.CPUsFlag("of the generator and of the worker"), measure.SeedFlag("of the traffic"),
		}, measure.ReportFlags()...),
		Action: act,
	}
}

func act(c *cli.Context) error {
	failed := false
	err := measure.Act(c, func() (Report, int, error) {
		report, err := Run(c.Context, Options{
			Setup: measure.SetupOf(c),
			For:   c.Duration("for"), Every: c.Duration("every"), Mode: balancer.Mode(c.String("mode")), Flows: uint32(c.Uint("flows")),
			New: c.Float64("new"), Rate: c.Int("rate"), Entries: c.Int("entries"),
		})
		failed = err == nil && !report.OK()
		return report, len(report.Samples), err
	})
	if failed {
		err = errors.Join(err, ErrFailed)
	}
	return err
}
