// Package generator makes traffic for measurements: UDP datagrams or TCP
// connection requests in frames of the least length, over a number of flows or,
// as a flood, each from a source of its own, as fast as one core can or at a
// given rate; and beside a flood the TCP connections that it is to harm.
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
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// The object does not depend on where the checkout is, see dataplane/steer.
//
//go:generate go tool bpf2go -target bpfel -no-global-types generator bpf/generator.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

const (
	// FrameLen is the length of every frame in bytes: the least that Ethernet
	// has, without the frame check sequence.
	FrameLen = 60

	// MaxFlows is how many flows there can be: all addresses of FlowSources,
	// each with 16384 source ports from 1024 on.
	MaxFlows = 1 << (17 + 14)
)

// Unlimited is the rate that is as fast as possible.
const Unlimited = math.MaxInt64

// FlowSources returns the addresses that flows come from, those that are for
// measurements (RFC 2544, appendix C.2.2).
func FlowSources() netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18}), 15) }

// Options says what to send and where. All of it is needed but what says
// otherwise.
type Options struct {
	Interface   int // index of the interface to send from; on a veth the other end needs GRO or an XDP program in the driver
	Source      net.HardwareAddr
	Destination net.HardwareAddr
	To          netip.AddrPort // IPv4
	SYN         bool           // optional: TCP connection requests, with pseudo-random sequence numbers, instead of UDP
	CPU         int            // that Run is pinned to

	// Flows is how many flows there are, at most MaxFlows; flow n has the n-th
	// source address and port. It is 0 for a flood.
	Flows uint32

	// Flood, instead of Flows, has every frame come from another address of
	// this IPv4 prefix and another port from 1024 on, both pseudo-random: the
	// same for the same Seed.
	Flood netip.Prefix
	Seed  uint64

	// Beside, optional with a Flood that has SYN, is how many TCP connections
	// to the same address and port there are beside it, from the sources of
	// Flows. They have a rate of their own, and go before the flood.
	Beside uint32
}

// Generator is one sender.
type Generator struct {
	cpu     int
	frame   []byte
	objects *ebpf.Collection
	thread  atomic.Int32 // that Run is on, zero before
}

// New puts the program into the kernel. Nothing is sent before Run, and then
// nothing until SetRate is called.
func New(opt Options) (*Generator, error) {
	frame, sums, err := opt.frame()
	if err != nil {
		return nil, fmt.Errorf("new generator: %w", err)
	}
	first, mask := opt.sources()
	_ = rlimit.RemoveMemlock() // counts only before Linux 5.11, where there are no live frames
	spec, err := loadGenerator()
	if err != nil {
		return nil, fmt.Errorf("new generator: read embedded BPF program: %w", err)
	}
	for _, v := range []struct {
		name  string
		value any
	}{
		{generatorVarTemplate, frame},
		{generatorVarIpSum, sums.ip},
		{generatorVarTransportSum, sums.transport},
		{generatorVarIfindex, uint32(opt.Interface)},
		{generatorVarFlows, opt.Flows},
		{generatorVarFirstSource, first},
		{generatorVarSourcesMask, mask},
		{generatorVarSeed, opt.Seed},
		{generatorVarInterval, interval(0)},
		{generatorVarBeside, opt.Beside},
		{generatorVarBesideInterval, interval(0)},
	} {
		if err := spec.Variables[v.name].Set(v.value); err != nil {
			return nil, fmt.Errorf("new generator: set %s: %w", v.name, err)
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("new generator: load BPF program (run as root): %w", err)
	}
	return &Generator{cpu: opt.CPU, frame: frame, objects: objects}, nil
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

// TCP control bits of connections beside a flood (RFC 9293, section 3.1).
const (
	Open        = 0x02 // SYN
	Acknowledge = 0x10 // ACK, with the sequence number that follows that of Open
)

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
func (g *Generator) Sent() (uint64, error) { return g.sent(main) }

// SentBeside returns how many frames of connections beside a flood were given
// to the interface so far.
func (g *Generator) SentBeside() (uint64, error) { return g.sent(beside) }

// Keys of the program's states.
const (
	main uint32 = iota
	beside
)

func (g *Generator) sent(key uint32) (uint64, error) {
	var perCPU []struct{ Sent, Next, Part uint64 }
	if err := g.objects.Maps[generatorMapStates].Lookup(key, &perCPU); err != nil {
		return 0, fmt.Errorf("read generator's counter: %w", err)
	}
	sum := uint64(0)
	for _, s := range perCPU {
		sum += s.Sent
	}
	return sum, nil
}

// Thread returns the id of the thread that sends, zero before Run.
func (g *Generator) Thread() int { return int(g.thread.Load()) }

// Run sends until ctx ends (nil). It is called once, in the network namespace
// of the interface, and takes the calling goroutine's thread with it.
func (g *Generator) Run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread's affinity is not for others
	var set unix.CPUSet
	set.Set(g.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run generator: pin to cpu %d: %w", g.cpu, err)
	}
	thread := unix.Gettid()
	g.thread.Store(int32(thread))
	ended := make(chan struct{})
	defer close(ended)
	defer context.AfterFunc(ctx, func() { interrupt(thread, ended) })()

	for ctx.Err() == nil {
		// Any signal to the process may end it early.
		if err := runLive(g.objects.Programs[generatorProgGenerate], g.frame); err != nil && !errors.Is(err, unix.EINTR) {
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
