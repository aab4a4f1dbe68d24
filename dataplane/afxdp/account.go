package afxdp

import (
	"errors"
	"fmt"
	"time"

	"weir/dataplane/queue"
)

// Account says where the frames of a queue are: all of them, each in one place.
type Account struct {
	Free      int // with the queue, for whoever wants one
	Fill      int // handed over for receiving, not taken by the kernel
	Receiving int // taken for receiving: with the NIC, or kept for the next packet
	Received  int // in the receive ring
	Send      int // handed over for sending, not taken by the kernel
	Sending   int // taken for sending: with the NIC, or waiting for it
	Completed int // in the completion ring
	Held      int // all others: with the caller, if none was lost
}

// AccountOf says where the frames of one of a Device's queues are. It goes by
// what is written in the rings, so a frame that was lost counts as held; and a
// frame that is in two places, or is none, is an error. Only the worker may call
// it, between two other calls. It takes some microseconds for each thousand
// frames and allocates, and so is for tests and soak runs.
func AccountOf(q queue.Queue) (Account, error) {
	s, ok := q.(*xsk)
	if !ok {
		return Account{}, fmt.Errorf("count frames: not an AF_XDP queue but %T", q)
	}
	if s.closed.Load() {
		return Account{}, fmt.Errorf("count frames: %w", queue.ErrClosed)
	}
	c := census{frameSize: s.mem.frameSize, place: make([]string, len(s.mem.mem)/int(s.mem.frameSize))}
	k, err := s.kernelIndices()
	if err != nil {
		return Account{}, fmt.Errorf("count frames: %w", err)
	}
	for _, id := range s.stack {
		if id%s.mem.frameSize != 0 {
			c.fault("%d among the free frames is not the beginning of one", id)
		}
		c.count("free", id)
	}
	fill, received, send, completed := s.fill.addrs, s.receive.descs, s.send.descs, s.completion.addrs
	for i := k.fill; i != s.fill.produced; i++ {
		c.count("fill ring", fill[i&uint32(len(fill)-1)])
	}
	for i := s.receive.consumed; i != k.receive; i++ {
		c.count("receive ring", received[i&uint32(len(received)-1)].Addr)
	}
	for i := k.send; i != s.send.produced; i++ {
		c.count("send ring", send[i&uint32(len(send)-1)].Addr)
	}
	for i := s.completion.consumed; i != k.completion; i++ {
		c.count("completion ring", completed[i&uint32(len(completed)-1)])
	}
	a := Account{
		Free:      len(s.stack),
		Fill:      int(s.fill.produced - k.fill),
		Receiving: int(int32(k.fill - k.receive)),
		Received:  int(k.receive - s.receive.consumed),
		Send:      int(s.send.produced - k.send),
		Sending:   int(int32(k.send - k.completion)),
		Completed: int(k.completion - s.completion.consumed),
	}
	a.Held = len(c.place) - c.seen - a.Receiving - a.Sending
	return a, errors.Join(c.faults...)
}

// kernelIndices is what the kernel writes. The entries between these and ours
// stay as they are until we go on, whatever the kernel does meanwhile.
type kernelIndices struct{ fill, receive, send, completion uint32 }

// steadyWithin is how long the kernel may take from writing one index to writing the
// other that belongs to it: that of the receive ring before that of the fill ring
// (net/xdp/xsk.c, xsk_flush), and that of the completion ring before that of the send
// ring. It is a few instructions, unless its CPU is taken away in between, as a
// hypervisor does.
const steadyWithin = time.Second

// kernelIndices reads them all as of one moment.
func (s *xsk) kernelIndices() (k kernelIndices, err error) {
	read := func() kernelIndices {
		return kernelIndices{s.fill.consumer.Load(), s.receive.producer.Load(), s.send.consumer.Load(), s.completion.producer.Load()}
	}
	k = read()
	for begun := time.Now(); time.Since(begun) < steadyWithin; {
		again := read()
		if again == k && int32(k.fill-k.receive) >= 0 && int32(k.send-k.completion) >= 0 {
			return k, nil
		}
		k = again
	}
	return k, fmt.Errorf("the kernel's indices do not agree within %v: %+v", steadyWithin, k)
}

// census notes which frames were seen where.
type census struct {
	frameSize uint64
	place     []string // by frame
	seen      int
	faults    []error
}

// count notes the frame that address is in.
func (c *census) count(place string, address uint64) {
	i := address / c.frameSize
	switch {
	case i >= uint64(len(c.place)):
		c.fault("address %d in the %s is outside the packet memory", address, place)
	case c.place[i] != "":
		c.fault("frame %d is in two places: %s and %s", i, c.place[i], place)
	default:
		c.place[i] = place
		c.seen++
	}
}

func (c *census) fault(format string, args ...any) {
	if len(c.faults) < 10 { // the first tell enough
		c.faults = append(c.faults, fmt.Errorf(format, args...))
	}
}
