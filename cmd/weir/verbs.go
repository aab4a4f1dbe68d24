package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/controlplane/api"
	"weir/controlplane/show"
)

func drainCommand() *cli.Command {
	return &cli.Command{
		Name:      "drain",
		Usage:     "have a running weir give a backend no new flows",
		ArgsUsage: "BACKEND",
		Description: "The flows that the backend has stay. With --over its weight goes down in ten\n" +
			"steps, else new flows go elsewhere at once. It stays drained until weir undrain,\n" +
			"also across a reload, a failed health check, and a restart of weir (which takes\n" +
			"a drain under way for done).",
		Flags: []cli.Flag{
			socketFlag(), serviceFlag(), outputFlag(),
			&cli.DurationFlag{Name: "over", Usage: "take `TIME` for it, as 60s or 5m, at most 24h"},
		},
		Action: func(c *cli.Context) error { return order(c, "drain", []string{"service", "over"}) },
	}
}

func undrainCommand() *cli.Command {
	return &cli.Command{
		Name:      "undrain",
		Usage:     "take a drain back",
		ArgsUsage: "BACKEND",
		Description: "The backend gets new flows again: at once, or in ten steps if the service has a\n" +
			"slow_start. A `state: draining` in the configuration is another matter.",
		Flags:  []cli.Flag{socketFlag(), serviceFlag(), outputFlag()},
		Action: func(c *cli.Context) error { return order(c, "undrain", []string{"service"}) },
	}
}

func serviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "service", Usage: "only in the service `NAME`; else in all that have the backend now"}
}

// order sends an order about a backend and says what has become of it. Flags
// may stand behind the backend, too.
func order(c *cli.Context, verb string, flags []string) error {
	args, err := interspersed(c)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return fmt.Errorf("name one backend by its address: weir %s BACKEND", verb)
	}
	backend, err := netip.ParseAddr(args[0])
	if err != nil {
		return fmt.Errorf("%q is not the address of a backend, as 10.0.0.11 or 2001:db8::11; weir show backends lists them", args[0])
	}
	if over := c.Duration("over"); over < 0 {
		return fmt.Errorf("--over: %s is less than nothing; want a time as 60s or 5m", over)
	}
	asJSON, err := wantsJSON(c)
	if err != nil {
		return err
	}
	q := url.Values{"backend": {backend.String()}}
	for _, name := range flags {
		if c.IsSet(name) {
			q.Set(name, c.String(name))
		}
	}
	var o api.Ordered
	if err := api.NewClient(c.String("socket")).Do(c.Context, verb+"?"+q.Encode(), &o); err != nil {
		return err
	}
	if asJSON {
		return show.JSON(c.App.Writer, o)
	}
	warn(c, o.Warnings)
	return show.Ordered(c.App.Writer, o.Backends)
}

func warn(c *cli.Context, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(c.App.ErrWriter, w)
	}
}

func planCommand() *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "say what a changed configuration file would change in a running weir",
		ArgsUsage: "FILE",
		Description: "Has the running weir check the file, and compile it as a reload would, but\n" +
			"changes nothing. Shows which services and VIPs would change, how much of each\n" +
			"service's new flows would go to another backend, and how many of the flows there\n" +
			"are now would lose theirs. Backends that are new are taken as usable, and drains\n" +
			"and slow starts as over. Exits with 1 if weir reload would refuse the file.",
		Flags: []cli.Flag{socketFlag(), outputFlag()},
		Action: func(c *cli.Context) error {
			args, err := interspersed(c)
			if err != nil {
				return err
			}
			if len(args) != 1 {
				return errors.New("name one file: weir plan FILE")
			}
			asJSON, err := wantsJSON(c)
			if err != nil {
				return err
			}
			return plan(c.Context, c, args[0], asJSON)
		},
	}
}

func plan(ctx context.Context, c *cli.Context, path string, asJSON bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	p, err := api.NewClient(c.String("socket")).Plan(ctx, path, text)
	if err != nil {
		return err
	}
	if asJSON {
		err = show.JSON(c.App.Writer, p)
	} else {
		warn(c, p.Warnings)
		err = show.Plan(c.App.Writer, &p)
	}
	if err == nil && len(p.Restart) > 0 {
		err = fmt.Errorf("%s changed, which needs a restart; weir reload would refuse the file", strings.Join(p.Restart, ", "))
	}
	return err
}
