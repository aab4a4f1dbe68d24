package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestInterspersed has flags stand before, behind and between arguments.
func TestInterspersed(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"f", "[f] bin/weir false false"},
		{"--check f", "[f] bin/weir true false"},
		{"f --check", "[f] bin/weir true false"},
		{"--weir w f --check -keep", "[f] w true true"},
		{"f --weir w", "[f] w false false"},
		{"f --weir=w g", "[f g] w false false"},
		{"f --check=false --keep", "[f] bin/weir false true"},
		{"f -", "[f -] bin/weir false false"},
		{"f --weir", "flag needs an argument: -weir"},
		{"f --other", "flag provided but not defined: -other"},
		{"f --check=perhaps", `invalid value "perhaps" for flag -check`},
	} {
		got := ""
		command := topologyCommand()
		command.Action = func(c *cli.Context) error {
			args, err := interspersed(c)
			got = fmt.Sprint(args, " ", c.String("weir"), " ", c.Bool("check"), " ", c.Bool("keep"))
			return err
		}
		app := &cli.App{Commands: []*cli.Command{command}, Writer: io.Discard, ErrWriter: io.Discard}
		if err := app.Run(append([]string{"weirlab", "topology"}, strings.Fields(test.line)...)); err != nil {
			got = err.Error()
		}
		if got != test.want && !strings.HasPrefix(got, test.want+":") {
			t.Errorf("%q: %s, want %s", test.line, got, test.want)
		}
	}
}
