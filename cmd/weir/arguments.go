package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// interspersed returns the arguments of a command that are no flags. The library
// takes everything behind the first of them for another, so flags that stand
// there are set here. None of them may be boolean.
func interspersed(c *cli.Context) ([]string, error) {
	var args []string
	for rest := c.Args().Slice(); len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		if len(word) < 2 || word[0] != '-' {
			args = append(args, word)
			continue
		}
		given, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		name, known := flagName(c, given)
		if !known {
			return nil, usageError(c, fmt.Errorf("flag provided but not defined: -%s", given), true)
		}
		if !hasValue {
			if len(rest) == 0 {
				return nil, usageError(c, fmt.Errorf("flag needs an argument: -%s", given), true)
			}
			value, rest = rest[0], rest[1:]
		}
		if err := c.Set(name, value); err != nil {
			return nil, usageError(c, fmt.Errorf("invalid value %q for flag -%s: %w", value, given, err), true)
		}
	}
	return args, nil
}

// flagName returns the first name of the command's flag that has this one.
func flagName(c *cli.Context, name string) (string, bool) {
	for _, f := range c.Command.Flags {
		if _, isSwitch := f.(*cli.BoolFlag); !isSwitch && slices.Contains(f.Names(), name) {
			return f.Names()[0], true
		}
	}
	return "", false
}
