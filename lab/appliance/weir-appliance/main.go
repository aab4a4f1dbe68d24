// Command weir-appliance is what the appliance image has beside weir: it takes the
// configuration from a seed, and updates the box.
//
// The problem it solves: everything that makes a Debian system an appliance, and that
// would else be shell scripts nobody can test.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"weir/lab/appliance/slot"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "weir-appliance:", err)
		os.Exit(1)
	}
}

func newApp() *cli.App {
	return &cli.App{
		Name:            "weir-appliance",
		Usage:           "the box that weir runs on: its seed and its updates",
		Version:         version,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {}, // main reports, and exits
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("unknown command %q; see weir-appliance --help", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			{
				Name: "status", Usage: "say what is in both slots, and which boots",
				Action: func(c *cli.Context) error { return status(c.App.Writer) },
			},
			{
				Name: "update", Usage: "write an update to the other slot, to be tried at the next boot",
				ArgsUsage: "FILE|URL|-",
				Description: "Takes a .update file, a disk that has one, http:// or https://, or - for\n" +
					"standard input. Nothing of the running system changes. At the next boot the\n" +
					"update is tried: if weir is up within --trial, it boots from then on, and if\n" +
					"not, or if the box hangs or is reset, what runs now does again.",
				Flags: []cli.Flag{
					&cli.DurationFlag{Name: "trial", Value: 5 * time.Minute, Usage: "`TIME` that the update gets to come up"},
					&cli.StringFlag{Name: "sha256", Usage: "`SUM` of the .update file, as SHA256SUMS has it; http:// needs it"},
					&cli.BoolFlag{Name: "reboot", Usage: "and reboot at once"},
				},
				Action: func(c *cli.Context) error {
					if c.NArg() != 1 {
						return fmt.Errorf("name one update: weir-appliance update FILE|URL|-")
					}
					if err := update(c.Context, c.App.Writer, c.Args().First(), c.String("sha256"), c.Duration("trial")); err != nil {
						return err
					}
					if c.Bool("reboot") {
						return systemctl(c.Context, "reboot")
					}
					return nil
				},
			},
			{
				Name: "commit", Usage: "have the slot that runs boot from now on, and do not wait for weir",
				Action: func(c *cli.Context) error { return commit(c.App.Writer) },
			},
			{
				Name: "back", Usage: "try the other slot at the next boot, as it is",
				Action: func(c *cli.Context) error { return back(c.App.Writer) },
			},
			{
				Name: "boot", Hidden: true, Usage: "apply the seed; a unit does this at boot",
				Action: func(*cli.Context) error { return boot() },
			},
			{
				Name: "configured", Hidden: true, Usage: "succeed if weir.yaml says anything",
				Action: func(*cli.Context) error { return configured() },
			},
			{
				Name: "trial", Hidden: true, Usage: "wait for weir, and then commit; a unit does this after an update",
				Action: func(c *cli.Context) error { return trial(c.Context) },
			},
			{
				Name: "abandon", Hidden: true, Usage: "reboot if an update is being tried; emergency mode does this",
				Action: func(c *cli.Context) error { return abandon(c.Context) },
			},
			{
				Name: "seal", Hidden: true, Usage: "make a squashfs an update; make appliance does this",
				ArgsUsage: "FILE VERSION ARCH",
				Action: func(c *cli.Context) error {
					return slot.SealFile(c.Args().Get(0), c.Args().Get(1), c.Args().Get(2))
				},
			},
		},
	}
}
