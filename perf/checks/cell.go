package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"weir/perf/measure"
)

// Cell is one measurement: of so many checks of one kind, once. Shares of
// CPU are of one core.
type Cell struct {
	Kind    Kind   `json:"kind"`
	To      Target `json:"to,omitempty"`
	Checked int    `json:"checked"` // backends
	Round   int    `json:"round"`

	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`    // all threads of weir
	Kernel  float64 `json:"kernel"` // part of CPU that was the kernel's, by the kernel's own estimate
	Waited  float64 `json:"waited"` // for a core, of the time: of all threads together, so it may be above 1
	Made    float64 `json:"made"`   // checks per second that a server has seen
	Served  served  `json:"served"` // in the window
	Up      int     `json:"up"`     // backends, after the window
	Passed  int     `json:"passed"` // those of them whose check says so
	Memory  uint64  `json:"memory"` // bytes of weir, resident, after the window
	Logged  int     `json:"logged"` // lines, in the window

	Config      int     `json:"config"`       // bytes of the file
	Ready       float64 `json:"ready"`        // seconds from weir's start until all backends were up
	StartCPU    float64 `json:"start_cpu"`    // seconds that weir ran for that
	StartLogged int     `json:"start_logged"` // lines until then
	Shown       float64 `json:"shown"`        // seconds that weir show backends took
}

// weirTime is what weir's threads have used so far.
type weirTime struct {
	threads map[int]measure.ThreadTime
	ticks   measure.Ticks
}

// readWeir reads the times of all threads of a process. The scheduler's account
// of a thread goes with the thread; Go keeps those that it has.
func readWeir(pid int) (t weirTime, err error) {
	t.threads = make(map[int]measure.ThreadTime)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return t, fmt.Errorf("list threads: %w", err)
	}
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return t, fmt.Errorf("list threads: %w", err)
		}
		one, err := measure.ReadThread(pid, tid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return t, err
		}
		t.threads[tid] = one
	}
	t.ticks, err = measure.ReadTicks(fmt.Sprintf("/proc/%d/stat", pid))
	return t, err
}

// since returns what the threads have used since before.
func (t weirTime) since(before weirTime) (sum measure.ThreadTime) {
	for tid, is := range t.threads {
		one := is.Since(before.threads[tid]) // zero for one that is new
		sum.Ran += one.Ran
		sum.Waited += one.Waited
	}
	return sum
}

// measure fills the cell.
func (c *Cell) measure(ctx context.Context, opt *Options) (err error) {
	r, err := newRig(ctx, opt, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.ready(ctx, opt.Backends, c.Checked); err != nil {
		return err
	}
	c.Ready = time.Since(r.started).Seconds()
	pid := r.weir.Process().PID()
	begun, err := readWeir(pid)
	if err != nil {
		return err
	}
	c.StartCPU = begun.since(weirTime{}).Ran.Seconds()
	c.StartLogged = lines(r.weir.Log())
	file, err := os.Stat(r.weir.ConfigPath)
	if err != nil {
		return err
	}
	c.Config = int(file.Size())
	if err := measure.Sleep(ctx, opt.WarmUp); err != nil {
		return err
	}
	if err := c.watch(ctx, opt, r, pid); err != nil {
		return err
	}
	if c.Up, c.Passed, err = r.up(ctx); err != nil {
		return err
	}
	start := time.Now()
	shown, err := r.weir.Run(ctx, "show", "backends")
	if err != nil {
		return fmt.Errorf("weir show backends: %w: %s", err, shown)
	}
	c.Shown = time.Since(start).Seconds()
	if n := strings.Count(shown, "\n    weight "); n != opt.Backends {
		return fmt.Errorf("weir show backends has %d backends of %d", n, opt.Backends)
	}
	return nil
}

// watch measures for a window in which nobody asks weir anything.
func (c *Cell) watch(ctx context.Context, opt *Options, r *rig, pid int) error {
	logged := lines(r.weir.Log())
	served := r.served()
	before, err := readWeir(pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := measure.Sleep(ctx, opt.Window); err != nil {
		return err
	}
	after, err := readWeir(pid)
	if err != nil {
		return err
	}
	c.Seconds = time.Since(start).Seconds()
	c.Served = r.served().since(served)
	c.Logged = lines(r.weir.Log()) - logged
	used := after.since(before)
	c.CPU = used.Ran.Seconds() / c.Seconds
	c.Kernel = c.CPU * (1 - after.ticks.Since(before.ticks).UserShare())
	c.Waited = used.Waited.Seconds() / c.Seconds
	c.Made = float64(c.made()) / c.Seconds
	c.Memory, err = measure.ResidentMemory(pid)
	return err
}

// made returns how many checks a server has seen as they are meant to be.
func (c *Cell) made() uint64 {
	switch {
	case c.Kind == HTTP:
		return c.Served.Answered
	case c.To == ToBackend:
		return c.Served.Own
	}
	return c.Served.VIP
}

func lines(text string) int {
	if text = strings.TrimSpace(text); text == "" {
		return 0
	}
	return strings.Count(text, "\n") + 1
}
