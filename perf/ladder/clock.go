package ladder

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"time"

	"weir/dataplane/affinity"

	"golang.org/x/sys/unix"
)

// threadTime returns how long the calling thread has run, in all. It is a system
// call and takes some hundred nanoseconds, once for many batches.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(fmt.Sprintf("no CLOCK_THREAD_CPUTIME_ID, which POSIX systems have: %v", err))
	}
	return time.Duration(ts.Nano())
}

// lastCPU returns the last CPU that is allowed: interrupts prefer the first.
func lastCPU() (int, error) {
	cpus, err := affinity.Allowed()
	if err != nil {
		return 0, err
	}
	return cpus[len(cpus)-1], nil
}

// hold keeps the calling goroutine on its thread, and that on a CPU, until it is
// released.
func hold(cpu int) (release func(), err error) {
	runtime.LockOSThread()
	var before, set unix.CPUSet
	set.Set(cpu)
	err = errors.Join(unix.SchedGetaffinity(0, &before), unix.SchedSetaffinity(0, &set))
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("pin to cpu %d: %w", cpu, err)
	}
	return func() {
		// Else the thread stays locked, and ends with its goroutine.
		if unix.SchedSetaffinity(0, &before) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

// quiet collects garbage, and then switches the collector off until it is
// called.
func quiet() (end func()) {
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(math.MaxInt64)
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

func round1(ns float64) float64 { return math.Round(ns*10) / 10 }
