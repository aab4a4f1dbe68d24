package forward_test

import (
	"testing"

	"weir/dataplane/forward"
)

// What packets of known flows need of a backend is in one cache line, whichever it is.
func TestTargetSize(t *testing.T) {
	const line = 64
	if n := forward.TargetSize(); line%n != 0 {
		t.Errorf("%d bytes for each backend", n)
	}
}
