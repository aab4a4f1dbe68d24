// Package queue defines how a worker receives and sends frames in batches over
// one NIC queue, whatever driver is underneath.
//
// The problem it solves: AF_XDP and AF_PACKET keep packet memory in very
// different places, and a copy per packet is what a load balancer can least
// afford. So the driver owns all memory, lends frames to the worker, and the
// worker gives every single one back, by Send or by Release.
package queue

import (
	"errors"
	"time"
)

// Headroom is the least number of free bytes before a received packet, in
// every driver: room for a 40-byte IPv6 outer header, an 802.1Q tag and 20
// bytes to spare.
const Headroom = 64

var (
	// ErrClosed is returned by every method of a queue after Close.
	ErrClosed = errors.New("queue closed")

	// ErrGone is returned when the NIC under the queue does not exist any
	// more. It is final: only closing the queue is left to do. A link that is
	// merely down is no error.
	ErrGone = errors.New("interface is gone")
)

// Frame is one packet buffer, lent by a queue. The packet is Buf[Start:End];
// what is before Start and after End is free for the holder to use.
//
// A Frame belongs to the queue it came from: it goes back to that queue, never
// to another one. Start and End may be moved, Buf and ID may not be changed.
type Frame struct {
	Buf   []byte // the whole buffer, headroom and tailroom included
	Start uint32 // offset of the packet's first byte, its Ethernet header
	End   uint32 // offset just past the packet's last byte
	ID    uint64 // the driver's own name for the buffer
}

// Bytes returns the packet, without the room around it.
func (f *Frame) Bytes() []byte { return f.Buf[f.Start:f.End] }

// Len returns the packet's length in bytes.
func (f *Frame) Len() int { return int(f.End - f.Start) }

// Queue is one receive and transmit queue. All methods but Wake, Stats and
// Close are called by the one goroutine that works the queue.
type Queue interface {
	// Receive fills frames with what has arrived, oldest first, and returns
	// how many. It never blocks. The caller holds these frames until it gives
	// each of them to Send or Release.
	Receive(frames []Frame) (int, error)

	// Alloc fills frames with empty buffers (Start == End, at least Headroom
	// bytes before it) for packets that do not come from this queue, and
	// returns how many it had. Each of them goes to Send or Release.
	Alloc(frames []Frame) int

	// Send takes all frames over, whatever it returns: n is how many were
	// handed to the NIC, the others were given up (no room, link down). It
	// returns only when the kernel has been told about all it accepted.
	// An error is ErrClosed or ErrGone; anything less is a smaller n.
	Send(frames []Frame) (n int, err error)

	// Release gives frames back unsent.
	Release(frames []Frame)

	// Wait sleeps until there is something to receive, Wake is called, or
	// timeout has passed (forever if negative). A spurious return is allowed.
	Wait(timeout time.Duration) error

	// Wake ends the current or the next Wait. Any goroutine may call it.
	Wake()

	// Stats returns what the kernel and the driver lost. Any goroutine may
	// call it.
	Stats() Stats

	// Close frees sockets and memory, and wakes a Wait. It may be called
	// twice. No frame of the queue may be touched after it, so it is called
	// only once the worker has stopped or is in Wait for the last time.
	Close() error
}

// Stats counts, in frames since the queue was opened, what never reached the
// worker or never left.
type Stats struct {
	ReceiveDropped  uint64 // the kernel had no room to deliver into
	ReceiveInvalid  uint64 // did not fit a frame, or was otherwise unusable
	TransmitDropped uint64 // given up by Send
}
