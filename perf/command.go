package perf

import (
	"slices"

	"github.com/urfave/cli/v2"

	"weir/perf/balancer"
	"weir/perf/checks"
	"weir/perf/connections"
	"weir/perf/flood"
	"weir/perf/ladder"
	"weir/perf/loops"
	"weir/perf/snapshots"
	"weir/perf/soak"
	"weir/perf/wire"
)

// Command returns the command perf, for a program's list of commands.
func Command() *cli.Command {
	measurements := measurements()
	return &cli.Command{
		Name:        "perf",
		Usage:       "measure weir, and what could be in its place",
		Subcommands: slices.Concat([]*cli.Command{allCommand(measurements)}, measurements, []*cli.Command{pageCommand()}),
	}
}

// measurements returns the commands that measure, and what they start.
func measurements() []*cli.Command {
	return []*cli.Command{
		ladder.Command(), wire.Command(), connections.Command(), wire.LoopsCommand(), wire.ModesCommand(), flood.Command(), checks.Command(), snapshots.Command(), soak.Command(),
		loops.Command(), balancer.Command(), soak.PlaneCommand(), snapshots.PartCommand(),
	}
}
