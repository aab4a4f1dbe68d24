package appliance

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Workers are disturbed by everything else on their CPUs: a thread of the garbage
// collector that gets its turn there is felt for milliseconds. So all other
// threads stay on the CPUs that no worker has, if there are any, and the collector
// has less to do. Packet memory and flow tables are not the collector's; what is
// left are its pauses, which are some tens of microseconds.

// gcPercent is how much the heap may grow, compared with what is in use, before the
// collector runs (GOGC). A control plane is small, and memory cheaper than its
// attention.
const gcPercent = 400

// makeRoom keeps this process's threads off the CPUs of its workers, which have not
// begun. What cannot be done is logged: weir forwards all the same.
func makeRoom(workers []int, log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		log.Warn("other threads share the workers' cpus", "error", err)
		return
	}
	others := allowed
	for _, cpu := range workers {
		others.Clear(cpu)
	}
	if others.Count() == 0 {
		return
	}
	// The Go runtime counts the CPUs of one of its threads from time to time, and
	// would have too few for the workers. A number that is set stays.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), len(workers)+others.Count()))
	if err := moveThreads(&others); err != nil {
		log.Warn("other threads share the workers' cpus", "error", err)
	}
}

// moveThreads restricts all threads that there are to some CPUs. Those that they
// start are restricted with them.
func moveThreads(to *unix.CPUSet) error {
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
			if err := unix.SchedSetaffinity(id, to); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set affinity of thread %d: %w", id, err)
			}
			moved[id] = true
		}
		if len(moved) == before { // none was started meanwhile by one that was not moved yet
			return nil
		}
	}
}

// workerCPUs returns the CPUs that workers are pinned to, each once.
func (a *Appliance) workerCPUs() (cpus []int) {
	for _, w := range a.Workers() {
		if cpu := w.CPU(); cpu >= 0 && !slices.Contains(cpus, cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}
