// Package generator makes traffic for measurements: UDP datagrams, TCP segments
// or connection requests, over IPv4 or IPv6, in frames of a given length, as fast
// as one core can or at a given rate. They are of a number of flows, in turn or
// some more often than others, or a flood, each from a source of its own; and
// beside a flood are the TCP connections that it is to harm.
//
// The problem it solves: to overload a fast receiver takes a sender that is
// faster, and a program that writes to a socket is not. Here the sender is a
// BPF program that the kernel runs in a loop of its own on frames that it
// recycles (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES,
// Documentation/bpf/bpf_prog_run.rst, since Linux 5.18); each frame is redirected
// to an interface as if it had come in by another one. No sk_buff is made and
// no system call per frame.
//
// A run of that loop takes some 20 ms to end, so there is one run from the
// first frame to the last, and its rate is changed while it runs. The program
// keeps the pace itself: asked too early, it drops the frame it was given.
// Between frames it therefore keeps its core as busy as it does at full speed.
package generator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"

	"weir/dataplane/affinity"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// The object does not depend on where the checkout is, see dataplane/steer.
//
//go:generate go tool bpf2go -target bpfel -no-global-types generator bpf/generator.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Generator is one sender.
type Generator struct {
	cpu     int
	equal   bool // Options.Equal
	batch   int
	frame   []byte
	objects *ebpf.Collection
	thread  atomic.Int32 // that Run is on, zero before
}

// New puts the program into the kernel. Nothing is sent before Run, and then
// nothing until SetRate is called.
func New(opt Options) (*Generator, error) {
	if err := opt.check(); err != nil {
		return nil, fmt.Errorf("new generator: %w", err)
	}
	frameLen, err := opt.frameLen()
	if err != nil {
		return nil, fmt.Errorf("new generator: %w", err)
	}
	_ = rlimit.RemoveMemlock() // counts only before Linux 5.11, where there are no live frames
	spec, err := loadGenerator()
	if err != nil {
		return nil, fmt.Errorf("new generator: read embedded BPF program: %w", err)
	}
	frame, variables := opt.variables(frameLen)
	for name, value := range variables {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("new generator: set %s: %w", name, err)
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("new generator: load BPF program (run as root): %w", err)
	}
	return &Generator{cpu: opt.CPU, equal: opt.Equal, batch: opt.Batch, frame: frame, objects: objects}, nil
}

// variables returns a frame to begin with, and the program's variables.
func (opt *Options) variables(frameLen int) ([]byte, map[string]any) {
	sources, newSources := FlowSources(), OpeningSources()
	if opt.To.Addr().Is6() {
		sources, newSources = FlowSourcesIPv6(), OpeningSourcesIPv6()
	}
	kind, first, mask := opt.main(), sources.Addr(), uint32(0)
	if opt.Flood.IsValid() {
		first, mask = opt.Flood.Masked().Addr(), uint32(1<<(32-opt.Flood.Bits())-1)
	}
	frame, flow := opt.frame(kind, frameLen, first)
	_, beside := opt.frame(kind, frameLen, sources.Addr())
	flags := uint8(Acknowledge)
	if opt.SYN {
		flags = Open
	}
	v := map[string]any{
		generatorVarFlowHead:       flow,
		generatorVarBesideHead:     beside,
		generatorVarHeadLen:        uint32(opt.headLen()),
		generatorVarIpv6:           opt.To.Addr().Is6(),
		generatorVarTcp:            opt.SYN || opt.TCP,
		generatorVarFlowFlags:      flags,
		generatorVarIfindex:        uint32(opt.Interface),
		generatorVarFlows:          opt.Flows,
		generatorVarSourcesMask:    mask,
		generatorVarSequenceIsFlow: !opt.SYN,
		generatorVarSeed:           opt.Seed,
		generatorVarInterval:       interval(0),
		generatorVarBeside:         opt.Beside,
		generatorVarBesideInterval: interval(0),
		generatorVarOpenings:       uint64(opt.SYNShare * (1 << 32)),
		generatorVarFlowStampAt:    opt.stampAt(kind),
		generatorVarOpeningStampAt: opt.stampAt(opening()),
	}
	if opt.SYNShare > 0 {
		_, v[generatorVarOpeningHead] = opt.frame(opening(), frameLen, newSources.Addr())
	}
	if opt.Zipf > 0 {
		p := newPopularity(opt.Flows, opt.Zipf)
		v[generatorVarZipf] = uint32(len(p.slots))
		slots, bins := make([]slot, maxBins), make([]uint32, maxBins+1)
		copy(slots, p.slots)
		copy(bins, p.first)
		v[generatorVarSlots], v[generatorVarBins] = slots, bins
	}
	return frame, v
}

// SetRate changes how many frames to send per second: none for 0, as many as
// possible for [Unlimited]. It may be called at any time. It does not count for
// connections beside a flood.
func (g *Generator) SetRate(perSecond int) error {
	if err := g.objects.Variables[generatorVarInterval].Set(interval(perSecond)); err != nil {
		return fmt.Errorf("set rate: %w", err)
	}
	return nil
}

// TCP control bits (RFC 9293, section 3.1).
const (
	Open        = 0x02 // SYN
	Acknowledge = 0x10 // ACK, with the sequence number that follows that of Open
)

// SetFlags changes what the flows of Options.TCP send, Open or Acknowledge: who is to
// forward data may want to have seen that the connection was opened. An Open has the
// sequence number that data follow.
func (g *Generator) SetFlags(flags uint8) error {
	if err := g.objects.Variables[generatorVarFlowFlags].Set(flags); err != nil {
		return fmt.Errorf("set TCP control bits: %w", err)
	}
	return nil
}

// SetBeside changes what the connections beside a flood send, one after the
// other, Open or Acknowledge, and how many per second in all, as SetRate does.
func (g *Generator) SetBeside(flags uint8, perSecond int) error {
	for _, v := range []struct {
		name  string
		value any
	}{{generatorVarBesideFlags, flags}, {generatorVarBesideInterval, interval(perSecond)}} {
		if err := g.objects.Variables[v.name].Set(v.value); err != nil {
			return fmt.Errorf("set %s: %w", v.name, err)
		}
	}
	return nil
}

// interval is the program's form of a rate: nanoseconds, with 32 binary places.
func interval(perSecond int) uint64 {
	switch {
	case perSecond <= 0:
		return math.MaxUint64
	case perSecond == Unlimited:
		return 0
	}
	return uint64(1e9 * (1 << 32) / float64(perSecond))
}

// Sent returns how many frames were given to the interface so far, but for
// those of SentBeside. It may have refused some of them: a veth counts these as
// dropped on transmission.
func (g *Generator) Sent() (uint64, error) {
	o, err := g.Offered()
	return o.Frames, err
}

// Offered is what was given to the interface.
type Offered struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"` // of whole frames, without the frame check sequence

	// Openings is how many of the frames were connection requests because of
	// SYNShare.
	Openings uint64 `json:"openings"`
}

// Offered returns what Sent does, and more of it.
func (g *Generator) Offered() (Offered, error) {
	s, err := g.read(main)
	return Offered{Frames: s.Sent, Bytes: s.Sent * uint64(len(g.frame)), Openings: s.Opened}, err
}

// SentBeside returns how many frames of connections beside a flood were given
// to the interface so far.
func (g *Generator) SentBeside() (uint64, error) {
	s, err := g.read(beside)
	return s.Sent, err
}

// Keys of the program's states.
const (
	main uint32 = iota
	beside
)

// state is struct state in bpf/generator.c.
type state struct{ Sent, Opened, Next, Part, Turn uint64 }

// read returns the sums of counters over all CPUs.
func (g *Generator) read(key uint32) (sum state, err error) {
	var perCPU []state
	if err := g.objects.Maps[generatorMapStates].Lookup(key, &perCPU); err != nil {
		return state{}, fmt.Errorf("read generator's counter: %w", err)
	}
	for _, s := range perCPU {
		sum.Sent += s.Sent
		sum.Opened += s.Opened
	}
	return sum, nil
}

// leastUrgent is the nice value of those that everybody else goes before.
const leastUrgent = 19

// Thread returns the id of the thread that sends, zero before Run.
func (g *Generator) Thread() int { return int(g.thread.Load()) }

// Run sends until ctx ends (nil). It is called once, in the network namespace
// of the interface, and takes the calling goroutine's thread with it.
func (g *Generator) Run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread's affinity is not for others
	if err := affinity.Pin(g.cpu); err != nil {
		return fmt.Errorf("run generator: %w", err)
	}
	// It never sleeps. Whatever else wants this CPU has it first: the kernel's receiving
	// of the frames where that is a thread, and threads of what is measured.
	if !g.equal {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, leastUrgent); err != nil {
			return fmt.Errorf("run generator: %w", err)
		}
	}
	thread := unix.Gettid()
	g.thread.Store(int32(thread))
	ended := make(chan struct{})
	defer close(ended)
	defer context.AfterFunc(ctx, func() { interrupt(thread, ended) })()

	for ctx.Err() == nil {
		// Any signal to the process may end it early.
		if err := runLive(g.objects.Programs[generatorProgGenerate], g.frame, g.batch); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("run generator: BPF_PROG_TEST_RUN with live frames (needs Linux 5.18): %w", err)
		}
	}
	return nil
}

// Close gives up the program. It is called after Run has returned.
func (g *Generator) Close() error {
	g.objects.Close()
	return nil
}
