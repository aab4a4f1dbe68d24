package affinity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// asked is set for a test program that is to make room: no test does it in the
// process of others.
const asked = "WEIR_TEST_ROOM"

func TestMain(m *testing.M) {
	if os.Getenv(asked) == "" {
		os.Exit(m.Run())
	}
	if err := room(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// TestRoom makes room in a process of its own.
func TestRoom(t *testing.T) {
	for name, procs := range map[string]string{"GOMAXPROCS is ours": "", "GOMAXPROCS is asked for": "3"} {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), asked+"=yes", "GOMAXPROCS="+procs)
			if out, err := child.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// room makes room on one CPU, then on all, then on the first one again, and looks at
// all threads each time.
func room() error {
	cpus, err := Allowed()
	if err != nil {
		return err
	}
	procs, set := runtime.GOMAXPROCS(0), os.Getenv("GOMAXPROCS") != ""
	first, rest := cpus[:1], cpus[1:]
	r, err := NewRoom()
	if err != nil {
		return err
	}
	w := worker{begin: make(chan int), begun: make(chan error), end: make(chan bool)}
	go w.run(r)
	for i, step := range []struct{ workers, left []int }{{first, rest}, {cpus, nil}, {first, rest}, {slices.Concat(first, first), rest}} {
		left, err := r.Make(step.workers)
		if err != nil {
			return err
		}
		if !slices.Equal(left, step.left) {
			return fmt.Errorf("step %d: %v are left, want %v", i, left, step.left)
		}
		wantProcs := procs
		if len(left) > 0 && !set {
			wantProcs = enoughProcs(len(step.workers), min(len(left), procs))
		}
		if got := runtime.GOMAXPROCS(0); got != wantProcs {
			return fmt.Errorf("step %d: GOMAXPROCS %d, want %d", i, got, wantProcs)
		}
		if i == 0 {
			w.begin <- first[0]
			if err := <-w.begun; err != nil {
				return err
			}
		}
		others := left
		if len(left) == 0 {
			others = cpus
		}
		if err := startThreads(); err != nil {
			return err
		}
		if err := checkThreads(w.thread, first, others); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	close(w.end)
	return <-w.begun
}

// worker is a goroutine on a thread that it pins.
type worker struct {
	begin  chan int
	begun  chan error
	end    chan bool
	thread int
}

func (w *worker) run(r *Room) {
	runtime.LockOSThread()
	unpin, err := r.Pin(<-w.begin)
	w.thread = unix.Gettid()
	w.begun <- err
	<-w.end
	unpin()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pinned) > 0 {
		err = fmt.Errorf("%v are pinned, and none is left", r.pinned)
	}
	w.begun <- err
}

// startThreads has the runtime start some.
func startThreads() error {
	const n = 8
	all, end := make(chan bool), make(chan bool)
	defer close(end)
	for range n {
		go func() {
			runtime.LockOSThread()
			all <- true
			<-end
		}()
	}
	for range n {
		<-all
	}
	return nil
}

// checkThreads looks where each thread of the process may run.
func checkThreads(worker int, theirs, others []int) error {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		var got, want unix.CPUSet
		if err := unix.SchedGetaffinity(id, &got); errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return err
		}
		cpus := others
		if id == worker {
			cpus = theirs
		}
		for _, cpu := range cpus {
			want.Set(cpu)
		}
		if got != want {
			return fmt.Errorf("thread %d may run on %v, want %v", id, got, want)
		}
	}
	return nil
}
