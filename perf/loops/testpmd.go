package loops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"weir/dataplane/affinity"
	"weir/lab/netlab"
	"weir/perf/measure"
)

// Testpmd is DPDK's forwarder in C (dpdk-testpmd, forward mode macswap) on its driver
// for AF_XDP, in copy mode as all loops, with the rings that this driver has by
// default, of 2048 entries, and as its documentation has it, busy polling of the socket.
// It is not in [Kinds], as it is a program of its own: see [StartTestpmd].
const Testpmd Kind = "testpmd"

// ErrNoTestpmd is in the error if it is not installed.
var ErrNoTestpmd = errors.New("no dpdk-testpmd with a driver for AF_XDP: apt-get install dpdk-dev librte-net-af-xdp23")

// Pmd is dpdk-testpmd at work. It never sleeps. What it has counted it does not tell.
type Pmd struct {
	process *netlab.Process
	thread  int
}

// pmdStarts is how long it may take to begin, on a machine that has other work as well.
const pmdStarts = 30 * time.Second

// StartTestpmd starts it in the host, on the interface and CPU of opt, and waits until
// it works.
func StartTestpmd(ctx context.Context, host *netlab.Host, opt Options) (_ *Pmd, err error) {
	program, err := exec.LookPath("dpdk-testpmd")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTestpmd, err)
	}
	driver, err := filepath.Glob("/usr/lib/*/dpdk/pmds-*/librte_net_af_xdp.so*")
	if err != nil || len(driver) == 0 {
		return nil, ErrNoTestpmd
	}
	elsewhere, err := others(opt.CPU)
	if err != nil {
		return nil, fmt.Errorf("start testpmd: %w", err)
	}
	// The first lcore does nothing but wait for its input to end, and may do so anywhere.
	cmd := exec.Command(program,
		"--lcores", fmt.Sprintf("0@(%s),1@%d", elsewhere, opt.CPU), "--no-huge", "-m", "512", "--no-shconf", "--no-pci", "--no-telemetry",
		"--vdev", "net_af_xdp0,force_copy=1,iface="+opt.Interface,
		"--", "--forward-mode=macswap", "--auto-start", "--nb-cores=1", "--no-mlockall", "--total-num-mbufs=16384", "--stats-period=3600")
	cmd.Env = append(os.Environ(), "LIBXDP_BPFFS_AUTOMOUNT=1")
	process, err := host.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start testpmd: %w", err)
	}
	p := &Pmd{process: process}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start testpmd: %w: %s", err, process.Output()), p.Close())
		}
	}()
	for begun := time.Now(); ; {
		if p.thread, err = worker(process.PID()); err != nil {
			return nil, err
		}
		if p.thread != 0 && strings.Contains(process.Output(), "Port statistics") {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-process.Done():
			return nil, errors.New("it has ended")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begun) > pmdStarts {
			return nil, fmt.Errorf("it has not begun within %v", pmdStarts)
		}
	}
}

// others lists all CPUs that are allowed but one, or that one if there is no other.
func others(cpu int) (string, error) {
	cpus, err := affinity.Allowed()
	if err != nil {
		return "", err
	}
	var list []string
	for _, n := range cpus {
		if n != cpu {
			list = append(list, strconv.Itoa(n))
		}
	}
	if list == nil {
		return strconv.Itoa(cpu), nil
	}
	return strings.Join(list, ","), nil
}

// worker returns the thread of lcore 1 of a process of DPDK, 0 if there is none yet.
func worker(pid int) (int, error) {
	tasks := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return 0, fmt.Errorf("look for its thread: %w", err)
	}
	for _, t := range threads {
		name, err := os.ReadFile(filepath.Join(tasks, t.Name(), "comm"))
		if err == nil && strings.HasSuffix(strings.TrimSpace(string(name)), "worker-1") {
			return strconv.Atoi(t.Name())
		}
	}
	return 0, nil
}

// Time returns how long its thread has run, and waited.
func (p *Pmd) Time() (measure.ThreadTime, error) {
	return measure.ReadThread(p.process.PID(), p.thread)
}

// Ticks returns how that divides.
func (p *Pmd) Ticks() (measure.Ticks, error) {
	return measure.ReadTicks(fmt.Sprintf("/proc/%d/task/%d/stat", p.process.PID(), p.thread))
}

// Memory returns how many bytes of the process are in memory.
func (p *Pmd) Memory() (uint64, error) { return measure.ResidentMemory(p.process.PID()) }

// Close ends it. It may be called twice.
func (p *Pmd) Close() error {
	err := p.process.Stop(measure.StopGrace)
	var status *exec.ExitError
	if errors.As(err, &status) { // it says what it was ended by
		err = nil
	}
	return err
}
