package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/lab/clab"
)

func topologyCommand() *cli.Command {
	return &cli.Command{
		Name:      "topology",
		Usage:     "run a containerlab file in network namespaces, without Docker (root)",
		ArgsUsage: "FILE",
		Description: "Makes a network namespace and a root of its own for each node of FILE, a topology\n" +
			"file of containerlab, cables them, and starts what the nodes run: images are not\n" +
			"used, a node's programs are this machine's. With --check it then runs the check\n" +
			"script that lies beside FILE and exits with its status; for NAME.clab.yml that is\n" +
			"NAME/check. Nothing is left behind. A file that says what would come out otherwise\n" +
			"than with Docker is refused, with all mistakes at once.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "weir", Value: "bin/weir", Usage: "the weir `BINARY` of nodes of weir's image"},
			&cli.BoolFlag{Name: "check", Usage: "run the check script, and exit with its status"},
			&cli.BoolFlag{Name: "keep", Usage: "leave the lab up until Ctrl-C, and say how to look around"},
		},
		Action: func(c *cli.Context) error {
			files, err := interspersed(c)
			if err != nil {
				return err
			}
			if len(files) != 1 {
				return fmt.Errorf("want one topology file, got %d", len(files))
			}
			job := clab.Job{
				File: files[0], Weir: c.String("weir"),
				Check: c.Bool("check"), Keep: c.Bool("keep"), Out: os.Stdout,
			}
			return job.Run(c.Context)
		},
	}
}

// interspersed returns the arguments of a command that are no flags. The library
// takes everything behind the first of them for another, so flags that stand
// there are set here.
func interspersed(c *cli.Context) ([]string, error) {
	var args []string
	for rest := c.Args().Slice(); len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if len(word) < 2 || word[0] != '-' {
			args = append(args, word)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		at := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
		if at < 0 {
			return nil, errors.New("flag provided but not defined: -" + name)
		}
		if _, isSwitch := c.Command.Flags[at].(*cli.BoolFlag); isSwitch && !hasValue {
			value, hasValue = "true", true
		}
		if !hasValue {
			if len(rest) == 0 {
				return nil, errors.New("flag needs an argument: -" + name)
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(name, value); err != nil {
			return nil, fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)
		}
	}
	return args, nil
}

// topologyPart is what the command topology starts this program again for.
func topologyPart() *cli.Command {
	return &cli.Command{
		Name:            clab.PartCommand,
		Hidden:          true,
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			os.Exit(clab.Part(c.Args().Slice()))
			return nil
		},
	}
}
