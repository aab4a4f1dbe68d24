package ladder

import (
	"fmt"
	"strconv"
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
			measure.RepeatsFlag(5), measure.WindowFlag(80*time.Millisecond, "CPU time to measure each"), measure.SeedFlag("of the order"),
			&cli.IntFlag{Name: "cpu", Value: -1, Usage: "to measure on", DefaultText: "the last allowed"},
			&cli.StringSliceFlag{Name: "rung", Usage: "measure only this, such as hit (default: all)"},
			&cli.StringSliceFlag{Name: "mode", Usage: "measure only this, such as nat44 (default: all)"},
			&cli.StringSliceFlag{Name: "protocol", Usage: "measure only this: udp or tcp (default: both)"},
			&cli.StringSliceFlag{Name: "flows", Usage: "how many; powers of two (default: 1, 1024, 65536, 1048576)"},
			&cli.IntSliceFlag{Name: "services", Usage: "how many (default: 1, 100, 10000)"},
			&cli.IntSliceFlag{Name: "backends", Usage: "how many each service has (default: 3, 100, 1000)"},
			&cli.IntFlag{Name: "entries", Value: 1 << 20, Usage: "of the flow table, at least; there are four for each flow"},
			&cli.IntFlag{Name: "buffers", Value: 4096, Usage: "for packets, of 2 KiB, taken in turn"},
			&cli.BoolFlag{Name: "no-memory", Usage: "leave out what memory is taken"},
		}, measure.ReportFlags()...),
		Action: act,
	}
}

func act(c *cli.Context) error {
	return measure.Act(c, func() (Report, int, error) {
		opt, err := optionsOf(c)
		if err != nil {
			return Report{}, 0, err
		}
		report, err := Run(c.Context, opt)
		return report, len(report.Samples) + len(report.Memory), err
	})
}

func optionsOf(c *cli.Context) (opt Options, err error) {
	opt = Options{
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
	for _, text := range c.StringSlice("flows") {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return opt, fmt.Errorf("%q is no number of flows", text)
		}
		opt.Flows = append(opt.Flows, uint32(n))
	}
	return opt, nil
}
