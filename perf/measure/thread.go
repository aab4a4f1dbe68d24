package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
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

// OwnTime returns how long the calling thread has run, to the moment: what others
// read of a thread that never sleeps is as of the last tick of the clock.
func OwnTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read run time of this thread: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// Ticks are ticks of the clock that hit a process or thread in user mode and in
// the kernel. There are a few hundred per second, so this is a sample: it tells
// how a time divides, and not how long it is.
type Ticks struct{ User, Kernel float64 }

// Since returns what was added since before.
func (t Ticks) Since(before Ticks) Ticks {
	return Ticks{t.User - before.User, t.Kernel - before.Kernel}
}

// UserShare returns which part was spent in user mode, zero of nothing.
func (t Ticks) UserShare() float64 {
	if t.User+t.Kernel == 0 {
		return 0
	}
	return t.User / (t.User + t.Kernel)
}

// ReadTicks returns utime and stime of a stat file, of a process or a thread
// (Documentation/filesystems/proc.rst, table 1-4). A program's name may have
// spaces and brackets in it.
func ReadTicks(path string) (Ticks, error) {
	const utime, stime = 14 - 3, 15 - 3 // counted from the state, which is the third
	fields, err := readStat(path, stime+1)
	if err != nil {
		return Ticks{}, fmt.Errorf("read times: %w", err)
	}
	user, errUser := strconv.ParseFloat(string(fields[utime]), 64)
	kernel, errKernel := strconv.ParseFloat(string(fields[stime]), 64)
	return Ticks{user, kernel}, errors.Join(errUser, errKernel)
}

// Runnable tells whether the first thread of a process runs or could run if it
// had a core.
func Runnable(pid int) (bool, error) {
	fields, err := readStat(fmt.Sprintf("/proc/%d/stat", pid), 1)
	if err != nil {
		return false, fmt.Errorf("read state: %w", err)
	}
	return string(fields[0]) == "R", nil
}

// readStat returns what a stat file has from the state on, least fields of it or
// more.
func readStat(path string, least int) ([][]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < least {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}
