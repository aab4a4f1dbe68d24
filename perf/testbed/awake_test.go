package testbed

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

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

// They go on when the thread has gone that began it.
func TestKeepAwakeOutlivesThread(t *testing.T) {
	var a *awake
	var err error
	thread := os.Getpid() // the main one never ends
	for thread == os.Getpid() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // never unlocked: it ends with the goroutine
			if thread = unix.Gettid(); thread != os.Getpid() {
				a, err = keepAwake(0)
			}
		}()
		<-ended
	}
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	for err == nil { // until it has ended
		runtime.Gosched()
		_, err = os.Stat(fmt.Sprintf("/proc/self/task/%d", thread))
	}
	const some = 5 // ticks of 10 ms
	first := -1
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.idlers[0].Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		stat := strings.Fields(string(b)) // proc_pid_stat(5)
		if stat[2] == "Z" {
			t.Fatalf("the idler has ended with thread %d", thread)
		}
		ran, err := strconv.Atoi(stat[13])
		if err != nil {
			t.Fatal(err)
		}
		if first < 0 {
			first = ran
		}
		if ran-first >= some {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
