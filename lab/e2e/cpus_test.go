package e2e

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"weir/dataplane/affinity"
	"weir/lab/site"
)

// Nothing else of weir runs where a worker does, and a reload does not take the
// workers' CPUs for forbidden ones.
func TestWorkersHaveTheirCPUs(t *testing.T) {
	t.Parallel()
	cpus, err := affinity.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	if len(cpus) < 2 {
		t.Skip("there is one cpu only")
	}
	theirs := cpus[len(cpus)-1]
	s := startSite(t, site.Options{Backends: 1, Modes: site.DSR}, func(c *site.Config) {
		for i := range c.Interfaces {
			c.Interfaces[i].CPUs = []int{theirs}
		}
	})
	workers := 0
	for id, allowed := range s.threadsOfWeir() {
		switch {
		case !allowed.IsSet(theirs):
		case allowed.Count() == 1:
			workers++
		default:
			t.Errorf("thread %d may run on cpu %d, a worker's", id, theirs)
		}
	}
	if workers != 1 {
		t.Errorf("%d threads are pinned to cpu %d, want the worker's", workers, theirs)
	}
	s.reload(func(c *site.Config) { c.Service(site.DSR4).SetWeight(s.Backends[0].Addr4, 50) })
}

// threadsOfWeir returns where each of weir's threads may run.
func (s *testSite) threadsOfWeir() map[int]unix.CPUSet {
	s.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", s.Weir().PID()))
	s.must(err)
	all := make(map[int]unix.CPUSet)
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		s.must(err)
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(id, &set); errors.Is(err, unix.ESRCH) {
			continue // it has ended
		} else if err != nil {
			s.t.Fatal(err)
		}
		all[id] = set
	}
	return all
}
