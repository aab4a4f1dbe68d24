package ladder

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"weir/dataplane/flow"
	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/snapshot"
	"weir/perf/measure"
)

// Memory is what something takes, or how long it takes to build.
type Memory struct {
	What    string  `json:"what"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"` // of CPU time, to make it; 0 where that says nothing
}

const (
	million  = 1 << 20 // what is meant by a million flows
	thousand = 1000    // services
)

// memory measures what is said in bytes per million flows and per thousand
// services. It is not measured in rounds: bytes do not vary.
func (l *ladder) memory() ([]Memory, error) {
	var all []Memory
	for _, m := range []func() ([]Memory, error){l.flowMemory, l.snapshotMemory, l.maglevMemory} {
		some, err := m()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		debug.FreeOSMemory()
	}
	return all, nil
}

// flowMemory is what flows take, with four places in the table for each.
func (l *ladder) flowMemory() ([]Memory, error) {
	const entries = placesPerFlow * million
	var flows *flow.Table
	table, err := resident(func() (err error) {
		flows, err = flow.New(entries, flow.DefaultTimeouts())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer flows.Close()
	table.What = fmt.Sprintf("flow table with %d entries, for %d flows", entries, million)

	index, err := heap(func() (any, error) { return nat.NewIndex(entries), nil })
	if err != nil {
		return nil, err
	}
	index.What = "index of answers, with NAT, for the same"

	space := nat.NewSpace()
	snap, err := l.snapshot(NAT44, 1, usualBackends, space)
	if err != nil {
		return nil, err
	}
	all, err := adopting(snap, flows, space)
	all.What = "all that a worker allocates when NAT is used first, index included"
	return []Memory{table, index, all}, err
}

// snapshotMemory is what services take in a snapshot, and in a worker that has
// adopted it.
func (l *ladder) snapshotMemory() ([]Memory, error) {
	var all []Memory
	for _, backends := range []int{fewBackends, usualBackends} {
		if _, err := l.table(backends); err != nil { // it is not what is measured
			return nil, err
		}
		var snap *snapshot.Snapshot
		m, err := heap(func() (_ any, err error) {
			snap, err = l.snapshot(DSR4, thousand, backends, nil)
			return snap, err
		})
		if err != nil {
			return nil, err
		}
		m.What = fmt.Sprintf("snapshot of %d services, %d backends each, without Maglev tables", thousand, backends)

		flows, err := flow.New(8, flow.DefaultTimeouts())
		if err != nil {
			return nil, err
		}
		w, err := adopting(snap, flows, nat.NewSpace())
		if err := errors.Join(err, flows.Close()); err != nil {
			return nil, err
		}
		w.What = "what each worker has for these"
		all = append(all, m, w)
	}
	return all, nil
}

// maglevMemory is what a thousand services' tables take where each has backends of
// its own. So many are not built: one is a thousandth of them.
func (l *ladder) maglevMemory() ([]Memory, error) {
	m, err := heap(func() (any, error) { return maglev.Build(maglev.DefaultSize, members(0, usualBackends)) })
	m.What = fmt.Sprintf("Maglev table of %d backends, one for each set of backends and weights", usualBackends)
	return []Memory{m}, err
}

// adopting returns what a forwarder takes to work with a snapshot.
func adopting(snap *snapshot.Snapshot, flows *flow.Table, space *nat.Space) (Memory, error) {
	f, _, _ := newForwarder(flows, space)
	return heap(func() (any, error) {
		f.Adopt(snap)
		return f, nil
	})
}

// heap returns what is left on the heap of what build makes.
func heap(build func() (any, error)) (Memory, error) {
	end := quiet()
	before := heapInUse()
	start := threadTime()
	made, err := build()
	took := threadTime() - start
	end()
	runtime.GC()
	after := heapInUse()
	runtime.KeepAlive(made)
	return Memory{Bytes: after - before, Seconds: took.Seconds()}, err
}

func heapInUse() int64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// resident returns by how much the process grows in memory.
func resident(build func() error) (Memory, error) {
	debug.FreeOSMemory()
	before, err := measure.ResidentMemory(os.Getpid())
	if err != nil {
		return Memory{}, err
	}
	start := threadTime()
	if err := build(); err != nil {
		return Memory{}, err
	}
	took := threadTime() - start
	after, err := measure.ResidentMemory(os.Getpid())
	return Memory{Bytes: int64(after) - int64(before), Seconds: took.Seconds()}, err
}
