package connections

import (
	"slices"
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
		Flags: slices.Concat([]cli.Flag{
			&cli.PathFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` to measure"},
			&cli.StringSliceFlag{Name: "through", Usage: "measure only this (default: direct, weir-dsr, weir-nat, haproxy, nginx, nft-dsr, nft-dnat, ipvs)"},
			&cli.StringSliceFlag{Name: "load", Usage: "measure only this (default: closed, paced)"},
			&cli.IntFlag{Name: "clients", Value: 64, Usage: "connections at a time"},
			&cli.IntFlag{Name: "rate", Value: 2000, Usage: "connections per second, paced"},
		}, measure.SetupFlags(5, 2*time.Second, "of clients and backends, and of the balancer"), measure.ReportFlags()),
		Subcommands:     []*cli.Command{clientCommand(), serverCommand()},
		HideHelpCommand: true,
		Action: func(c *cli.Context) error {
			return measure.Act(c, func() (Report, int, error) {
				report, err := Measure(c.Context, options(c))
				return report, len(report.Cells), err
			})
		},
	}
}

func options(c *cli.Context) Options {
	opt := Options{
		Setup: measure.SetupOf(c),
		Weir:  c.Path("weir"), Clients: c.Int("clients"), Rate: c.Int("rate"),
	}
	for _, s := range c.StringSlice("through") {
		opt.Subjects = append(opt.Subjects, Subject(s))
	}
	for _, l := range c.StringSlice("load") {
		opt.Loads = append(opt.Loads, Load(l))
	}
	return opt
}
