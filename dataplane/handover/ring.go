// Package handover carries frames from one worker to another.
//
// The problem it solves: a NIC queue has one owner, and a frame that came in on
// one interface often has to leave by another. A flow has one owner too, and an
// answer that NAT has to translate, a fragment or an ICMP error may come in on
// another worker's queue. A lock around the other queue or the other flow table
// would put the whole packet path behind it; instead each pair of workers has a
// ring with one producer and one consumer, whose two indices are all they
// share. Frames are copied, since packet memory belongs to its queue.
package handover

import "sync/atomic"

const (
	// Slots is the number of frames a ring holds: what a fast link brings while
	// the other worker is kept off its CPU for a moment.
	Slots = 2048

	// MaxFrame is the longest frame in bytes that a ring takes.
	MaxFrame = 9216 + 18 + 40
)

// Task is what the receiving worker is to do with a frame.
type Task uint8

const (
	Send   Task = iota // send it as it is, by its own interface
	Decide             // decide about it as if it had been received, with what Meta knows
)

// Meta is what is known of a frame for Decide.
type Meta struct {
	Task     Task
	HasFlow  bool  // Proto and the ports are its datagram's: a fragment of which the first has been seen
	Admitted bool  // an ICMP error that is within the rate at which they are passed on
	Asked    uint8 // how many workers have been asked and do not know its flow
	Proto    uint8
	Ingress  uint16 // index of the interface it came in on
	SrcPort  uint16
	DstPort  uint16
}

// Ring is a single-producer, single-consumer queue of frames. One goroutine
// calls Push, one calls Len, Next and Pop; they may be the same. It has as many
// buffers as there have been frames in it at the same time, and none before it
// is used.
type Ring struct {
	head atomic.Uint32 // next slot to read; written by the consumer
	_    [60]byte      // the two sides write to cache lines of their own

	tail atomic.Uint32 // next slot to write; written by the producer

	// spare is the oldest slot whose buffer has been read and not been taken
	// for another frame, or head if there is none. Only the producer knows it.
	spare uint32
	_     [56]byte

	// A slot in [head, tail) belongs to the consumer, which only reads. All
	// others are the producer's, with the buffers of those in [spare, head):
	// so buffers come back without a second ring.
	slots *[Slots]*buffer
}

type buffer struct {
	n    int
	meta Meta
	mem  []byte
}

// bufferSize is the first size of a buffer in bytes: any frame of an Ethernet
// with the usual MTU, tunnelled and tagged.
const bufferSize = 1600

// NewRing makes an empty ring.
func NewRing() *Ring { return &Ring{} }

// Push copies frame into the ring. It returns false if the ring is full or the
// frame too long. It allocates if there were never so many frames in the ring,
// and once more for a buffer that has to hold a jumbo frame.
func (r *Ring) Push(frame []byte, meta Meta) bool {
	tail, head := r.tail.Load(), r.head.Load()
	if tail-head == Slots || len(frame) > MaxFrame {
		return false
	}
	if r.slots == nil {
		r.slots = new([Slots]*buffer)
	}
	b := r.take(head)
	if len(b.mem) < len(frame) {
		b.mem = make([]byte, MaxFrame)
	}
	b.n = copy(b.mem, frame)
	b.meta = meta
	r.slots[tail%Slots] = b
	r.tail.Store(tail + 1)
	return true
}

// take returns a buffer that is in no slot of [spare, tail) any more.
func (r *Ring) take(head uint32) *buffer {
	if r.spare == head {
		return &buffer{mem: make([]byte, bufferSize)}
	}
	b := r.slots[r.spare%Slots]
	r.spare++
	return b
}

// Len returns the number of frames in the ring. It is exact for the consumer
// in that there are at least as many.
func (r *Ring) Len() int { return int(r.tail.Load() - r.head.Load()) }

// Next tells the consumer what the oldest frame is for, and its length in
// bytes. The ring must not be empty.
func (r *Ring) Next() (meta Meta, size int) {
	b := r.slots[r.head.Load()%Slots]
	return b.meta, b.n
}

// Pop copies the oldest frame to dst and returns its length; 0 if the ring is
// empty. A frame longer than dst is left out and its length returned negative.
func (r *Ring) Pop(dst []byte) int {
	head := r.head.Load()
	if head == r.tail.Load() {
		return 0
	}
	b := r.slots[head%Slots]
	n := b.n
	if n <= len(dst) {
		copy(dst, b.mem[:n])
	} else {
		n = -n
	}
	r.head.Store(head + 1)
	return n
}
