// Package affinity says which CPUs threads run on (sched_setaffinity(2)).
//
// The problem it solves: a worker that never sleeps has its CPU for itself only if
// everything else in the process keeps off it, the threads of Go's collector first
// of all. They would take the CPU for milliseconds, and packets would wait.
package affinity

import (
	"fmt"
	"runtime"

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

// Possible returns the CPUs that a thread of this process can be pinned to, in order.
// They are those of its cpuset, and more than Allowed says where the process was
// started on a few of them (taskset(1)), or the kernel keeps some from those who do
// not ask for them (isolcpus=).
func Possible() (cpus []int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var all unix.CPUSet
		for cpu := range len(all) * 64 {
			all.Set(cpu)
		}
		if err = unix.SchedSetaffinity(0, &all); err != nil { // what the cpuset does not have is left out
			err = fmt.Errorf("ask for all cpus: %w", err)
			return
		}
		cpus, err = Allowed()
	}()
	<-done
	return cpus, err
}

// Pin has the calling thread run on one CPU only. The goroutine should have locked
// it, and should not give it back.
func Pin(cpu int) error {
	if err := restrict(0, []int{cpu}); err != nil {
		return fmt.Errorf("pin to cpu %d: %w", cpu, err)
	}
	return nil
}

// restrict is for the calling thread if id is 0.
func restrict(id int, to []int) error {
	var set unix.CPUSet
	for _, cpu := range to {
		set.Set(cpu)
	}
	return unix.SchedSetaffinity(id, &set)
}
