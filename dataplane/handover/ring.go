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
// calls Push, one calls Len and Pop; they may be the same. A ring that is never
// used takes next to no memory.
type Ring struct {
	head atomic.Uint32 // next slot to read; written by the consumer
	_    [60]byte      // the two sides write to cache lines of their own
	tail atomic.Uint32 // next slot to write; written by the producer
	_    [60]byte

	// A slot belongs to the producer while outside [head, tail), else to the
	// consumer. Pieces are made by the producer when it comes by first.
	pieces [Slots / pieceSlots]*[pieceSlots]slot
}

type slot struct {
	buf  []byte
	n    int
	meta Meta
}

const (
	// slotSize is the first size of a slot's buffer: any frame of an Ethernet
	// with the usual MTU, tunnelled and tagged.
	slotSize = 1600

	// pieceSlots is how many slots get their memory at once. It divides Slots.
	pieceSlots = 64
)

func (r *Ring) slot(i uint32) *slot { return &r.pieces[i%Slots/pieceSlots][i%pieceSlots] }

// NewRing makes an empty ring.
func NewRing() *Ring { return &Ring{} }

// Push copies frame into the ring. It returns false if the ring is full or the
// frame too long. It allocates the first time that it comes by some slots, and
// once more for a slot that has to hold a jumbo frame.
func (r *Ring) Push(frame []byte, meta Meta) bool {
	tail := r.tail.Load()
	if tail-r.head.Load() == Slots || len(frame) > MaxFrame {
		return false
	}
	if piece := &r.pieces[tail%Slots/pieceSlots]; *piece == nil {
		*piece = newPiece()
	}
	s := r.slot(tail)
	if len(s.buf) < len(frame) {
		s.buf = make([]byte, MaxFrame)
	}
	s.n = copy(s.buf, frame)
	s.meta = meta
	r.tail.Store(tail + 1)
	return true
}

func newPiece() *[pieceSlots]slot {
	piece := new([pieceSlots]slot)
	memory := make([]byte, pieceSlots*slotSize)
	for i := range piece {
		piece[i].buf = memory[i*slotSize : (i+1)*slotSize : (i+1)*slotSize]
	}
	return piece
}

// Len returns the number of frames in the ring. It is exact for the consumer
// in that there are at least as many.
func (r *Ring) Len() int { return int(r.tail.Load() - r.head.Load()) }

// Next tells the consumer what the oldest frame is for. The ring must not be
// empty.
func (r *Ring) Next() Meta { return r.slot(r.head.Load()).meta }

// Pop copies the oldest frame to dst and returns its length; 0 if the ring is
// empty. A frame longer than dst is left out and its length returned negative.
func (r *Ring) Pop(dst []byte) int {
	head := r.head.Load()
	if head == r.tail.Load() {
		return 0
	}
	s := r.slot(head)
	n := s.n
	if n <= len(dst) {
		copy(dst, s.buf[:n])
	} else {
		n = -n
	}
	r.head.Store(head + 1)
	return n
}
