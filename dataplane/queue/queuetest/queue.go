// Package queuetest is a queue.Queue in memory, for the tests of whatever works
// a queue.
//
// The problem it solves: a driver cannot be made to run out of room, to lose
// its NIC or to be woken at a chosen moment, and it does not notice a frame
// that is given back twice or never. This one can be told to do all of the
// former and panics on misuse: each frame is at every moment in exactly one
// place (free, arrived, or held by the worker), and whoever says otherwise is
// wrong. What goes back is overwritten, so that reading it later shows.
package queuetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"weir/dataplane/queue"
)

// FrameSize is the size of each buffer in bytes, headroom included. A packet
// starts queue.Headroom bytes into it, the least that any driver gives.
const FrameSize = 2048

// poison is what a buffer is full of while nobody has a packet in it.
const poison = 0xdb

// unlimited as a limit of Send is none.
const unlimited = -1

type place uint8

const (
	free    place = iota // with the queue, empty
	arrived              // with the queue, waiting for Receive
	held                 // with the worker
)

// Queue implements queue.Queue. What is not in that interface is for the test,
// and may be called by any goroutine.
type Queue struct {
	worker atomic.Bool // a method for the one worker is running
	wake   chan struct{}

	mu        sync.Mutex
	changed   chan struct{} // closed and made anew with every change, for await
	buffers   [][]byte      // by frame ID
	places    []place       // by frame ID
	empty     []uint64      // IDs of free frames; the one freed last goes first
	waiting   []queue.Frame // arrived, oldest first
	sent      [][]byte
	stats     queue.Stats
	sendLimit int
	err       error // ErrGone or ErrClosed, once that is so
	sleeping  bool  // in Wait, and nothing has happened yet to end it
}

var _ queue.Queue = (*Queue)(nil)

// New makes a queue with so many frames of FrameSize bytes.
func New(frames int) *Queue {
	q := &Queue{
		wake:      make(chan struct{}, 1),
		changed:   make(chan struct{}),
		buffers:   make([][]byte, frames),
		places:    make([]place, frames),
		sendLimit: unlimited,
	}
	for i := range q.buffers {
		q.buffers[i] = bytes.Repeat([]byte{poison}, FrameSize)
		q.empty = append(q.empty, uint64(i))
	}
	return q
}

// Inject makes a copy of packet arrive, and wakes Wait. It returns false, and
// counts the loss as a driver does, if no frame is free (Stats.ReceiveDropped)
// or the packet does not fit into one (Stats.ReceiveInvalid).
func (q *Queue) Inject(packet []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return false
	}
	if len(packet) > FrameSize-queue.Headroom {
		q.stats.ReceiveInvalid++
		return false
	}
	f, ok := q.take(arrived)
	if !ok {
		q.stats.ReceiveDropped++
		return false
	}
	f.End = f.Start + uint32(copy(f.Buf[f.Start:], packet))
	q.waiting = append(q.waiting, f)
	q.wakeUp()
	q.notify()
	return true
}

// Sent returns copies of the packets that Send has accepted so far, oldest
// first. They are the caller's.
func (q *Queue) Sent() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([][]byte(nil), q.sent...)
}

// Held returns how many frames the worker has and owes. It is 0 whenever the
// worker is asleep or has ended.
func (q *Queue) Held() int { return q.count(held) }

// Free returns how many frames could still take a packet.
func (q *Queue) Free() int { return q.count(free) }

// LimitSend makes each Send accept no more than n packets, until it is called
// again. A negative n is no limit.
func (q *Queue) LimitSend(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sendLimit = n
}

// Remove makes the interface vanish: what returns an error returns
// queue.ErrGone from now on, and Wait ends.
func (q *Queue) Remove() { q.fail(queue.ErrGone) }

// AwaitSent waits until at least n packets have been sent since the start, and
// returns all of them as Sent does. The error is ctx's.
func (q *Queue) AwaitSent(ctx context.Context, n int) ([][]byte, error) {
	err := q.await(ctx, func() bool { return len(q.sent) >= n })
	if err != nil {
		err = fmt.Errorf("await %d sent packets: %w", n, err)
	}
	return q.Sent(), err
}

// AwaitIdle waits until the worker sleeps in Wait and nothing has arrived that
// it has not received, so that all it was given before is dealt with. The
// error is ctx's.
func (q *Queue) AwaitIdle(ctx context.Context) error {
	err := q.await(ctx, func() bool { return q.sleeping })
	if err != nil {
		return fmt.Errorf("await idle worker: %w", err)
	}
	return nil
}

// Receive implements queue.Queue.
func (q *Queue) Receive(frames []queue.Frame) (int, error) {
	defer q.enter("Receive")()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0, q.err
	}
	n := copy(frames, q.waiting)
	for i := range frames[:n] {
		q.places[frames[i].ID] = held
	}
	q.waiting = q.waiting[n:]
	q.notify()
	return n, nil
}

// Alloc implements queue.Queue.
func (q *Queue) Alloc(frames []queue.Frame) int {
	defer q.enter("Alloc")()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return 0
	}
	for i := range frames {
		f, ok := q.take(held)
		if !ok {
			return i
		}
		frames[i] = f
	}
	return len(frames)
}

// Send implements queue.Queue. With LimitSend, the first packets are the ones
// accepted.
func (q *Queue) Send(frames []queue.Frame) (int, error) {
	defer q.enter("Send")()
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(frames)
	switch {
	case q.err != nil:
		n = 0
	case q.sendLimit >= 0:
		n = min(n, q.sendLimit)
	}
	for i := range frames {
		f := &frames[i]
		if i < n {
			q.sent = append(q.sent, q.packetOf("Send", f))
		}
		q.giveBack("Send", f)
	}
	q.stats.TransmitDropped += uint64(len(frames) - n)
	q.notify()
	return n, q.err
}

// Release implements queue.Queue.
func (q *Queue) Release(frames []queue.Frame) {
	defer q.enter("Release")()
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range frames {
		q.giveBack("Release", &frames[i])
	}
	q.notify()
}

// Wait implements queue.Queue.
func (q *Queue) Wait(timeout time.Duration) error {
	defer q.enter("Wait")()
	var timer <-chan time.Time
	if timeout >= 0 {
		timer = time.After(timeout)
	}
	if q.startWait() {
		select {
		case <-q.wake:
		case <-timer:
		}
	}
	return q.endWait()
}

// Wake implements queue.Queue.
func (q *Queue) Wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wakeUp()
}

// Stats implements queue.Queue.
func (q *Queue) Stats() queue.Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats
}

// Close implements queue.Queue.
func (q *Queue) Close() error {
	q.fail(queue.ErrClosed)
	return nil
}
