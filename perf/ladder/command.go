package ladder

import (
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// Command returns the command ladder.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "ladder",
		Usage:     "measure what weir itself does with a packet, step by step and without I/O (one idle core, some minutes)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"It needs root for the XDP program only, and leaves that out without.",
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "repeats", Value: 5, Usage: "how often to measure each"},
			&cli.DurationFlag{Name: "window", Value: 80 * time.Millisecond, Usage: "CPU time to measure each, with the restoring of packets"},
			&cli.IntFlag{Name: "cpu", Value: -1, Usage: "to measure on (default: the last allowed)"},
			measure.SeedFlag(),
			&cli.StringSliceFlag{Name: "rung", Usage: "measure only this, such as hit (default: all)"},
			&cli.StringSliceFlag{Name: "mode", Usage: "measure only this, such as nat44 (default: all)"},
			&cli.StringSliceFlag{Name: "protocol", Usage: "measure only this: udp or tcp (default: both)"},
			&cli.IntSliceFlag{Name: "flows", Usage: "powers of two (default: 1, 1024, 65536, 1048576)"},
			&cli.IntSliceFlag{Name: "services", Usage: "(default: 1, 100, 10000)"},
			&cli.IntSliceFlag{Name: "backends", Usage: "of a service (default: 3, 100, 1000)"},
			&cli.IntFlag{Name: "entries", Value: 1 << 20, Usage: "of the flow table, at least; there are four for each flow"},
			&cli.IntFlag{Name: "buffers", Value: 4096, Usage: "for packets, of 2 KiB, taken in turn"},
			&cli.BoolFlag{Name: "no-memory", Usage: "leave out what memory is taken"},
		}, measure.ReportFlags()...),
		Action: act,
	}
}

func act(c *cli.Context) error {
	return measure.Act(c, func() (Report, int, error) {
		report, err := Run(c.Context, options(c))
		return report, len(report.Samples) + len(report.Memory), err
	})
}

func options(c *cli.Context) Options {
	opt := Options{
		Repeats:  c.Int("repeats"),
		Window:   c.Duration("window"),
		CPU:      c.Int("cpu"),
		Seed:     c.Uint64("seed"),
		Services: c.IntSlice("services"),
		Backends: c.IntSlice("backends"),
		Entries:  c.Int("entries"),
		Buffers:  c.Int("buffers"),
		NoMemory: c.Bool("no-memory"),
		Log:      measure.Log(c),
	}
	for _, r := range c.StringSlice("rung") {
		opt.Rungs = append(opt.Rungs, Rung(r))
	}
	for _, m := range c.StringSlice("mode") {
		opt.Modes = append(opt.Modes, Mode(m))
	}
	for _, p := range c.StringSlice("protocol") {
		opt.Protocols = append(opt.Protocols, Protocol(p))
	}
	for _, n := range c.IntSlice("flows") {
		opt.Flows = append(opt.Flows, uint32(n))
	}
	return opt
}
