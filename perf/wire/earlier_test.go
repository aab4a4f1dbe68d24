package wire

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/perf/measure"
)

// What loops and modes write they can show, and so they can what they once wrote.
func TestEither(t *testing.T) {
	var now Report
	now.Add(Cell{Subject: "asavie", Scenario: Flood, Flows: 1024, Delivered: 2.34e6, Offered: 5e6})
	var earlier Earlier
	earlier.Flows, earlier.LoopOn = 1024, 1
	earlier.Add(EarlierCell{Loop: "asavie", Scenario: earlierOverload, Delivered: 1.23e6, Offered: 5e6})
	for name, test := range map[string]struct {
		report measure.Report
		want   []string
	}{
		"now":     {now, []string{"| flood | 1 Ki |", "| asavie | afxdp |", "| 2.34 (2.34-2.34) |"}},
		"earlier": {earlier, []string{"1024 flows, rings of", "| overload | asavie |", "| 1.23 (1.23-1.23) |"}},
	} {
		path := filepath.Join(t.TempDir(), "report.json")
		if err := measure.WriteFile(path, test.report); err != nil {
			t.Fatal(err)
		}
		for _, command := range []*cli.Command{LoopsCommand(), ModesCommand()} {
			var out bytes.Buffer
			app := &cli.App{Name: "perf", Commands: []*cli.Command{command}, Writer: &out}
			if err := app.Run([]string{"perf", command.Name, "--markdown", path}); err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%s shows of one of %s no %q:\n%s", command.Name, name, want, out.String())
				}
			}
		}
	}
}
