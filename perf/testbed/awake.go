package testbed

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// awake keeps CPUs from halting.
//
// A CPU without work halts, and one in a virtual machine is then the host's: it has
// been seen to take milliseconds to come back when a packet arrived, which is all that
// a percentile of latency would show. So each has a process that does nothing, of
// SCHED_IDLE (sched(7)): anything else that wants to run has the CPU at once. On bare
// metal the kernel's idle=poll does the same.
type awake struct {
	idlers []*exec.Cmd
	end    func() // ends the goroutine that has the idlers; may be called twice
}

// keepAwake keeps these CPUs from halting until close, or until this process ends.
func keepAwake(cpus ...int) (*awake, error) {
	over := make(chan struct{})
	a := &awake{end: sync.OnceFunc(func() { close(over) })}
	begun := make(chan error)
	go func() {
		// An idler goes when the thread goes that it is a child of (PR_SET_PDEATHSIG(2const)).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		begun <- a.begin(cpus)
		<-over
	}()
	if err := <-begun; err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func (a *awake) begin(cpus []int) error {
	for _, cpu := range cpus {
		if err := a.add(cpu); err != nil {
			return fmt.Errorf("keep cpu %d awake: %w", cpu, err)
		}
	}
	return nil
}

func (a *awake) add(cpu int) error {
	// It waits for the word before it begins, so it is nowhere else before.
	idler := exec.Command("/bin/sh", "-c", "read go && while :; do :; done")
	idler.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	word, err := idler.StdinPipe()
	if err != nil {
		return err
	}
	if err := idler.Start(); err != nil {
		return err
	}
	a.idlers = append(a.idlers, idler)
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(idler.Process.Pid, &set); err != nil {
		return err
	}
	if err := unix.SchedSetAttr(idler.Process.Pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		return err
	}
	_, err = word.Write([]byte("go\n"))
	return err
}

// close ends them. It may be called twice.
func (a *awake) close() error {
	defer a.end()
	var errs []error
	for _, idler := range a.idlers {
		errs = append(errs, idler.Process.Kill())
		_ = idler.Wait() // "killed"
	}
	a.idlers = nil
	return errors.Join(errs...)
}
