// Package loops is the same small program on different libraries: take a batch of
// frames from an interface, swap their MAC addresses, send them on.
//
// The problem it solves: to say what a library costs, everything else has to be
// the same. So the loops differ in nothing but the calls they make, and these
// are made as each library's documentation shows them. The loop on our own
// drivers is the floor under weir as well: what is not in it is weir's own work.
//
// All of them work on queue 0. On AF_XDP it is in copy mode, with the XDP program
// in the driver (generic on an interface without XDP of its own, when they only
// send), unless another driver is asked for.
package loops

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/affinity"
	"weir/perf/measure"
	"weir/perf/splice"
)

// Kind names a loop.
type Kind string

// The loops.
const (
	// Own is on the drivers of the data plane as weir opens them, with the
	// worker's batch.
	Own Kind = "own"

	// Asavie is the loop in the package documentation of
	// github.com/asavie/xdp v0.3.3.
	Asavie Kind = "asavie"

	// AsavieDrained is Asavie, which then calls Transmit with nothing until the
	// kernel has taken all frames: what a user can do about its single wake-up.
	AsavieDrained Kind = "asavie-drained"
)

// Kinds returns all loops.
func Kinds() []Kind { return []Kind{Own, Asavie, AsavieDrained} }

// Task is what a loop does.
type Task string

// The tasks.
const (
	Forward Task = "forward" // send back what comes in
	Send    Task = "send"    // send one frame, as often as possible
)

// Options says what to run, and on what.
type Options struct {
	Kind      Kind
	Task      Task
	Driver    splice.Driver // of Own; default AF_XDP in copy mode
	Interface string        // in the calling thread's network namespace
	Out       string        // to send by, for Own; default Interface
	CPU       int           // that the loop's thread is pinned to
	Ring      int           // entries of the rings that frames come in and go out by, of the others; a power of two of at least 64
}

// Counters counts frames.
type Counters struct {
	Received       uint64 `json:"received"`        // by the loop
	ReceiveDropped uint64 `json:"receive_dropped"` // by the kernel, which found no room in the rings
	Sent           uint64 `json:"sent"`            // handed to the kernel
	GivenUp        uint64 `json:"given_up"`        // by library or driver, for want of room

	// HandedOver, of a data plane in place of a loop, is frames that one of its
	// workers gave another.
	HandedOver uint64 `json:"handed_over,omitempty"`
}

// Status is what a loop has counted, and how long its thread has run for that.
type Status struct {
	Counters
	Ran time.Duration `json:"ran_ns"`
}

// sendLen is the length of the frames of [Send], in bytes.
const sendLen = 60

// idle is how long a loop sleeps at most without looking whether it is to end, or
// is asked.
const idle = 10 * time.Millisecond

// A loop is one library at work. None of its methods may run at the same time
// as another.
type loop interface {
	forward() error // one batch, or a sleep of at most idle
	send() error    // one batch
	taken() uint64  // frames received so far
	counters() (Counters, error)
	close() error
}

// Run opens the interface, calls ready with the id of its thread, and works
// until ctx ends. Between two batches it calls what comes by asked. It takes the
// calling goroutine's thread with it.
func Run(ctx context.Context, opt Options, ready func(thread int), asked <-chan func(Status)) (_ Counters, err error) {
	runtime.LockOSThread()          // never unlocked: the thread's affinity is not for others
	room, err := affinity.NewRoom() // the process has nothing else to do, as in the balancer
	if err == nil {
		_, err = room.Make([]int{opt.CPU})
	}
	if err != nil {
		return Counters{}, fmt.Errorf("run loop: %w", err)
	}
	unpin, err := room.Pin(opt.CPU)
	if err != nil {
		return Counters{}, fmt.Errorf("run loop: %w", err)
	}
	defer unpin()
	l, err := open(&opt)
	if err != nil {
		return Counters{}, fmt.Errorf("run loop %s: %w", opt.Kind, err)
	}
	defer func() { err = errors.Join(err, l.close()) }()
	turn := l.forward
	if opt.Task == Send {
		turn = l.send
	}

	var ended atomic.Bool
	defer context.AfterFunc(ctx, func() { ended.Store(true) })()
	ready(unix.Gettid())
	for {
		last, before := ended.Load(), l.taken()
		if err := turn(); err != nil {
			return Counters{}, fmt.Errorf("run loop %s: %w", opt.Kind, err)
		}
		if last && l.taken() == before { // what had come before the end is worked
			return l.counters()
		}
		select {
		case answer := <-asked:
			s, err := status(l)
			if err != nil {
				return Counters{}, fmt.Errorf("run loop %s: %w", opt.Kind, err)
			}
			answer(s)
		default:
		}
	}
}

func status(l loop) (s Status, err error) {
	if s.Counters, err = l.counters(); err != nil {
		return s, err
	}
	s.Ran, err = measure.OwnTime()
	return s, err
}

func open(opt *Options) (loop, error) {
	if !slices.Contains([]Task{Forward, Send}, opt.Task) {
		return nil, fmt.Errorf("no task %q", opt.Task)
	}
	switch opt.Kind {
	case Own:
		return openOwn(opt)
	case Asavie, AsavieDrained:
		if opt.Out != "" || opt.Driver != "" && opt.Driver != splice.AFXDP {
			return nil, errors.New("this loop has one interface, and AF_XDP in copy mode")
		}
		return openAsavie(opt)
	}
	return nil, fmt.Errorf("no such loop: there are %v", Kinds())
}

// swap exchanges the MAC addresses of an Ethernet frame.
func swap(frame []byte) {
	if len(frame) < 12 {
		return
	}
	var destination [6]byte
	copy(destination[:], frame)
	copy(frame[:6], frame[6:12])
	copy(frame[6:12], destination[:])
}
