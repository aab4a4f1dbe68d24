// Package labtest has what tests that need a lab have in common.
package labtest

import (
	"os"
	"testing"
)

// NeedRoot skips a test that makes network namespaces, raw sockets or BPF programs
// where it cannot. In CI, where all tests must run, it fails it.
func NeedRoot(t testing.TB) {
	t.Helper()
	const reason = "needs root: makes network namespaces, raw sockets or BPF programs"
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}
