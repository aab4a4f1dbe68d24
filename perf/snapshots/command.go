package snapshots

import (
	"errors"
	"log/slog"

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
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "repeats", Value: 3, Usage: "how often to measure all"},
			&cli.IntFlag{Name: "services", Value: 1000, Usage: "how many there are"},
			&cli.IntFlag{Name: "backends", Value: 100, Usage: "of each service"},
			&cli.IntFlag{Name: "changes", Value: 200, Usage: "of each kind"},
			&cli.PathFlag{Name: "write", Usage: "write the report to this file, as JSON"},
			&cli.BoolFlag{Name: "markdown", Usage: "show tables for a page"},
		},
		Action: act,
	}
}

func act(c *cli.Context) error {
	if c.NArg() > 1 {
		return errors.New("one file at most")
	}
	if c.NArg() == 1 {
		report, err := measure.ReadFile[Report](c.Args().First())
		if err != nil {
			return err
		}
		return show(c, report)
	}
	report, err := Run(c.Context, Options{
		Repeats: c.Int("repeats"), Services: c.Int("services"), Backends: c.Int("backends"),
		Changes: c.Int("changes"), Adopts: c.Int("changes"),
		Log: slog.New(slog.NewTextHandler(c.App.ErrWriter, nil)),
	})
	if len(report.Cells) == 0 {
		return err
	}
	if path := c.Path("write"); path != "" {
		err = errors.Join(err, measure.WriteFile(path, report))
	}
	return errors.Join(err, show(c, report))
}

func show(c *cli.Context, r Report) error {
	if c.Bool("markdown") {
		return r.WriteMarkdown(c.App.Writer)
	}
	return r.WriteText(c.App.Writer)
}
