package measure

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// Report is what any measurement returns: complete, so that whoever reads it needs
// nothing else to judge it.
type Report interface {
	// Kind is the name of the command below perf that makes and shows such
	// reports. It is asked of the zero value too.
	Kind() string

	// Tables is all that is shown of it. The first begins with where and when it was
	// made.
	Tables() []Table
}

// Partial is a report that may lack something which was asked for.
type Partial interface {
	Reasons() []string // why, each with what is not there
}

// errNothing is that a run has measured nothing, and nothing has failed.
var errNothing = errors.New("nothing was measured")

// SetupFlags returns the flags that SetupOf reads. cpus says whose the CPUs are.
func SetupFlags(repeats int, window time.Duration, cpus string) []cli.Flag {
	return []cli.Flag{
		RepeatsFlag(repeats), WindowFlag(window, "how long to measure each"), CPUsFlag(cpus), SeedFlag("of the order"),
	}
}

// RepeatsFlag is the flag for how many rounds there are.
func RepeatsFlag(repeats int) cli.Flag {
	return &cli.IntFlag{Name: "repeats", Value: repeats, Usage: "how often to measure each", Action: func(_ *cli.Context, n int) error {
		if n < 1 {
			return fmt.Errorf("--repeats=%d: once is the least", n)
		}
		return nil
	}}
}

// WindowFlag is the flag for how long a measurement is.
func WindowFlag(window time.Duration, usage string) cli.Flag {
	return &cli.DurationFlag{Name: "window", Value: window, Usage: usage, Action: func(_ *cli.Context, d time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("--window=%v: nothing can be measured in that", d)
		}
		return nil
	}}
}

// CPUsFlag is the flag for the two CPUs. cpus says whose they are.
func CPUsFlag(cpus string) cli.Flag {
	return &cli.IntSliceFlag{Name: "cpus", Usage: cpus, DefaultText: "the first two allowed"}
}

// SeedFlag is the flag for what is random.
func SeedFlag(usage string) cli.Flag {
	return &cli.Uint64Flag{Name: "seed", Usage: usage, DefaultText: "random"}
}

const markdownFlag = "markdown" // the only one that shows what there is

// ReportFlags returns the flags that Act reads.
func ReportFlags() []cli.Flag {
	return []cli.Flag{
		&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
		&cli.BoolFlag{Name: markdownFlag, Usage: "show tables for a page"},
	}
}

// SetupOf returns what the command line says. Flags that a command does not have
// are at their defaults.
func SetupOf(c *cli.Context) Setup {
	return Setup{
		Repeats: c.Int("repeats"), Window: c.Duration("window"), CPUs: c.IntSlice("cpus"), Seed: c.Uint64("seed"), Log: Log(c),
	}
}

// Log returns where a command's progress goes.
func Log(c *cli.Context) *slog.Logger { return slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)) }

// Act is what every measurement's command does: without an argument it measures,
// writes the report to a file if asked to, and shows it, also if not all could be
// measured; with the file of an earlier run it only shows that. run also returns
// how much it has measured: of nothing there is no report, and that is an error.
func Act[R Report](c *cli.Context, run func() (r R, measured int, err error)) error {
	return ActReading(c, ReadFile[R], run)
}

// ActReading is Act for a command whose files are not read by ReadFile.
func ActReading[R Report](c *cli.Context, read func(path string) (R, error), run func() (r R, measured int, err error)) error {
	if c.NArg() > 0 {
		if c.NArg() > 1 && !strings.HasPrefix(c.Args().Get(1), "-") {
			return errors.New("one file at most")
		}
		if err := CheckShow(c); err != nil {
			return err
		}
		r, err := read(c.Args().First())
		if err != nil {
			return err
		}
		return show(c, r)
	}
	r, measured, err := run()
	if measured == 0 && err == nil {
		err = errNothing
		if p, ok := any(r).(Partial); ok && len(p.Reasons()) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(p.Reasons(), "; "))
		}
	}
	if measured == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, WriteFile(path, r))
	}
	return errors.Join(err, show(c, r))
}

// CheckShow looks whether a command line with files is one that shows them, and
// asks for nothing that only measuring can do.
func CheckShow(c *cli.Context) error {
	for _, arg := range c.Args().Tail() {
		if strings.HasPrefix(arg, "-") {
			return fmt.Errorf("%s is behind the file: options go before it", arg)
		}
	}
	for _, name := range c.LocalFlagNames() {
		if name != markdownFlag {
			return fmt.Errorf("--%s is for measuring, and %s is only shown", name, c.Args().First())
		}
	}
	return nil
}

func show(c *cli.Context, r Report) error {
	write := WriteText
	if c.Bool(markdownFlag) {
		write = WriteMarkdown
	}
	if err := write(c.App.Writer, r.Tables()); err != nil {
		return fmt.Errorf("show report: %w", err)
	}
	return nil
}
