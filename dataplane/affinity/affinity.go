// Package affinity says which CPUs threads run on (sched_setaffinity(2)).
//
// The problem it solves: a worker that never sleeps has its CPU for itself only if
// everything else in the process keeps off it, the threads of Go's collector first
// of all. They would take the CPU for milliseconds, and packets would wait.
package affinity

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Allowed returns the CPUs that the calling thread may run on, in order.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("get allowed cpus: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// Pin has the calling thread run on one CPU only. The goroutine should have locked
// it, and should not give it back.
func Pin(cpu int) error {
	if err := restrict(0, []int{cpu}); err != nil {
		return fmt.Errorf("pin to cpu %d: %w", cpu, err)
	}
	return nil
}

// MakeRoom keeps all threads that there are, and those that they will start, off
// the CPUs of so many workers as workers has elements, and returns the CPUs that are
// left to them. Workers pin their threads afterwards. If none is left, threads stay
// where they may be, and it returns none.
//
// It also raises GOMAXPROCS by one for each worker, unless the environment sets it:
// to Go's scheduler a worker is a goroutine that is always running, and one that
// has been taken off has to find a free P at once, also while the collector works.
func MakeRoom(workers []int) (left []int, err error) {
	allowed, err := Allowed()
	if err != nil {
		return nil, err
	}
	// To set it is needed in any case: the runtime would else count the CPUs of one
	// of these threads from time to time.
	procs := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" {
		procs += len(workers)
	}
	runtime.GOMAXPROCS(procs)
	left = slices.DeleteFunc(allowed, func(cpu int) bool { return slices.Contains(workers, cpu) })
	if len(left) == 0 {
		return nil, nil
	}
	return left, moveThreads(left)
}

// moveThreads restricts all threads. One that is started meanwhile, by one that has
// not been moved yet, is found the next time.
func moveThreads(to []int) error {
	const threads = "/proc/self/task"
	moved := make(map[int]bool)
	for {
		entries, err := os.ReadDir(threads)
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		before := len(moved)
		for _, e := range entries {
			id, err := strconv.Atoi(e.Name())
			if err != nil || moved[id] {
				continue
			}
			if err := restrict(id, to); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set affinity of thread %d: %w", id, err)
			}
			moved[id] = true
		}
		if len(moved) == before {
			return nil
		}
	}
}

// restrict is for the calling thread if id is 0.
func restrict(id int, to []int) error {
	var set unix.CPUSet
	for _, cpu := range to {
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(id, &set)
}
