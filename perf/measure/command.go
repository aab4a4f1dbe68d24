package measure

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"
)

// Report is what any measurement returns: complete, so that whoever reads it needs
// nothing else to judge it.
type Report interface {
	WriteText(io.Writer) error     // for a terminal
	WriteMarkdown(io.Writer) error // for a page
}

// SetupFlags returns the flags that SetupOf reads. cpus says whose the CPUs are.
func SetupFlags(repeats int, window time.Duration, cpus string) []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "repeats", Value: repeats, Usage: "how often to measure each"},
		&cli.DurationFlag{Name: "window", Value: window, Usage: "how long to measure each"},
		&cli.IntSliceFlag{Name: "cpus", Usage: cpus + " (default: the first two allowed)"},
		SeedFlag(),
	}
}

// SeedFlag is the flag for what is random.
func SeedFlag() cli.Flag {
	return &cli.Uint64Flag{Name: "seed", Usage: "of the order (default: random)"}
}

// ReportFlags returns the flags that Act reads.
func ReportFlags() []cli.Flag {
	return []cli.Flag{
		&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
		&cli.BoolFlag{Name: "markdown", Usage: "show tables for a page"},
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
// how much it has measured: of nothing there is no report.
func Act[R Report](c *cli.Context, run func() (r R, measured int, err error)) error {
	if c.NArg() > 1 {
		return errors.New("one file at most")
	}
	if c.NArg() == 1 {
		r, err := ReadFile[R](c.Args().First())
		if err != nil {
			return err
		}
		return show(c, r)
	}
	r, measured, err := run()
	if measured == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, WriteFile(path, r))
	}
	return errors.Join(err, show(c, r))
}

func show(c *cli.Context, r Report) error {
	write := r.WriteText
	if c.Bool("markdown") {
		write = r.WriteMarkdown
	}
	if err := write(c.App.Writer); err != nil {
		return fmt.Errorf("show report: %w", err)
	}
	return nil
}
