package wire

import (
	"os"
	"testing"

	"weir/perf/balancer"
	"weir/perf/loops"
	"weir/perf/measure"
)

// TestMain makes the test program one that has the commands, for Run starts
// itself.
func TestMain(m *testing.M) {
	measure.ServeChild(balancer.Command(), loops.Command())
	os.Exit(m.Run())
}
