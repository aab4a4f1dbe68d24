package snapshots

import (
	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// Command returns the command snapshots.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "snapshots",
		Usage:     "measure how long it takes until a change is in a snapshot, and what workers notice of it (two idle cores, a minute)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"It needs no root and no network: everybody but the Reconciler is played.",
		Flags: append([]cli.Flag{
			measure.RepeatsFlag(3), measure.SeedFlag("of the order"),
			&cli.IntFlag{Name: "services", Value: 1000, Usage: "how many there are"},
			&cli.IntFlag{Name: "backends", Value: 100, Usage: "of each service"},
			&cli.IntFlag{Name: "changes", Value: 200, Usage: "of each kind"},
		}, measure.ReportFlags()...),
		Action: act,
	}
}

func act(c *cli.Context) error {
	return measure.Act(c, func() (Report, int, error) {
		report, err := Run(c.Context, Options{
			Setup: measure.SetupOf(c), Services: c.Int("services"), Backends: c.Int("backends"),
			Changes: c.Int("changes"), Adopts: c.Int("changes"),
		})
		return report, len(report.Cells), err
	})
}
