// Linux refuses TCP MD5 (RFC 2385), which BGP peers may ask for, on a listener of
// Multipath TCP, which Go's are by default.

//go:debug multipathtcp=0

// Command weir is the load balancer appliance: it runs the data plane and its
// control plane, checks configurations, and asks a running weir what it does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/controlplane/api"
	"weir/controlplane/config"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends weir at once
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		report(err)
		os.Exit(1)
	}
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                 "weir",
		Usage:                "layer-4 load balancer on AF_XDP",
		Version:              version,
		EnableBashCompletion: true,
		BashComplete:         complete,
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {}, // main reports, and exits
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			return unknownCommand(c)
		},
		Commands: []*cli.Command{
			runCommand(), checkCommand(), planCommand(), reloadCommand(), showCommand(), doctorCommand(), drainCommand(), undrainCommand(),
			decapCommand(), completionCommand(), manCommand(),
		},
	}
	for _, c := range app.Commands {
		finish(c)
	}
	return app
}

// finish gives a command, and those below it, what all of them have.
func finish(c *cli.Command) {
	c.BashComplete, c.OnUsageError, c.HideHelpCommand = complete, usageError, true
	if c.Action == nil {
		c.Action = unknownCommand
	}
	for _, below := range c.Subcommands {
		finish(below)
	}
}

// usageError says in one line what is wrong with a command's flags.
func usageError(c *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; see `%s --help`", err, c.Command.HelpName)
}

// unknownCommand is what a command does that has others below it but none of
// the given name.
func unknownCommand(c *cli.Context) error {
	name := strings.TrimSpace(c.Command.HelpName + " " + c.Args().First())
	var names []string
	for _, below := range c.Command.VisibleCommands() {
		names = append(names, below.Name)
	}
	return fmt.Errorf("unknown command %q; did you mean one of %s?", name, strings.Join(names, ", "))
}

// report prints an error. Mistakes in a configuration stand on lines of their
// own, in the form that editors understand.
func report(err error) {
	var mistakes config.Errors
	var told api.Mistakes // by a running weir
	n := 0
	switch {
	case errors.As(err, &mistakes):
		n = len(mistakes)
	case errors.As(err, &told):
		n = len(told)
	default:
		fmt.Fprintln(os.Stderr, "weir:", err)
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if n > 1 {
		fmt.Fprintf(os.Stderr, "%d mistakes\n", n)
	}
}
