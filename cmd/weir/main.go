// Command weir is the load balancer appliance: it runs the data plane and its
// control plane, checks configurations, and asks a running weir what it does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"weir/controlplane/config"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newApp().RunContext(ctx, os.Args); err != nil {
		report(err)
		os.Exit(1)
	}
}

func newApp() *cli.App {
	return &cli.App{
		Name:                 "weir",
		Usage:                "layer-4 load balancer on AF_XDP",
		Version:              version,
		EnableBashCompletion: true,
		Suggest:              true,
		Commands: []*cli.Command{
			runCommand(), checkCommand(), showCommand(), reloadCommand(), decapCommand(), completionCommand(),
		},
	}
}

// report prints an error. Mistakes in a configuration stand on lines of their
// own, in the form that editors understand.
func report(err error) {
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		fmt.Fprintln(os.Stderr, mistakes)
		if len(mistakes) > 1 {
			fmt.Fprintf(os.Stderr, "%d mistakes\n", len(mistakes))
		}
		return
	}
	fmt.Fprintln(os.Stderr, "weir:", err)
}
