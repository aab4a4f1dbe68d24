package measure

import (
	"fmt"
	"os"
	"time"
)

// ThreadTime is how long a thread has run, and how long it was ready to run and
// did not get a core.
type ThreadTime struct{ Ran, Waited time.Duration }

// Since returns what was added since before.
func (t ThreadTime) Since(before ThreadTime) ThreadTime {
	return ThreadTime{t.Ran - before.Ran, t.Waited - before.Waited}
}

// ReadThread reads the scheduler's account of a thread
// (Documentation/scheduler/sched-stats.rst).
func ReadThread(pid, tid int) (ThreadTime, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/schedstat", pid, tid))
	if err != nil {
		return ThreadTime{}, fmt.Errorf("read run time of thread (needs CONFIG_SCHED_INFO): %w", err)
	}
	var ran, waited int64
	if _, err := fmt.Sscan(string(b), &ran, &waited); err != nil {
		return ThreadTime{}, fmt.Errorf("read run time of thread: %q: %w", b, err)
	}
	return ThreadTime{time.Duration(ran), time.Duration(waited)}, nil
}
