package flood

import (
	"os"
	"testing"

	"weir/perf/balancer"
	"weir/perf/measure"
)

// TestMain makes the test program one that has the command, for Run starts
// itself.
func TestMain(m *testing.M) {
	measure.ServeChild(balancer.Command())
	os.Exit(m.Run())
}
