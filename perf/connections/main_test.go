package connections

import (
	"os"
	"testing"

	"weir/perf/measure"
)

// TestMain makes the test program one that has the command, for Measure starts
// itself.
func TestMain(m *testing.M) {
	measure.ServeChild(Command())
	os.Exit(m.Run())
}
