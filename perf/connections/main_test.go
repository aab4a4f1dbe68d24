package connections

import (
	"fmt"
	"os"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestMain makes the test program one that has the command, for Measure starts
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "perf" {
		app := &cli.App{Name: "test", Commands: []*cli.Command{{Name: "perf", Subcommands: []*cli.Command{Command()}}}}
		if err := app.Run(os.Args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}
