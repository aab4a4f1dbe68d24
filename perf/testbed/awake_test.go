package testbed

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The idlers are where they should be, give way to all others, and are gone in the end.
func TestKeepAwake(t *testing.T) {
	a, err := keepAwake(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, idler := range a.idlers {
		pid := idler.Process.Pid
		pids = append(pids, pid)
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil || set.Count() != 1 || !set.IsSet(0) {
			t.Errorf("process %d may run on %d CPUs: %v", pid, set.Count(), err)
		}
		attr, err := unix.SchedGetAttr(pid, 0)
		if err != nil || attr.Policy != unix.SCHED_IDLE {
			t.Errorf("process %d has policy %d: %v", pid, attr.Policy, err)
		}
	}
	if len(pids) != 2 {
		t.Fatalf("%d processes, want 2", len(pids))
	}
	for range 2 {
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	if _, err := keepAwake(1 << 9); err == nil || !strings.Contains(err.Error(), "cpu 512") {
		t.Errorf("a CPU that is not there: %v", err)
	}
}
