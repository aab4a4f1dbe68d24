// Package handover carries frames from the worker that decided about them to a
// worker of the interface they leave by.
//
// The problem it solves: a NIC queue has one owner, and a frame that came in on
// one interface often has to leave by another. A lock around the other queue
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

// Ring is a single-producer, single-consumer queue of frames. One goroutine
// calls Push, one calls Pop and Empty. Memory is allocated as frames come, up
// to Slots buffers of the longest frame each slot has seen.
type Ring struct {
	head atomic.Uint32 // next slot to read; written by the consumer
	_    [60]byte      // the two sides write to cache lines of their own
	tail atomic.Uint32 // next slot to write; written by the producer
	_    [60]byte

	slots [Slots]slot // a slot belongs to the producer while outside [head, tail), else to the consumer
}

type slot struct {
	buf []byte
	n   int
}

// slotSize is the first size of a slot's buffer: any frame of an Ethernet with
// the usual MTU, tunnelled and tagged.
const slotSize = 1600

// NewRing makes an empty ring.
func NewRing() *Ring {
	r := &Ring{}
	memory := make([]byte, Slots*slotSize)
	for i := range r.slots {
		r.slots[i].buf = memory[i*slotSize : (i+1)*slotSize : (i+1)*slotSize]
	}
	return r
}

// Push copies frame into the ring. It returns false if the ring is full or the
// frame too long.
func (r *Ring) Push(frame []byte) bool {
	tail := r.tail.Load()
	if tail-r.head.Load() == Slots || len(frame) > MaxFrame {
		return false
	}
	s := &r.slots[tail%Slots]
	if len(s.buf) < len(frame) {
		s.buf = make([]byte, MaxFrame) // once per slot, on links with jumbo frames
	}
	s.n = copy(s.buf, frame)
	r.tail.Store(tail + 1)
	return true
}

// Len returns the number of frames in the ring. It is exact for the consumer
// in that there are at least as many.
func (r *Ring) Len() int { return int(r.tail.Load() - r.head.Load()) }

// Pop copies the oldest frame to dst and returns its length; 0 if the ring is
// empty. A frame longer than dst is left out and its length returned negative.
func (r *Ring) Pop(dst []byte) int {
	head := r.head.Load()
	if head == r.tail.Load() {
		return 0
	}
	s := &r.slots[head%Slots]
	n := s.n
	if n <= len(dst) {
		copy(dst, s.buf[:n])
	} else {
		n = -n
	}
	r.head.Store(head + 1)
	return n
}
