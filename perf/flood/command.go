package flood

import (
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/balancer"
	"weir/perf/measure"
)

// Command returns the command flood.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "flood",
		Usage:     "measure what a flood of SYNs does to weir and to who was there before (root, two idle cores, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Rates are of the flood, in SYNs per second: a number, or full for as many as the\n" +
			"generator can send.",
		Flags: slices.Concat(measure.SetupFlags(5, 2*time.Second, "of the generator and of what is measured"), measure.ReportFlags(), []cli.Flag{
			&cli.StringSliceFlag{Name: "mode", Usage: "measure only this (default: dsr, nat, dsr-limits; there is also nat-keep)"},
			&cli.StringSliceFlag{Name: "rate", Usage: "measure only this (default: 0, 250000, 500000, 1000000, full)"},
			&cli.UintFlag{Name: "flows", Value: 10_000, Usage: "established before the flood"},
			&cli.IntFlag{Name: "flows-rate", Value: 20_000, Usage: "packets per second of these, in all"},
			&cli.IntFlag{Name: "entries", Value: 1 << 18, Usage: "of the flow table"},
		}),
		Action: func(c *cli.Context) error {
			opt := Options{
				Setup: measure.SetupOf(c), Flows: uint32(c.Uint("flows")), FlowsRate: c.Int("flows-rate"), Entries: c.Int("entries"),
			}
			for _, m := range c.StringSlice("mode") {
				opt.Modes = append(opt.Modes, balancer.Mode(m))
			}
			for _, text := range c.StringSlice("rate") {
				rate, err := ParseRate(text)
				if err != nil {
					return err
				}
				opt.Rates = append(opt.Rates, rate)
			}
			return measure.Act(c, func() (Report, int, error) {
				report, err := Run(c.Context, opt)
				return report, len(report.Cells), err
			})
		},
	}
}
