package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"

	"weir/perf/measure"
)

// ReceiveByNAPI has the far end of the wire receive in a NAPI poll, without which
// a veth takes no frames of an XDP program, such as the generator's: by GRO. It is
// for what is measured behind the driver and has no XDP program in it.
func (b *Bed) ReceiveByNAPI() error {
	return b.Far.Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return fmt.Errorf("open ethtool: %w", err)
		}
		defer tool.Close()
		if err := tool.Change(FarName, map[string]bool{"rx-gro": true}); err != nil {
			return fmt.Errorf("switch GRO on: %w", err)
		}
		return nil
	})
}

// ReceiveOn has the far end of the wire give what it has received to another CPU
// as soon as there is an sk_buff (RPS, Documentation/networking/scaling.rst), and
// returns the thread that does the work there while it has too much to do: that
// CPU's ksoftirqd.
func (b *Bed) ReceiveOn(ctx context.Context, cpu int) (*Thread, error) {
	if err := b.write(ctx, "queues/rx-0/rps_cpus", mask(cpu)); err != nil {
		return nil, fmt.Errorf("set RPS to cpu %d (needs a kernel with CONFIG_RPS): %w", cpu, err)
	}
	pids, err := threads(fmt.Sprintf("ksoftirqd/%d\n", cpu))
	if err != nil {
		return nil, err
	}
	for pid := range pids {
		return &Thread{pid}, nil
	}
	return nil, fmt.Errorf("cpu %d has no ksoftirqd", cpu)
}

// mask writes a set of one CPU as the kernel reads it: hexadecimal, in words of 32
// bits, the highest first (Documentation/core-api/printk-formats.rst, bitmap).
func mask(cpu int) string {
	return fmt.Sprintf("%x", 1<<(cpu%32)) + strings.Repeat(",00000000", cpu/32)
}

// write sets an attribute of the far end of the wire.
func (b *Bed) write(ctx context.Context, attribute, value string) error {
	path := filepath.Join("/sys/class/net", FarName, attribute)
	_, err := b.Far.Run(ctx, "sh", "-c", fmt.Sprintf("echo %s > %s", value, path)) // /sys is the host's for its processes alone
	return err
}

// Thread is a thread of the kernel that works on frames.
type Thread struct{ pid int }

// Time returns the scheduler's account of the thread.
func (t *Thread) Time() (measure.ThreadTime, error) { return measure.ReadThread(t.pid, t.pid) }

// Rest waits until the thread sleeps, which it does as soon as it has worked all
// frames that it was given, and fails if it does not within a time.
func (t *Thread) Rest(ctx context.Context) error {
	for deadline := time.Now().Add(restWithin); ; {
		runnable, err := measure.Runnable(t.pid)
		if err != nil || !runnable {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a thread of the kernel has work after %v without new frames", restWithin)
		}
		if err := measure.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

const restWithin = 10 * time.Second

// ReceiveByThread has the far end of the wire receive in a thread of its own, on
// a CPU: threaded NAPI (Documentation/networking/napi.rst). It has to receive by
// NAPI already.
func (b *Bed) ReceiveByThread(ctx context.Context, cpu int) (*Thread, error) {
	const prefix = "napi/" + FarName + "-" // in all network namespaces: threads belong to none
	before, err := threads(prefix)
	if err != nil {
		return nil, err
	}
	if err := b.write(ctx, "threaded", "1"); err != nil {
		return nil, fmt.Errorf("make NAPI threaded (needs Linux 5.12): %w", err)
	}
	after, err := threads(prefix)
	if err != nil {
		return nil, err
	}
	for pid := range after {
		if before[pid] {
			continue
		}
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(pid, &set); err != nil {
			return nil, fmt.Errorf("pin NAPI thread to cpu %d: %w", cpu, err)
		}
		return &Thread{pid}, nil
	}
	return nil, errors.New("no thread receives: it takes GRO or an XDP program on the interface")
}

// threads returns the ids of processes whose name, with a line feed after it,
// begins like this.
func threads(prefix string) (map[int]bool, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	pids := make(map[int]bool)
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(comm), prefix) {
			continue // also if it has just ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, fmt.Errorf("list threads: %w", err)
		}
		pids[pid] = true
	}
	return pids, nil
}
