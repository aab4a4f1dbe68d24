package snapshots

import (
	"os"
	"testing"

	"weir/perf/measure"
)

// TestMain makes the test program one that has the command, for Run starts
// itself.
func TestMain(m *testing.M) {
	measure.ServeChild(PartCommand())
	os.Exit(m.Run())
}
