package wire

import (
	"context"
	"errors"
	"fmt"

	"weir/perf/generator"
	"weir/perf/loops"
	"weir/perf/measure"
	"weir/perf/peers"
	"weir/perf/sink"
	"weir/perf/testbed"
	"weir/perf/world"
)

// blackHole is the name of the interface that drops everything.
const blackHole = "hole"

// A rig is one subject at work at the far end of a wire. What it sends goes back
// over the wire to the sink, or into the black hole.
type rig struct {
	*testbed.Bed
	subject *Subject
	tcp     bool    // segments are sent, not datagrams
	opens   bool    // connections are opened before data are sent
	hole    bool    // frames go into the black hole
	send    bool    // and there is no wire, and no generator
	running running // nil before it was started, and after it was stopped
}

// running is a subject that has been started.
type running interface {
	// Work returns what has been done so far. delivered counts frames for one that
	// does not count them itself.
	Work(delivered func() (uint64, error)) (work, error)

	// Ticks returns how that time divides, zero of all of it in the kernel.
	Ticks() (measure.Ticks, error)

	// Known returns how many flows it knows, and false if it does its work
	// without knowing any.
	Known() (n int, ok bool, err error)

	// Memory returns how many bytes of its process are in memory, zero without
	// one.
	Memory() (uint64, error)

	// Received returns how many frames it has received, as soon as it has had its
	// core since it was asked: one that does not get its core has frames, and is as
	// silent as one that has none. It waits until one in the kernel, which does not
	// count, has nothing to do any more.
	Received(ctx context.Context) (uint64, error)

	// Counters returns what it has counted so far.
	Counters() (Counters, error)

	// Stop ends it and returns what it has counted. Either this or Close is called,
	// once.
	Stop() (Counters, error)

	// Close ends it, in whatever state it is.
	Close() error
}

// work is how long the thread has run that does the work, and how many frames it
// had sent by then. Both are of one moment, or there would be time without frames
// or frames without time in every measurement.
type work struct {
	measure.ThreadTime
	frames uint64
	always bool // the thread does all of it, and not only while its core is busy all the time
}

// since returns what was added since before.
func (w work) since(before work) work {
	return work{w.ThreadTime.Since(before.ThreadTime), w.frames - before.frames, w.always}
}

// Counters is what a subject has counted of its frames. It is all zero of one in
// the kernel.
type Counters struct {
	loops.Counters
	Dropped uint64 `json:"dropped,omitempty"` // by weir, for whatever reason
	Decided uint64 `json:"decided,omitempty"` // packets whose flow weir did not know
}

func newRig(ctx context.Context, opt *Options, cell *Cell) (_ *rig, err error) {
	bed, err := testbed.New()
	if err != nil {
		return nil, err
	}
	s := cell.subject
	r := &rig{Bed: bed, subject: s, hole: cell.Cores.Sink < 0, send: cell.Scenario == Send, tcp: opt.TCP, opens: opt.TCP && s.wantsOpening()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := r.KeepAwake(opt.CPUs[1]); err != nil { // the generator keeps the other one awake
		return nil, err
	}
	if !r.send {
		if err := r.Cable(max(s.queues, 1)); err != nil {
			return nil, err
		}
	}
	if r.hole {
		if err := r.OpenHole(blackHole); err != nil {
			return nil, err
		}
	}
	if r.running, err = s.start(ctx, opt, r, cell.Flows); err != nil || r.send {
		return r, err
	}
	traffic := generator.Options{
		To: world.VIP(s.IPv6), TCP: opt.TCP, Flows: cell.Flows, Zipf: opt.Zipf, FrameLen: opt.FrameLen, CPU: opt.CPUs[0], Seed: opt.Seed,
	}
	look := sink.Options{Verify: opt.Verify, Destination: s.destination()}
	traffic.Equal = s.collected // the collector has that CPU, and leaves nothing
	if cell.Scenario == Latency {
		traffic.Stamp, traffic.Batch, look.Latency = true, latencyBatch, true
	}
	if s.peer != "" && s.peer.Place() == peers.Driver {
		look.Hook = sink.XDP // what is sent without an sk_buff is taken without one
	}
	return r, r.OpenEnds(ctx, traffic, look)
}

// Close ends the subject, unless it has been stopped, and removes everything: what
// a peer has set for the whole machine is to be set back on any way out. It may
// be called twice.
func (r *rig) Close() error {
	var err error
	if r.running != nil {
		err = r.running.Close()
		r.running = nil
	}
	return errors.Join(err, r.Bed.Close())
}

// out is the interface that the subject sends by.
func (r *rig) out() string {
	if r.hole {
		return blackHole
	}
	return testbed.FarName
}

// passed is how many frames were offered and delivered so far.
type passed struct{ offered, delivered uint64 }

func (r *rig) counts() (p passed, err error) {
	if !r.send {
		if p.offered, err = r.Source.Sent(); err != nil {
			return p, err
		}
	}
	p.delivered, err = r.delivered()
	return p, err
}

func (r *rig) delivered() (uint64, error) {
	if r.hole {
		taken, err := r.Hole.Taken()
		return taken.Packets, err
	}
	arrived, err := r.Sink.Arrived()
	return arrived.Datagrams + arrived.Openings + arrived.Segments, err
}

// Having all flows known. Few packets are lost at the first rate on a quiet
// machine; where more are, it is lowered, and there are as many tries. Where a
// hash has too many flows in the same place of a table, they push each other out,
// and a few are always unknown, which shows in Cell.Known and Cell.Unknown.
const (
	prepareRate  = 400_000 // packets per second
	slowestRate  = 25_000
	prepareTries = 20
	prepareBlind = 5 // of a subject that knows no flows, which may lose at any rate, or may have no room for all
	prepareRare  = 4
	homeless     = 0.001 // share of the flows
)

// Having all connections opened. Who finds no room for one is asked again; at half the
// rate, since nothing is lowered here if packets are lost.
const (
	openings = 2
	openRate = prepareRate / 2
)

// prepare has each flow send a packet, until the subject knows them all, but for
// homeless ones. Of one that knows no flows, it is seen by what arrives. Where some
// flows are rare, not each does: then many packets are sent, and those that are
// still unknown stay so.
func (r *rig) prepare(ctx context.Context, flows uint32, rare bool) error {
	if r.send {
		return nil
	}
	if r.opens {
		if err := r.open(ctx, flows); err != nil {
			return err
		}
	}
	if rare {
		return r.offer(ctx, prepareRare*uint64(flows), prepareRate)
	}
	mayMiss := r.subject.asItComes // also if it tells what it knows
	known, rate := 0, prepareRate
	for try := range prepareTries {
		before, err := r.counts()
		if err != nil {
			return err
		}
		if err := r.offer(ctx, uint64(flows), rate); err != nil {
			return err
		}
		after, err := r.counts()
		if err != nil {
			return err
		}
		n, ok, err := r.running.Known()
		if err != nil {
			return err
		}
		if !ok {
			n, known, mayMiss = int(after.delivered-before.delivered), 0, true
		}
		if float64(n) >= (1-homeless)*float64(flows) || mayMiss && try+1 == prepareBlind {
			return nil
		}
		if missing := int(flows) - known; n-known < missing/2 {
			rate = max(rate/2, slowestRate)
		}
		known = n
	}
	return fmt.Errorf("only %d of %d flows are known after %d packets each: most are lost, or there is no room", known, flows, prepareTries)
}

// open has each flow ask for a connection, more than once, as its segments alone would
// not open one. Those of a flow that finds no room are dropped later, or answered with
// a reset, which shows in the account.
func (r *rig) open(ctx context.Context, flows uint32) error {
	if err := r.Source.SetFlags(generator.Open); err != nil {
		return err
	}
	for range openings {
		if err := r.offer(ctx, uint64(flows), openRate); err != nil {
			return err
		}
	}
	return r.Source.SetFlags(generator.Acknowledge)
}

// offer has the generator send so many packets, and waits for the last of them.
func (r *rig) offer(ctx context.Context, packets uint64, rate int) error {
	if err := r.Offer(ctx, packets, rate, r.Source.Sent, r.Source.SetRate); err != nil {
		return err
	}
	return r.settle(ctx)
}

// settle waits until no frame is on its way any more, nor in any of the subject's
// rings.
func (r *rig) settle(ctx context.Context) error {
	type moved struct {
		passed
		received uint64
	}
	return measure.Settle(ctx, func() (m moved, err error) {
		if m.received, err = r.running.Received(ctx); err != nil {
			return m, err
		}
		m.passed, err = r.counts()
		return m, err
	})
}
