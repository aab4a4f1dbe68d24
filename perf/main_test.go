package perf

import (
	"fmt"
	"os"
	"testing"

	"github.com/urfave/cli/v2"
)

// TestMain makes the test program one that has the command, for Loops starts
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "perf" {
		app := &cli.App{Name: "test", Commands: []*cli.Command{Command()}}
		if err := app.Run(os.Args); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: makes network namespaces and AF_XDP sockets")
	}
	t.Skip("needs root: makes network namespaces and AF_XDP sockets")
}
