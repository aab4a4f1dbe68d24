package wire

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"weir/lab/labtest"
	"weir/perf/measure"
)

// openRig returns a rig with a subject at work in a scenario.
func openRig(t *testing.T, name string, scenario Scenario, flows uint32) *rig {
	t.Helper()
	labtest.NeedRoot(t)
	if err := measure.Alone(); err != nil {
		t.Fatal(err)
	}
	opt := Options{Subjects: []string{name}, Scenarios: []Scenario{scenario}, Flows: []uint32{flows}}
	if err := opt.complete(); err != nil {
		t.Skip(err) // one CPU
	}
	cells, err := opt.cells()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRig(t.Context(), &opt, &cells[0])
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// Whatever ends a measurement, the machine's table of connections is as it was.
func TestClose(t *testing.T) {
	const limit = "/proc/sys/net/netfilter/nf_conntrack_max"
	read := func() string {
		b, err := os.ReadFile(limit)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if _, err := os.Stat(limit); err != nil {
		openRig(t, NftDNAT, Core, 1) // the limit is there with the first connections
	}
	before := read()
	r := openRig(t, NftDNAT, Core, 1<<21)
	if read() == before {
		t.Fatalf("the limit is %s with 2 Mi flows as without", before)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := read(); after != before {
		t.Errorf("the limit is %s after the end, and was %s", after, before)
	}
}

// A subject that was stopped is not stopped again.
func TestCloseAfterStop(t *testing.T) {
	for _, name := range []string{"floor-afxdp", "weir-dsr", NftDNAT} {
		t.Run(name, func(t *testing.T) {
			r := openRig(t, name, Core, 1)
			if _, err := r.account(); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// It has not settled as long as the worker has frames and no core, however silent
// it is, and when it has, they are all received.
func TestSettle(t *testing.T) {
	const frames, longerThanQuiet = 100, 100 * time.Millisecond
	for _, name := range []string{"floor-afxdp", "weir-dsr"} {
		t.Run(name, func(t *testing.T) {
			r := openRig(t, name, Core, 16)
			child := map[string]func() *measure.Child{
				"floor-afxdp": func() *measure.Child { return r.running.(loop).Child },
				"weir-dsr":    func() *measure.Child { return r.running.(weir).Child },
			}[name]()
			if err := r.settle(t.Context()); err != nil { // it has started
				t.Fatal(err)
			}
			if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			settled := make(chan error, 1)
			go func() { settled <- r.offer(t.Context(), frames, slowestRate) }()
			select {
			case err := <-settled:
				t.Errorf("has settled while the worker was stopped: %v", err)
			case <-time.After(longerThanQuiet):
			}
			if err := child.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := <-settled; err != nil {
				t.Fatal(err)
			}
			sent, err := r.Source.Sent()
			if err != nil {
				t.Fatal(err)
			}
			received, err := r.running.Received(t.Context())
			if err != nil || received != sent || sent < frames {
				t.Errorf("%d frames were received of %d: %v", received, sent, err)
			}
		})
	}
}
