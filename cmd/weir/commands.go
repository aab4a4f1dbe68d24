package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"weir/controlplane/api"
	"weir/controlplane/appliance"
	"weir/controlplane/show"
)

const (
	defaultConfig = "/etc/weir/weir.yaml"
	defaultSocket = "/run/weir/weir.sock"
)

// outputFormats is what --output may be.
func outputFormats() []string { return []string{"text", "json"} }

func runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the load balancer in the foreground",
		Description: "Takes the configured interfaces' frames for VIPs, and forwards them until\n" +
			"SIGTERM or SIGINT. SIGHUP reloads the configuration.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: defaultConfig, Usage: "configuration `FILE`"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("unexpected argument %q; name the file with --config", c.Args().First())
			}
			return appliance.Run(c.Context, appliance.Options{
				ConfigPath: c.String("config"), Version: version, Log: os.Stderr,
			})
		},
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a configuration file and report every mistake in it",
		ArgsUsage: "FILE",
		Description: "Checks the file by itself and against this host (its interfaces and addresses),\n" +
			"and changes nothing.",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return errors.New("name one file: weir check FILE")
			}
			cfg, warnings, err := appliance.Load(c.Args().First())
			for _, w := range warnings {
				fmt.Fprintln(c.App.ErrWriter, w)
			}
			if err != nil {
				return err
			}
			backends := 0
			for i := range cfg.Services {
				backends += len(cfg.Services[i].Backends)
			}
			fmt.Fprintf(c.App.Writer, "%s is valid: %d interfaces, %d services, %d backends\n",
				c.Args().First(), len(cfg.Interfaces), len(cfg.Services), backends)
			return nil
		},
	}
}

// noArguments refuses what a command would else ignore.
func noArguments(c *cli.Context) error {
	if c.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see `%s --help`", c.Args().First(), c.Command.HelpName)
	}
	return nil
}

func socketFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "socket", Aliases: []string{"s"}, Value: defaultSocket,
		EnvVars: []string{"WEIR_SOCKET"}, Usage: "api `SOCKET` of the running weir",
	}
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT`: text or json"}
}

func wantsJSON(c *cli.Context) (bool, error) {
	format := c.String("output")
	if !slices.Contains(outputFormats(), format) {
		return false, fmt.Errorf("output format %q is neither text nor json", format)
	}
	return format == "json", nil
}

func showCommand() *cli.Command {
	cmd := &cli.Command{Name: "show", Usage: "show what a running weir does"}
	for _, n := range show.Nouns() {
		flags := []cli.Flag{socketFlag(), outputFlag()}
		if n.Name == "flows" {
			flags = append(flags,
				&cli.IntFlag{Name: "limit", Value: 1000, Usage: "show at most `N` flows"},
				&cli.StringFlag{Name: "service", Usage: "only flows of the service `NAME`"},
				&cli.StringFlag{Name: "backend", Usage: "only flows of the backend `ADDRESS`"},
			)
		}
		cmd.Subcommands = append(cmd.Subcommands, &cli.Command{
			Name: n.Name, Usage: n.Usage, Flags: flags,
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
				asJSON, err := wantsJSON(c)
				if err != nil {
					return err
				}
				client := api.NewClient(c.String("socket"))
				if service := c.String("service"); service != "" {
					if err := show.CheckService(c.Context, client, service); err != nil {
						return err
					}
				}
				return n.Show(c.Context, client, c.App.Writer, flowQuery(c), asJSON)
			},
		})
	}
	return cmd
}

// flowQuery turns the flags of `show flows` into a query; other nouns have none.
func flowQuery(c *cli.Context) string {
	q := url.Values{}
	if c.IsSet("limit") {
		q.Set("limit", strconv.Itoa(c.Int("limit")))
	}
	for _, name := range []string{"service", "backend"} {
		if v := c.String(name); v != "" {
			q.Set(name, v)
		}
	}
	return q.Encode()
}

func reloadCommand() *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "have a running weir read its configuration file again",
		Flags: []cli.Flag{socketFlag()},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			var r api.Reloaded
			if err := api.NewClient(c.String("socket")).Do(c.Context, "reload", &r); err != nil {
				return err
			}
			for _, w := range r.Warnings {
				fmt.Fprintln(c.App.ErrWriter, w)
			}
			fmt.Fprintf(c.App.Writer, "reloaded; snapshot %d is in force\n", r.Generation)
			return nil
		},
	}
}
