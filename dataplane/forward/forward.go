// Package forward decides what becomes of each frame: frame, snapshot and flow
// table in, verdict out, with the frame rewritten in place. It does no I/O.
//
// The problem it solves: one place, free of sockets and time, that can be
// tested frame by frame and fuzzed, and that the worker drives in batches, so
// that the cache misses of a batch's flow look-ups overlap.
//
// A batch goes through three passes. The first parses each frame. Of a whole TCP or
// UDP packet it takes the hash, and everything else it classifies (classify.go):
// a fragment of a packet for a service or of an answer that NAT has to take back, or
// something that is answered or refused right away (answer.go, refusal.go). The
// second looks up the flows of packets that go to a service, and the third, where
// there is NAT, those of what may be an answer; the packets of flows that are known
// are rewritten. A flow is known if it was found to be right since the last snapshot
// was adopted: whose VIP and port it is, that its backend may have it, and that
// nothing limits the service. So nearly all packets need nothing of the snapshot, or
// their backend alone. The others are classified, and get a new flow or find that
// theirs still holds (flow.go). What is rare and slow is in files of its own:
// fragment.go, icmp.go, and toobig.go. Where several nodes share a VIP, spread.go
// says which packets are another node's.
package forward

import (
	"slices"

	"weir/dataplane/flow"
	"weir/dataplane/fragment"
	"weir/dataplane/handover"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/refuse"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// BatchSize is the largest number of frames that Process takes at once: enough
// to hide cache misses, few enough that the scratch space stays in the
// innermost cache.
const BatchSize = 64

// Action says what the worker does with a frame.
type Action uint8

const (
	Drop  Action = iota // give the buffer back
	Send                // send the frame by Verdict.Egress
	Taken               // give the buffer back: what was in it went by the Outbox, or waits
)

// Verdict is what Process decided about one frame.
type Verdict struct {
	Action Action
	Reason stats.Reason // why it is dropped
	Egress uint16       // index into Snapshot.Interfaces of where it leaves
}

// Outbox is the way for what does not leave as the verdict on a frame. Frames
// are copied, and counted as dropped if there is no room for them.
type Outbox interface {
	// Pass gives a frame to the worker with an index in the list that SetPeers
	// was given last, this one perhaps, to decide about it.
	Pass(peer int, frame []byte, meta handover.Meta)

	// Learn tells the control plane the longest IP packet in bytes that
	// reaches a backend, the headers that weir puts before it included.
	Learn(backend [16]byte, mtu int)

	// Claim tells the control plane that another station takes one of weir's
	// addresses (IPv4-mapped for IPv4) for its own, or with probe that it asks
	// whether it may. What is told is within a rate.
	Claim(addr [16]byte, by packet.MAC, probe bool)
}

// Config is what a Forwarder is made of.
type Config struct {
	Worker   uint16      // the worker's number
	Flows    *flow.Table // owned by the Forwarder from now on
	Space    *nat.Space
	Counters *stats.Counters // written by the Forwarder
	Outbox   Outbox
}

// Forwarder decides for one worker. It owns the worker's flow table and writes
// its counters; only that worker's goroutine calls it.
type Forwarder struct {
	worker   uint16
	flows    *flow.Table
	counters *stats.Counters
	outbox   Outbox
	expired  func(*flow.Entry) // f.expire, bound once so that Sweep does not allocate

	snap     *snapshot.Snapshot // the one in use since the last Adopt
	peers    []uint16           // numbers of all workers
	index    []int              // in peers, by number; -1 for none
	self     int                // index of this one's in peers
	now      flow.Tick          // of the batch in hand
	stations []uint64           // by interface: see forUs
	targets  []target           // by backend slot
	mark     uint32             // of flows that were found to be right; never 0, and another one when what they depend on may have changed

	nat       natState
	fragments *fragment.Table
	refusals  *refuse.Limiter // of what weir answers instead of forwarding
	pathMTUs  *refuse.Limiter // the same, of what tells a sender the MTU: nothing else may use that up
	relays    *refuse.Limiter // of ICMP errors passed on
	asks      limit.Bucket    // questions to the other workers
	claims    claims          // told to the control plane
	guards    guards

	batch   batch
	piece   [handover.MaxFrame]byte
	many    int    // backends from which on they are read ahead
	touched uint64 // where first and prefetchBackends leave what they have read
}

// target is all that a packet of a known flow reads and writes of its backend in mode dsr,
// in half a cache line, so that it fits into the caches for many backends.
type target struct {
	direct rewrite.Direct // for the flows that are plain; others may find an old one here
	sent   stats.Traffic
}

// New makes a Forwarder. It decides nothing before Adopt.
func New(cfg Config) *Forwarder {
	f := &Forwarder{
		worker:    cfg.Worker,
		flows:     cfg.Flows,
		counters:  cfg.Counters,
		outbox:    cfg.Outbox,
		fragments: fragment.New(fragment.Config{}),
		refusals:  refuse.NewLimiter(refuse.DefaultLimits()),
		pathMTUs:  refuse.NewLimiter(refuse.DefaultLimits()),
		relays:    refuse.NewLimiter(relayLimits()),
		claims:    newClaims(),
		many:      manyBackends,
	}
	cfg.Flows.Watch(f.came)
	f.SetPeers([]uint16{cfg.Worker})
	f.nat.space = cfg.Space
	f.expired = f.expire
	return f
}

// relayLimits is how many ICMP errors are passed on. One router reports on the
// flows of many.
func relayLimits() refuse.Limits {
	return refuse.Limits{All: limit.Rate{PerSecond: 10000}, Source: limit.Rate{PerSecond: 200}}
}

// SetPeers tells the numbers of all workers that run, this one's among them,
// in an order that is the same for all. It may allocate.
func (f *Forwarder) SetPeers(numbers []uint16) {
	f.peers = numbers
	f.index = slices.Repeat([]int{-1}, int(slices.Max(numbers))+1)
	for i, n := range numbers {
		f.index[n] = i
	}
	f.self = f.index[f.worker]
	f.renewMark()
}

// renewMark has no flow be known any more.
func (f *Forwarder) renewMark() {
	if f.mark++; f.mark == 0 { // which flows have that are trusted and were never marked
		f.mark = 1
	}
}

// peer returns the index of a worker in the list of all, or -1.
func (f *Forwarder) peer(number uint16) int {
	if int(number) >= len(f.index) {
		return -1
	}
	return f.index[number]
}

// Adopt makes snap the one that Process goes by. Counters of backend slots
// that have changed hands start anew. It may allocate; it is called when the
// snapshot has changed and never per packet.
func (f *Forwarder) Adopt(snap *snapshot.Snapshot) {
	slots, all := snap.Changes(f.snap)
	f.adoptNAT(snap, slots, all)
	f.guards.adopt(snap)
	f.adoptStations(snap.Interfaces)
	f.snap = snap
	f.renewMark()
	f.counters.Backends = grow(f.counters.Backends, snap.Slots())
	f.targets = grow(f.targets, snap.Slots())
	if all {
		for n := range snap.Slots() {
			f.adoptSlot(uint32(n))
		}
		return
	}
	for _, n := range slots {
		f.adoptSlot(n)
	}
}

// grow returns s with n elements at least, and room for more if it had none, as that
// takes milliseconds.
func grow[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	if n > cap(s) {
		s = slices.Grow(s, n-len(s)+n/4)
	}
	return append(s, make([]T, n-len(s))...)
}

func (f *Forwarder) adoptSlot(n uint32) {
	c := &f.counters.Backends[n]
	if gen := f.snap.Backend(n).Generation; c.Generation != gen {
		*c, f.targets[n].sent = stats.Backend{Generation: gen}, stats.Traffic{}
	}
}

// Sent fills in what backends have been sent, those of the slots from one on, as many as
// there are Counters.Backends.
func (f *Forwarder) Sent(from int, sent []stats.Traffic) {
	for i := range sent {
		sent[i] = f.targets[from+i].sent
	}
}

// Process decides about frames, at most BatchSize of them, which came in on
// the interface with index ingress, and puts one verdict per frame into
// verdicts. Frames to be sent have been rewritten.
func (f *Forwarder) Process(ingress uint16, now flow.Tick, frames []queue.Frame, verdicts []Verdict) {
	f.batch.came(ingress, min(len(frames), BatchSize))
	f.process(now, frames, verdicts)
}

// Decide is Process for frames that came by an Outbox, with what is known of
// each.
func (f *Forwarder) Decide(metas []handover.Meta, now flow.Tick, frames []queue.Frame, verdicts []Verdict) {
	copy(f.batch.metas[:], metas)
	f.process(now, frames, verdicts)
}

// pass gives a frame to another worker to decide about.
func (f *Forwarder) pass(peer int, frame *queue.Frame, meta *handover.Meta) Verdict {
	f.outbox.Pass(peer, frame.Bytes(), *meta)
	return Verdict{Action: Taken}
}

// asking is what became of a question to the other workers.
type asking uint8

const (
	unknown asking = iota // all have been asked, or there is nobody else
	asked                 // the frame is on its way to the next one
	tooMany               // there are more questions than are asked
)

// askRate is how many frames per second a worker begins to ask about. Each goes
// to every other worker, by the rings that all else goes by.
func askRate() limit.Rate { return limit.Rate{PerSecond: 20000, Burst: 5000} }

// askOn gives a frame of which this worker does not know the flow to the next
// worker, if not all have been asked. The last one asked gives it back to the
// first.
func (f *Forwarder) askOn(frame *queue.Frame, meta *handover.Meta) asking {
	if n := len(f.peers); n == 1 || int(meta.Asked) >= min(n, 255) {
		return unknown
	}
	if meta.Asked == 0 && !f.asks.Allow(askRate(), f.now) {
		return tooMany
	}
	next := *meta
	next.Asked++
	f.pass((f.self+1)%len(f.peers), frame, &next)
	return asked
}

// Sweep lets go of what is over: idle flows in the next sets of the flow table,
// and fragments that have waited in vain.
func (f *Forwarder) Sweep(now flow.Tick, sets int) {
	f.now = now
	f.flows.Sweep(now, sets, f.expired)
	f.counters.Drops[stats.FragmentLost] += uint64(f.fragments.Expire(now))
}

func drop(reason stats.Reason) Verdict { return Verdict{Action: Drop, Reason: reason} }
