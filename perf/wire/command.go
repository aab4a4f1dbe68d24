package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// Command returns the command wire.
func Command() *cli.Command {
	return &cli.Command{
		Name:      "wire",
		Usage:     "measure what a packet costs from wire to wire: weir, the floor under it, and what there is instead (root, two idle cores)",
		ArgsUsage: "[REPORT.json]",
		Description: "Without an argument it measures. With the file of an earlier run it only shows that.\n" +
			"Anything else that runs on the machine shows in the last column: how much of the time\n" +
			"worker or generator had to wait for their core. Subjects: " + strings.Join(Names(Subjects()), ", ") + ".",
		Flags: slices.Concat(measure.SetupFlags(5, time.Second, "of the generator and of what is measured"), measure.ReportFlags(), []cli.Flag{
			&cli.StringSliceFlag{Name: "subject", Usage: "name of one, or all; may be repeated (default: " + strings.Join(MainSubjects(), ", ") + ")"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this, may be repeated: core, flood, lossfree, latency, send (default: all but send)"},
			&cli.StringSliceFlag{Name: "flows", Usage: "how many, may be repeated; core is measured with each number, the others with the first (default: 1024, 65536, 1048576)"},
			&cli.BoolFlag{Name: "tcp", Usage: "send TCP segments with ACK; weir-nat, weir-keep and ipvs see a SYN of each flow before (default: UDP)"},
			&cli.Float64Flag{Name: "zipf", Usage: "exponent of how popular flows are (default: they take turns)"},
			&cli.IntFlag{Name: "frame-len", Usage: "bytes (default: the least)"},
			&cli.BoolFlag{Name: "verify", Usage: "check lengths and checksums of each packet that arrives by the wire, which costs some tens of nanoseconds"},
			&cli.DurationFlag{Name: "step", Value: 200 * time.Millisecond, Usage: "how long to try a rate of lossfree, and to warm up"},
		}),
		Action: func(c *cli.Context) error {
			return measure.Act(c, func() (Report, int, error) {
				opt, err := optionsOf(c)
				if err != nil {
					return Report{}, 0, err
				}
				report, err := Run(c.Context, opt)
				return report, len(report.Cells), err
			})
		},
	}
}

func optionsOf(c *cli.Context) (opt Options, err error) {
	opt = Options{Setup: measure.SetupOf(c), Subjects: c.StringSlice("subject"), Step: c.Duration("step"), TCP: c.Bool("tcp"), Zipf: c.Float64("zipf"), FrameLen: c.Int("frame-len"), Verify: c.Bool("verify")}
	if slices.Contains(opt.Subjects, "all") {
		opt.Subjects = Names(Subjects())
	}
	opt.Scenarios = scenarios(c)
	for _, text := range c.StringSlice("flows") {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || n == 0 {
			return opt, fmt.Errorf("%q is no number of flows", text)
		}
		opt.Flows = append(opt.Flows, uint32(n))
	}
	return opt, nil
}

func scenarios(c *cli.Context) (all []Scenario) {
	for _, s := range c.StringSlice("scenario") {
		all = append(all, Scenario(s))
	}
	return all
}

// LoopsCommand returns the command loops: some subjects of wire.
func LoopsCommand() *cli.Command {
	return &cli.Command{
		Name:        "loops",
		Usage:       "measure forwarding loops on our AF_XDP rings and on another library's (root, two idle cores, some minutes)",
		ArgsUsage:   "[REPORT.json]",
		Description: "This is perf wire with the loops alone. It also shows the files of earlier versions.",
		Flags: slices.Concat(measure.SetupFlags(5, 2*time.Second, "of the generator and of what is measured"), measure.ReportFlags(), []cli.Flag{
			&cli.IntFlag{Name: "ring", Value: 2048, Usage: "entries of the other library's rings"},
			&cli.StringSliceFlag{Name: "scenario", Usage: "measure only this, may be repeated: flood, lossfree, send (default: all)"},
		}),
		Action: func(c *cli.Context) error {
			opt := Options{
				Setup: measure.SetupOf(c), Ring: c.Int("ring"), Flows: []uint32{1024},
				Subjects:  []string{"floor-afxdp", "asavie", "asavie-drained", "testpmd"},
				Scenarios: []Scenario{Flood, LossFree, Send},
			}
			if c.IsSet("scenario") {
				opt.Scenarios = scenarios(c)
			}
			return measure.ActReading(c, ReadEither, func() (measure.Report, int, error) {
				report, err := Run(c.Context, opt)
				return report, len(report.Cells), err
			})
		},
	}
}

// ModesCommand returns the command modes: some subjects of wire.
func ModesCommand() *cli.Command {
	return &cli.Command{
		Name:        "modes",
		Usage:       "measure what a worker forwards in modes dsr and nat, and what handing over costs (root, two idle cores, some minutes)",
		ArgsUsage:   "[REPORT.json]",
		Description: "This is perf wire with some of weir's modes alone. It also shows the files of earlier versions.",
		Flags:       slices.Concat(measure.SetupFlags(5, 2*time.Second, "of the generator and of what is measured"), measure.ReportFlags()),
		Action: func(c *cli.Context) error {
			return measure.ActReading(c, ReadEither, func() (measure.Report, int, error) {
				report, err := Run(c.Context, Options{
					Setup: measure.SetupOf(c), Flows: []uint32{1024},
					Subjects:  []string{"weir-dsr", "weir-nat", "weir-keep", "weir-keep-2"},
					Scenarios: []Scenario{Flood, LossFree},
				})
				return report, len(report.Cells), err
			})
		},
	}
}
