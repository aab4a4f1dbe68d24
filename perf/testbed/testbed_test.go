package testbed

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/perf/generator"
	"weir/perf/measure"
	"weir/perf/sink"
	"weir/perf/world"
)

func newBed(t *testing.T) *Bed {
	labtest.NeedRoot(t)
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.Cable(1); err != nil {
		t.Fatal(err)
	}
	return b
}

// What a thread receives is received by it: it runs while frames come, on the CPU
// that it was given. So it does with RPS, whose thread runs on that CPU anyway.
func TestReceive(t *testing.T) {
	setup := measure.Setup{}
	if err := setup.Complete(); err != nil {
		t.Skip(err) // one CPU
	}
	b := newBed(t)
	if err := b.ReceiveByNAPI(); err != nil {
		t.Fatal(err)
	}
	softirq, err := b.ReceiveOn(t.Context(), setup.CPUs[1])
	if err != nil {
		t.Fatal(err)
	}
	napi, err := b.ReceiveByThread(t.Context(), setup.CPUs[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range []*Thread{softirq, napi} {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(thread.pid, &set); err != nil {
			t.Fatal(err)
		}
		if set.Count() != 1 || !set.IsSet(setup.CPUs[1]) {
			t.Errorf("thread %d may run on %d CPUs, want CPU %d alone", thread.pid, set.Count(), setup.CPUs[1])
		}
	}
	err = b.OpenEnds(t.Context(), generator.Options{To: world.VIP(false), Flows: 1, CPU: setup.CPUs[0]}, sink.Options{})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := napi.Time()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Source.SetRate(10_000); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		after, err := napi.Time()
		if err != nil {
			t.Fatal(err)
		}
		if after.Since(before).Ran > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the thread has not run")
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // namespaces take their time to go
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", napi.pid)); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the thread is there after the end")
		}
	}
}

// A generator that has ended is an error to whoever waits for its frames.
func TestDeadGenerator(t *testing.T) {
	b := newBed(t)
	if err := b.ReceiveByNAPI(); err != nil {
		t.Fatal(err)
	}
	opt := generator.Options{To: world.VIP(false), Flows: 1}
	err := b.OpenEnds(t.Context(), opt, sink.Options{})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Offer(t.Context(), 10, 10_000, b.Source.Sent, b.Source.SetRate); err != nil {
		t.Errorf("offer by a living one: %v", err)
	}
	if sent, err := b.Source.Sent(); err != nil || sent < 10 {
		t.Errorf("%d frames were sent, want 10 or more: %v", sent, err)
	}
	b.stop()
	if err := b.Offer(t.Context(), 1<<60, generator.Unlimited, b.Source.Sent, b.Source.SetRate); err == nil {
		t.Error("a dead generator has sent all frames")
	}
	if b.Alive() == nil {
		t.Error("it is alive")
	}
}

// So is one that cannot run at all.
func TestNoGenerator(t *testing.T) {
	b := newBed(t)
	opt := generator.Options{To: world.VIP(false), Flows: 1, CPU: 1023} // the last one that Linux has a bit for
	err := b.OpenEnds(t.Context(), opt, sink.Options{})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err) // the sink needs TCX
	}
	if err == nil {
		t.Error("a generator runs on a CPU that there is not")
	}
	if b.Close() == nil { // all the same, everything is removed
		t.Error("no word of it in the end")
	}
}

func TestMask(t *testing.T) {
	for cpu, want := range map[int]string{
		0: "1", 1: "2", 5: "20", 31: "80000000", 32: "1,00000000", 63: "80000000,00000000", 64: "1,00000000,00000000", 70: "40,00000000,00000000",
	} {
		if got := mask(cpu); got != want {
			t.Errorf("cpu %d: %s, want %s", cpu, got, want)
		}
	}
}

// The hole takes what a program sends by it, and queues nothing.
func TestHole(t *testing.T) {
	b := newBed(t)
	if err := b.OpenHole("hole"); err != nil {
		t.Fatal(err)
	}
	if taken, err := b.Hole.Taken(); err != nil || taken != (sink.Tally{}) {
		t.Errorf("took %+v before anything was sent: %v", taken, err)
	}
	const frames, size = 3, 60
	err := b.Far.Do(func() error {
		link, err := netlink.LinkByName("hole")
		if err != nil {
			return err
		}
		all, err := netlink.QdiscList(link)
		if err != nil {
			return err
		}
		for _, q := range all {
			if q.Type() != "noqueue" {
				t.Errorf("it has the queueing discipline %s", q.Type())
			}
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range frames {
			if err := unix.Sendto(fd, make([]byte, size), 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if taken, err := b.Hole.Taken(); err != nil || taken != (sink.Tally{Packets: frames, Bytes: frames * size}) {
		t.Errorf("took %+v of %d frames: %v", taken, frames, err)
	}
}
