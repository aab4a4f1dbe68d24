package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"weir/perf/balancer"
	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
	"weir/perf/peers"
	"weir/perf/splice"
	"weir/perf/testbed"
	"weir/perf/world"
)

// errNotHere is in the error of a subject that this machine does not have.
var errNotHere = peers.ErrNotSupported

// start starts the subject in the rig.
func (s *Subject) start(ctx context.Context, opt *Options, r *rig, flows uint32) (running, error) {
	var run running
	var err error
	switch {
	case s.loop == loops.Testpmd:
		run, err = s.startTestpmd(ctx, opt, r)
	case s.loop != "":
		run, err = s.startLoop(opt, r)
	case s.mode != "":
		run, err = s.startBalancer(opt, r, flows)
	default:
		return s.startPeer(ctx, opt, r, flows)
	}
	if err != nil {
		return nil, err
	}
	if s.Driver != splice.AFXDP && !r.send {
		if err := r.ReceiveByNAPI(); err != nil {
			return nil, errors.Join(err, run.Close())
		}
	}
	return run, nil
}

// loop is a loop as a running subject.
type loop struct{ *loops.Process }

func (s *Subject) startLoop(opt *Options, r *rig) (running, error) {
	o := loops.Options{Kind: s.loop, Task: loops.Forward, Driver: s.Driver, Interface: testbed.FarName, CPU: opt.CPUs[1], Ring: opt.Ring}
	switch {
	case r.send:
		o.Task, o.Interface = loops.Send, blackHole
	case r.hole:
		o.Out = blackHole
	}
	p, err := loops.Start(r.Far, opt.Program, o)
	if err != nil {
		return nil, err
	}
	return loop{p}, nil
}

func (l loop) Work(func() (uint64, error)) (work, error) {
	t, err := l.Time()
	if err != nil {
		return work{}, err
	}
	s, err := l.Status()
	t.Ran = s.Ran // the scheduler's own is as of the last tick
	return work{t, s.Sent, true}, err
}

// Known implements running: a loop knows no flows.
func (loop) Known() (int, bool, error) { return 0, false, nil }

func (l loop) Received(context.Context) (uint64, error) {
	s, err := l.Status()
	return s.Received, err
}

func (l loop) Counters() (Counters, error) {
	s, err := l.Status()
	return Counters{Counters: s.Counters}, err
}

func (l loop) Stop() (c Counters, err error) {
	c.Counters, err = l.Process.Stop()
	return c, err
}

func (l loop) Close() error {
	_, err := l.Process.Stop()
	return err
}

// testpmd is DPDK's loop as a running subject. It counts nothing.
type testpmd struct{ *loops.Pmd }

func (s *Subject) startTestpmd(ctx context.Context, opt *Options, r *rig) (running, error) {
	p, err := loops.StartTestpmd(ctx, r.Far, loops.Options{Interface: testbed.FarName, CPU: opt.CPUs[1]})
	if errors.Is(err, loops.ErrNoTestpmd) {
		return nil, fmt.Errorf("%w: %w", errNotHere, err)
	}
	if err != nil {
		return nil, err
	}
	return testpmd{p}, nil
}

// Work implements running, as kernel does. The thread never sleeps, so all that it does
// is work only while there is too much of it.
func (t testpmd) Work(delivered func() (uint64, error)) (work, error) {
	return workOf(t.Pmd, false, delivered)
}

func (testpmd) Known() (int, bool, error) { return 0, false, nil }

// Received implements running: a thread that never sleeps has no frames left that it
// has not seen.
func (testpmd) Received(context.Context) (uint64, error) { return 0, nil }

func (testpmd) Counters() (Counters, error) { return Counters{}, nil }

func (t testpmd) Stop() (Counters, error) { return Counters{}, t.Close() }

// weir is a balancer as a running subject.
type weir struct{ *balancer.Process }

const (
	// minEntries is the default size of weir's flow table, and entriesPerFlow
	// makes room in it for all flows.
	minEntries     = 1 << 20
	entriesPerFlow = 4

	// flowsPerSNAT is how many flows there are for each SNAT address, half of
	// what it has ports for.
	flowsPerSNAT = 1 << 15
)

func (s *Subject) startBalancer(opt *Options, r *rig, flows uint32) (running, error) {
	o := balancer.Options{
		Mode: s.mode, IPv6: s.IPv6, Driver: s.Driver, Interface: testbed.FarName, Queues: s.queues, CPU: opt.CPUs[1],
		Entries: max(minEntries, entriesPerFlow*int(flows)), SNAT: 4 + int(flows)/flowsPerSNAT, Clients: generator.FlowSources(),
	}
	if s.collected {
		o.Collected = collectedHeap
	}
	if r.hole {
		o.Out = blackHole
	}
	p, err := balancer.Start(r.Far, opt.Program, o)
	if err != nil {
		return nil, err
	}
	return weir{p}, nil
}

func (w weir) Work(func() (uint64, error)) (work, error) {
	t, err := w.Time()
	if err != nil {
		return work{}, err
	}
	s, err := w.Status()
	t.Ran = s.Ran // the scheduler's own is as of the last tick
	return work{t, s.Sent, true}, err
}

func (w weir) Known() (int, bool, error) {
	s, err := w.Status()
	return s.Flows, true, err
}

func (w weir) Received(context.Context) (uint64, error) {
	s, err := w.Status()
	return s.Received, err
}

func (w weir) Counters() (Counters, error) {
	s, err := w.Status()
	c := Counters{Decided: s.Decided}
	c.Received, c.ReceiveDropped = s.Received, s.ReceiveDropped
	c.Sent, c.GivenUp, c.HandedOver = s.Sent, s.TransmitDropped, s.HandedOver
	for _, n := range s.Drops {
		c.Dropped += n
	}
	return c, err
}

// Stop implements running. Workers are asked one after the other, so it waits
// until none of them does anything any more.
func (w weir) Stop() (c Counters, err error) {
	err = measure.Settle(context.Background(), func() (Counters, error) {
		c, err = w.Counters()
		return c, err
	})
	return c, errors.Join(err, w.Process.Stop())
}

func (w weir) Close() error { return w.Process.Stop() }

// kernel is a peer as a running subject.
type kernel struct {
	*peers.Peer
	thread *testbed.Thread
	always bool // thread does all the work, and not only when there is too much for an interrupt
}

// minConntrack is the size of the conntrack table that the kernel chooses for a
// machine with some memory (nf_conntrack_init_start, net/netfilter/nf_conntrack_core.c).
const minConntrack = 1 << 18

func (s *Subject) startPeer(ctx context.Context, opt *Options, r *rig, flows uint32) (running, error) {
	o := peers.Options{Kind: s.peer, Interface: testbed.FarName, Out: r.out(), VIP: world.VIP(s.IPv6)}
	if s.peer == peers.NftDNAT && !s.asItComes {
		o.Conntrack = max(minConntrack, 2*int(flows))
	}
	for n := range world.Backends / 2 { // as many as weir uses
		addr, mac := world.Backend(n, s.IPv6)
		o.Backends = append(o.Backends, peers.Backend{Addr: addr, MAC: net.HardwareAddr(mac[:])})
	}
	p, err := peers.Start(r.Far, o)
	if err != nil {
		return nil, err
	}
	k := &kernel{Peer: p}
	if s.peer.Place() == peers.Stack {
		err = r.ReceiveByNAPI()
	}
	if err == nil && s.place == threaded {
		k.thread, err = r.ReceiveByThread(ctx, opt.CPUs[1])
		k.always = true
	} else if err == nil {
		k.thread, err = r.ReceiveOn(ctx, opt.CPUs[1])
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return k, nil
}

// Work implements running.
func (k *kernel) Work(delivered func() (uint64, error)) (work, error) {
	return workOf(k.thread, k.always, delivered)
}

// workOf is the work of a thread that does not count what it has sent. Reading time and
// counts takes a while if somebody else has the core of who reads, so the time is that in
// the middle of two.
func workOf(thread interface {
	Time() (measure.ThreadTime, error)
}, always bool, delivered func() (uint64, error)) (work, error) {
	before, err := thread.Time()
	if err != nil {
		return work{}, err
	}
	frames, err := delivered()
	if err != nil {
		return work{}, err
	}
	after, err := thread.Time()
	if err != nil {
		return work{}, err
	}
	spent := after.Since(before)
	return work{measure.ThreadTime{Ran: before.Ran + spent.Ran/2, Waited: before.Waited + spent.Waited/2}, frames, always}, nil
}

// Ticks implements running: nothing is done in user mode.
func (*kernel) Ticks() (measure.Ticks, error) { return measure.Ticks{}, nil }

// Memory implements running: it has no process.
func (*kernel) Memory() (uint64, error) { return 0, nil }

func (k *kernel) Known() (int, bool, error) { return k.Connections() }

func (k *kernel) Received(ctx context.Context) (uint64, error) { return 0, k.thread.Rest(ctx) }

// Counters implements running: the kernel has none for this.
func (*kernel) Counters() (Counters, error) { return Counters{}, nil }

func (k *kernel) Stop() (Counters, error) { return Counters{}, k.Close() }

// versions returns what there is in subjects that is not weir's.
func versions(all []Subject) (libraries []string) {
	if slices.ContainsFunc(all, func(s Subject) bool { return strings.HasPrefix(string(s.loop), string(loops.Asavie)) }) {
		libraries = append(libraries, fmt.Sprintf("github.com/asavie/xdp %s", loops.AsavieVersion))
	}
	if slices.ContainsFunc(all, func(s Subject) bool { return s.peer == peers.IPVS }) {
		if version, err := peers.IPVSVersion(); err == nil { // else who sets it up says why
			libraries = append(libraries, version)
		}
	}
	return libraries
}
