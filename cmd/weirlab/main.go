// Command weirlab shows and measures weir in networks that it builds out of
// network namespaces.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"weir/lab/clab"
	"weir/lab/demo"
	"weir/lab/netlab"
	"weir/perf"
)

// version is set by the linker.
var version = "development"

// interrupted is the exit status after a signal, as shells have it for SIGINT.
const interrupted = 130

func main() {
	// SIGHUP as well: when the terminal goes away, the lab has to go too. Signals
	// that come while it does are ignored. A reader that goes away is an error of
	// a write, and no signal: that one would also come for each connection of the
	// lab's servers whose client has given up.
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	app := &cli.App{
		Name:                 "weirlab",
		Usage:                "show and measure weir in network namespaces",
		Version:              version,
		EnableBashCompletion: true,
		Suggest:              true,
		Commands:             []*cli.Command{demoCommand(), topologyCommand(), perf.Command(), sweepCommand(), topologyPart()},
	}
	err := app.RunContext(ctx, os.Args)
	if err != nil && !errors.Is(err, demo.ErrFailed) { // the reasons of that have been printed
		fmt.Fprintln(os.Stderr, "weirlab:", err)
	}
	os.Exit(status(err))
}

// status returns the exit status after an error, or none.
func status(err error) int {
	var check *clab.CheckFailed
	switch {
	case err == nil:
		return 0
	case errors.As(err, &check):
		return check.Status
	case errors.Is(err, demo.ErrInterrupted), errors.Is(err, context.Canceled):
		return interrupted
	}
	return 1
}

func demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "watch two weirs behind a BGP router, and one of them die (root)",
		Description: "Builds a network of namespaces with a client, a router (FRR), two weirs, and web\n" +
			"servers behind them; makes requests over IPv4 and IPv6, stops a server and brings\n" +
			"it back, kills a weir, and says in the end whether all went as it should. The exit\n" +
			"status is 0 only then, and 130 after Ctrl-C. Nothing is left behind.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` to show"},
			&cli.DurationFlag{Name: "duration", Value: 30 * time.Second, Usage: fmt.Sprintf("`TIME` with traffic, %v to %v", demo.MinDuration, demo.MaxDuration)},
			&cli.BoolFlag{Name: "plain", Usage: "print lines one after the other, on a terminal too"},
			&cli.BoolFlag{Name: "keep", Usage: "leave the lab up in the end until Ctrl-C, and say how to look around"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("unexpected argument %q", c.Args().First())
			}
			d, err := demo.New(demo.Options{
				Weir: c.String("weir"), Duration: c.Duration("duration"), Keep: c.Bool("keep"),
				Out: os.Stdout, Plain: c.Bool("plain"),
			})
			if err != nil {
				return err
			}
			return d.Run(c.Context)
		},
	}
}

func sweepCommand() *cli.Command {
	return &cli.Command{
		Name:  "sweep",
		Usage: "remove what labs that were killed have left (root)",
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("unexpected argument %q", c.Args().First())
			}
			removed, err := netlab.Sweep()
			directories, e := clab.Sweep()
			removed, err = append(removed, directories...), errors.Join(err, e)
			for _, name := range removed {
				fmt.Fprintln(c.App.Writer, "removed", name)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(c.App.Writer, "nothing was left")
			}
			return err
		},
	}
}
