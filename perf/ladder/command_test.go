package ladder

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// run runs the command with some arguments, and returns what it shows. A context
// that has ended keeps it from measuring.
func run(args ...string) (string, error) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var out bytes.Buffer
	app := &cli.App{Name: "perf", Commands: []*cli.Command{Command()}, Writer: &out, ErrWriter: io.Discard}
	err := app.RunContext(ctx, append([]string{"perf", "ladder"}, args...))
	return out.String(), err
}

// Numbers of flows are taken as they are written, or refused as they are.
func TestFlowsFlag(t *testing.T) {
	for _, refused := range []string{"3000000000000", "4294968320", "-1", "1k", "0", "3", "33554432"} {
		if _, err := run("--no-memory", "--flows="+refused); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s flows: %v", refused, err)
		}
	}
	var got []uint32
	app := &cli.App{Flags: Command().Flags, Action: func(c *cli.Context) error {
		opt, err := optionsOf(c)
		got = opt.Flows
		return err
	}}
	if err := app.Run([]string{"ladder", "--flows=1,1024", "--flows", "16777216"}); err != nil {
		t.Fatal(err)
	}
	if want := []uint32{1, 1 << 10, 1 << 24}; !slices.Equal(got, want) {
		t.Errorf("flows %v, want %v", got, want)
	}
}

// An option's default is told once. --seed is package measure's.
func TestHelp(t *testing.T) {
	help, err := run("--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(help, "\n") {
		if strings.Count(line, "(default") > 1 && !strings.Contains(line, "--seed") {
			t.Errorf("two defaults: %s", line)
		}
	}
	if !strings.Contains(help, "to measure on (default: the last allowed)") {
		t.Errorf("no default of --cpu in:\n%s", help)
	}
}
