package affinity

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Room keeps everything else in the process off the CPUs of its workers. There is
// one of it in a process, or none; its methods may be called from any goroutine. A nil
// Room keeps nothing off.
type Room struct {
	cpus  []int // that the process was given
	procs int   // GOMAXPROCS as it was
	asked bool  // by the environment

	mu     sync.Mutex
	pinned map[int]bool // threads of workers
}

// NewRoom remembers what the process was given; it changes nothing.
func NewRoom() (*Room, error) {
	cpus, err := Allowed()
	if err != nil {
		return nil, err
	}
	return &Room{
		cpus: cpus, procs: runtime.GOMAXPROCS(0), asked: os.Getenv("GOMAXPROCS") != "",
		pinned: make(map[int]bool),
	}, nil
}

// Make keeps all threads but those that Pin has pinned, and all that they will start,
// off these CPUs, of all workers that there are or are about to begin. It returns the
// CPUs that are left; none if there are none, and then threads may run where they
// might in the beginning. It is called again when there are other workers.
//
// It also raises GOMAXPROCS, unless the environment sets it or no CPU is left: to Go's
// scheduler a worker is a goroutine that is always running. One that has been taken
// off, which happens every 10 ms, has to find a free P at once, also while the
// collector works.
func (r *Room) Make(workers []int) (left []int, err error) {
	if r == nil {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	left = slices.DeleteFunc(slices.Clone(r.cpus), func(cpu int) bool { return slices.Contains(workers, cpu) })
	to, procs := left, r.procs
	if len(left) == 0 {
		to = r.cpus
	} else if !r.asked {
		procs = enoughProcs(len(workers), min(len(left), r.procs))
	}
	// To set it is needed in any case: the runtime would else count the CPUs of one
	// of these threads from time to time.
	if procs != runtime.GOMAXPROCS(0) || !r.asked {
		runtime.GOMAXPROCS(procs)
	}
	return left, r.moveThreads(to)
}

// enoughProcs returns GOMAXPROCS for so many workers and others: so many that the
// collector's own goroutines, which have a quarter of it, leave the others one at least.
// Where a quarter cannot be rounded well, the collector shares the Ps of all, workers
// too (gcControllerState.startCycle in Go's runtime/mgcpacer.go); such numbers are left
// out.
func enoughProcs(workers, others int) int {
	for procs := workers + others; ; procs++ {
		quarter := float64(procs) / 4
		collectors := int(quarter + 0.5)
		if off := float64(collectors)/quarter - 1; off < -0.3 || off > 0.3 {
			continue
		}
		if procs-workers > collectors {
			return procs
		}
	}
}

// Pin has the calling thread, which the goroutine has locked for good, run on one
// CPU only. The goroutine calls unpin when it ends.
func (r *Room) Pin(cpu int) (unpin func(), err error) {
	if r == nil {
		return func() {}, Pin(cpu)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := Pin(cpu); err != nil {
		return func() {}, err
	}
	thread := unix.Gettid()
	r.pinned[thread] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.pinned, thread)
	}, nil
}

// moveThreads restricts all threads but the pinned ones. One that is started
// meanwhile, by one that has not been moved yet, is found the next time.
func (r *Room) moveThreads(to []int) error {
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
			if err != nil || moved[id] || r.pinned[id] {
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
