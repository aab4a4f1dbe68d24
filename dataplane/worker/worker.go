// Package worker is the loop that moves frames: it takes a batch from its NIC
// queue, has package forward decide, and sends.
//
// The problem it solves: to keep one core busy with nothing but packets. A
// worker is one goroutine locked to one thread, pinned to one CPU, and sole
// owner of its queue, its flow table and its counters. Everything that others
// want of it (counters, a list of flows) it does itself, between two batches,
// when asked by Do.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"weir/dataplane/affinity"
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

const (
	// sweepPeriod is how long a sweep over the whole flow table takes.
	sweepPeriod = 8 * flow.TicksPerSecond

	// sweepSets is how many sets are swept in a turn: so few that it takes no longer
	// than a batch does, even if all flows in them are over.
	sweepSets = 32

	// pause is how long a turn takes that is counted in stats.Counters.Pauses.
	pause = time.Millisecond

	// A worker without work still wakes up this often, to let idle flows go
	// and to show that it is alive.
	idleWait = 250 * time.Millisecond
)

// ErrStopped is returned by Do when the worker does not run any more.
var ErrStopped = errors.New("worker stopped")

// Config is what a worker is made of. The worker owns Queue and Flows while it
// runs, and closes neither.
type Config struct {
	Number    uint16         // the worker's own among all that run at the same time
	Interface uint16         // index into Snapshot.Interfaces of the NIC it works
	Index     int            // number of the queue on that NIC
	CPU       int            // to pin to; negative for none
	Room      *affinity.Room // keeps others off CPU; may be nil
	Queue     queue.Queue
	Flows     *flow.Table
	Space     *nat.Space                         // which worker has which SNAT ports
	PathMTU   chan<- PathMTU                     // what is learned; dropped if there is no room
	Claims    chan<- Claim                       // of weir's addresses by other stations; dropped if there is no room
	Snapshot  *atomic.Pointer[snapshot.Snapshot] // swapped by the engine; never holds nil once the worker runs
	Log       *slog.Logger
}

// PathMTU is what a packet-too-big message said about weir's own packets.
type PathMTU struct {
	Backend netip.Addr
	MTU     int // largest IP packet in bytes that reaches it, outer header included
}

// Claim is what another station has said of one of weir's addresses by ARP or
// NDP. Of many like it, few are told.
type Claim struct {
	Address   netip.Addr
	MAC       packet.MAC // the station's: by ARP the one it names, by NDP the one it sends from
	Interface string     // on whose link it is
	Probe     bool       // it asks whether it may have the address (RFC 5227, RFC 4862 section 5.4); else it has it
}

// Peer is a worker as another one sees it.
type Peer struct {
	Ring *handover.Ring // to it; the seeing worker pushes
	To   *Worker        // woken after pushing
}

// Peers is what a worker knows of the workers there are. It is made by the
// engine whenever that changes, and never changed afterwards.
type Peers struct {
	All     []Peer           // all workers, this one too, in the same order for each of them
	Egress  []int            // by interface index: which of All sends for this worker; -1 for none
	Inbound []*handover.Ring // this worker pops
}

// Worker works one queue. Make one by New, start it by Run.
type Worker struct {
	cfg      Config
	counters stats.Counters
	forward  *forward.Forwarder
	snap     *snapshot.Snapshot // the one adopted last
	peers    *Peers             // adopted last

	connected atomic.Pointer[Peers] // written by the engine

	requests chan request
	stopping atomic.Bool
	sleeping atomic.Bool // set before looking for work one last time and sleeping
	stopped  chan struct{}

	start   time.Time
	lastDue flow.Tick     // up to when sets of the flow table have become due for sweeping
	owed    uint64        // sets that are due
	turned  time.Duration // since start, when the last turn was over, or sleeping after it

	frames   [forward.BatchSize]queue.Frame
	verdicts [forward.BatchSize]forward.Verdict
	send     [forward.BatchSize]queue.Frame
	discard  [forward.BatchSize]queue.Frame
	metas    [forward.BatchSize]handover.Meta // of frames to decide about
	long     longFrame
	wake     []bool // by index in peers.All: frames were pushed for it in this batch

	turns atomic.Uint32 // written by the worker; far from what other workers read
}

// longFrame is a frame longer than the queue's buffers, in memory of the
// worker's own, and what is known and decided about it.
type longFrame struct {
	frame   [1]queue.Frame
	meta    [1]handover.Meta
	verdict [1]forward.Verdict
	memory  [queue.Headroom + handover.MaxFrame]byte
}

type request struct {
	do   func()
	done chan struct{}
}

// New makes a worker, which knows no other; it starts nothing.
func New(cfg Config) *Worker {
	w := &Worker{
		cfg:      cfg,
		requests: make(chan request, 16),
		stopped:  make(chan struct{}),
		start:    time.Now(),
	}
	w.forward = forward.New(forward.Config{
		Worker: cfg.Number, Flows: cfg.Flows, Space: cfg.Space, Counters: &w.counters, Outbox: (*outbox)(w),
	})
	own := handover.NewRing()
	w.connected.Store(&Peers{All: []Peer{{own, w}}, Inbound: []*handover.Ring{own}})
	return w
}

// Connect tells the worker which workers there are. Any goroutine may call it
// at any time.
func (w *Worker) Connect(peers *Peers) {
	w.connected.Store(peers)
	w.cfg.Queue.Wake()
}

// Run works the queue until ctx ends (nil), the queue is gone (an error that
// wraps queue.ErrGone) or it fails. It takes the calling goroutine's thread
// with it. It is called once.
func (w *Worker) Run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread's affinity is not for others
	defer close(w.stopped)
	if w.cfg.CPU >= 0 {
		unpin, err := w.cfg.Room.Pin(w.cfg.CPU)
		if err != nil {
			w.cfg.Log.Warn("worker is not pinned", "cpu", w.cfg.CPU, "error", err)
		}
		defer unpin()
	}
	defer context.AfterFunc(ctx, func() {
		w.stopping.Store(true)
		w.cfg.Queue.Wake()
	})()
	w.turned = time.Since(w.start)
	for turn := uint32(1); !w.stopping.Load(); turn++ {
		w.turns.Store(turn)
		if err := w.turn(); err != nil {
			return fmt.Errorf("work queue %d: %w", w.cfg.Index, err)
		}
	}
	return nil
}

// turn does one batch of everything there is to do, and sleeps if there is
// nothing.
func (w *Worker) turn() error {
	w.adopt()
	received, err := w.receive()
	if err != nil {
		return err
	}
	inbound, err := w.receiveInbound()
	if err != nil {
		return err
	}
	served := w.serve()
	sweeping := w.sweep()
	if received+inbound > 0 || served || sweeping {
		return nil
	}
	err = w.sleep()
	w.turned = time.Since(w.start)
	return err
}

// sleep waits for a frame, a hand-over or a request. The flag is set before
// the last look, so whoever adds work after it sees the flag and wakes.
func (w *Worker) sleep() error {
	w.sleeping.Store(true)
	defer w.sleeping.Store(false)
	if w.stopping.Load() || len(w.requests) > 0 || w.inboundLen() > 0 {
		return nil
	}
	err := w.cfg.Queue.Wait(idleWait)
	w.counters.Wakeups++
	return err
}

// adopt takes over what has changed around the worker.
func (w *Worker) adopt() {
	if snap := w.cfg.Snapshot.Load(); snap != w.snap && snap != nil {
		w.snap = snap
		w.forward.Adopt(snap)
	}
	if peers := w.connected.Load(); peers != w.peers {
		w.peers = peers
		w.wake = make([]bool, len(peers.All))
		numbers := make([]uint16, len(peers.All))
		for i, p := range peers.All {
			numbers[i] = p.To.cfg.Number
		}
		w.forward.SetPeers(numbers)
	}
}

func (w *Worker) receive() (int, error) {
	n, err := w.cfg.Queue.Receive(w.frames[:])
	if n == 0 || err != nil {
		return 0, err
	}
	frames := w.frames[:n]
	w.counters.Received.Packets += uint64(n)
	w.counters.Received.Bytes += length(frames)
	w.forward.Process(w.cfg.Interface, w.now(), frames, w.verdicts[:])
	return n, w.dispatch(frames)
}

// dispatch sends, hands over or gives back each frame as its verdict says.
func (w *Worker) dispatch(frames []queue.Frame) error {
	if w.allSend(len(frames)) {
		w.wakeOthers() // what came in addition may have gone to them
		return w.transmit(frames)
	}
	var sends, discards int
	for i := range frames {
		v := &w.verdicts[i]
		if v.Action == forward.Send && v.Egress == w.cfg.Interface {
			w.send[sends] = frames[i]
			sends++
			continue
		}
		if v.Action == forward.Send {
			(*outbox)(w).Emit(v.Egress, frames[i].Bytes())
		}
		w.discard[discards] = frames[i]
		discards++
	}
	w.wakeOthers()
	if discards > 0 {
		w.cfg.Queue.Release(w.discard[:discards])
	}
	return w.transmit(w.send[:sends])
}

// allSend tells whether all of so many frames are sent by the worker's own queue,
// as usual: they need no sorting then.
func (w *Worker) allSend(n int) bool {
	for i := range w.verdicts[:n] {
		if v := &w.verdicts[i]; v.Action != forward.Send || v.Egress != w.cfg.Interface {
			return false
		}
	}
	return true
}

// length returns how many bytes frames are in all.
func length(frames []queue.Frame) (bytes uint64) {
	for i := range frames {
		bytes += uint64(frames[i].End - frames[i].Start)
	}
	return bytes
}

// wakeOthers wakes the workers that were handed something, if they sleep.
func (w *Worker) wakeOthers() {
	for i, due := range w.wake {
		if !due {
			continue
		}
		w.wake[i] = false
		if to := w.peers.All[i].To; to.sleeping.Load() {
			to.cfg.Queue.Wake()
		}
	}
}

// receiveInbound takes up to a batch from each ring: frames to be sent, and
// frames to be decided about here.
func (w *Worker) receiveInbound() (int, error) {
	total := 0
	for _, ring := range w.peers.Inbound {
		n := min(ring.Len(), len(w.frames))
		if n == 0 {
			continue
		}
		total += n
		if err := w.take(ring, n); err != nil {
			return total, err
		}
	}
	return total, nil
}

// take works the n oldest frames of a ring, at most a batch.
func (w *Worker) take(ring *handover.Ring, n int) error {
	got := w.cfg.Queue.Alloc(w.frames[:n])
	var sends, decides int
	for i := range got {
		f := w.frames[i]
		meta, size := ring.Next()
		if size > len(f.Buf[f.Start:]) {
			w.cfg.Queue.Release(w.frames[i : i+1])
			w.takeLong(ring, meta)
			continue
		}
		f.End = f.Start + uint32(ring.Pop(f.Buf[f.Start:]))
		if meta.Task == handover.Send {
			w.send[sends] = f
			sends++
		} else { // decides <= i: this one has been read
			w.frames[decides], w.metas[decides] = f, meta
			decides++
		}
	}
	for range n - got { // the queue has no buffers; a frame that waits for one is of no use to anybody
		ring.Pop(nil)
		w.counters.Drop(stats.TransmitFull)
	}
	if err := w.transmit(w.send[:sends]); err != nil || decides == 0 {
		return err
	}
	w.forward.Decide(w.metas[:decides], w.now(), w.frames[:decides], w.verdicts[:])
	return w.dispatch(w.frames[:decides])
}

// takeLong works the oldest frame of a ring, which came in on an interface with
// a larger MTU and fits no buffer of this worker's queue. What becomes of it (its
// pieces, an answer to its sender, the frame itself if it leaves where it came
// from) goes by a ring. As it is it cannot leave by this worker's interface.
func (w *Worker) takeLong(ring *handover.Ring, meta handover.Meta) {
	l := &w.long
	size := ring.Pop(l.memory[queue.Headroom:])
	if meta.Task == handover.Send {
		w.counters.Drop(stats.TooBig)
		return
	}
	l.frame[0] = queue.Frame{Buf: l.memory[:], Start: queue.Headroom, End: queue.Headroom + uint32(size)}
	l.meta[0] = meta
	w.forward.Decide(l.meta[:], w.now(), l.frame[:], l.verdict[:])
	if v := &l.verdict[0]; v.Action == forward.Send {
		(*outbox)(w).Emit(v.Egress, l.frame[0].Bytes())
	}
	w.wakeOthers()
}

func (w *Worker) inboundLen() int {
	n := 0
	for _, ring := range w.connected.Load().Inbound {
		n += ring.Len()
	}
	return n
}

func (w *Worker) transmit(frames []queue.Frame) error {
	if len(frames) == 0 {
		return nil
	}
	bytes := length(frames)
	n, err := w.cfg.Queue.Send(frames)
	if err != nil {
		return err
	}
	if n < len(frames) {
		w.counters.Drops[stats.TransmitFull] += uint64(len(frames) - n)
		bytes = bytes * uint64(n) / uint64(len(frames)) // which ones were given up is the driver's secret
	}
	w.counters.Transmitted.Packets += uint64(n)
	w.counters.Transmitted.Bytes += bytes
	return nil
}

// sweep lets idle flows go, so many sets at a time that the whole table is visited
// once every sweepPeriod, and tells whether more sets are due. It ends the turn.
func (w *Worker) sweep() (more bool) {
	elapsed := time.Since(w.start)
	w.counters.Turn(elapsed-w.turned, pause)
	w.turned = elapsed
	now := flow.TickAt(elapsed)
	if due := uint64(uint32(now - w.lastDue)); due > 0 {
		w.lastDue = now
		sets := uint64(w.cfg.Flows.Sets())
		w.owed = min(w.owed+(sets*due+sweepPeriod-1)/sweepPeriod, sets)
	}
	if w.owed == 0 {
		return false
	}
	n := min(w.owed, sweepSets)
	w.owed -= n
	w.forward.Sweep(now, int(n))
	return w.owed > 0
}

// now is read once or twice per batch, never per packet.
func (w *Worker) now() flow.Tick {
	return flow.TickAt(time.Since(w.start))
}
