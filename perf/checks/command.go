package checks

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// Command returns the command checks.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "checks",
		Usage:     "measure what thousands of health checks cost weir (root, two cores, five minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"It starts the built weir in front of that many backends, in mode ipip, and has none\n" +
			"of them checked, a fifth, and all, by TCP and by HTTP.",
		Flags: slices.Concat([]cli.Flag{
			&cli.PathFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` to measure"},
			&cli.IntFlag{Name: "backends", Value: 5000, Usage: "how many there are"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "of each check"},
			measure.RepeatsFlag(3), measure.WindowFlag(10*time.Second, "how long to measure each"), measure.SeedFlag("of the order"),
		}, measure.ReportFlags()),
		Action: func(c *cli.Context) error {
			return measure.Act(c, func() (Report, int, error) {
				report, err := Run(c.Context, Options{
					Setup: measure.SetupOf(c), Weir: c.Path("weir"), Backends: c.Int("backends"), Interval: c.Duration("interval"),
				})
				return report, len(report.Cells), err
			})
		},
	}
}
