package queuetest

import (
	"bytes"
	"context"
	"fmt"

	"weir/dataplane/queue"
)

// enter panics if another method for the worker runs: all of them belong to
// one goroutine.
func (q *Queue) enter(method string) (leave func()) {
	if !q.worker.CompareAndSwap(false, true) {
		panic(fmt.Sprintf("queuetest: %s while another goroutine works the queue", method))
	}
	return func() { q.worker.Store(false) }
}

// take moves a free frame, empty, to a place. The caller holds mu.
func (q *Queue) take(to place) (queue.Frame, bool) {
	if len(q.empty) == 0 {
		return queue.Frame{}, false
	}
	id := q.empty[len(q.empty)-1]
	q.empty = q.empty[:len(q.empty)-1]
	q.places[id] = to
	return queue.Frame{Buf: q.buffers[id], Start: queue.Headroom, End: queue.Headroom, ID: id}, true
}

// packetOf returns a copy of what is in a frame. The caller holds mu.
func (q *Queue) packetOf(method string, f *queue.Frame) []byte {
	if f.Start > f.End || uint64(f.End) > uint64(len(f.Buf)) {
		panic(fmt.Sprintf("queuetest: %s of frame %d: packet is [%d:%d] of %d bytes",
			method, f.ID, f.Start, f.End, len(f.Buf)))
	}
	if f.Len() == 0 {
		panic(fmt.Sprintf("queuetest: %s of frame %d: it is empty", method, f.ID))
	}
	return bytes.Clone(f.Bytes())
}

// giveBack makes a frame that the worker held free. The caller holds mu.
func (q *Queue) giveBack(method string, f *queue.Frame) {
	if q.err == queue.ErrClosed {
		panic(fmt.Sprintf("queuetest: %s of frame %d after Close", method, f.ID))
	}
	if f.ID >= uint64(len(q.buffers)) {
		panic(fmt.Sprintf("queuetest: %s of frame %d: the queue has no such frame", method, f.ID))
	}
	b := q.buffers[f.ID]
	if len(f.Buf) != len(b) || &f.Buf[0] != &b[0] {
		panic(fmt.Sprintf("queuetest: %s of frame %d: its buffer is another frame's", method, f.ID))
	}
	if q.places[f.ID] != held {
		panic(fmt.Sprintf("queuetest: %s of frame %d: the worker does not hold it (given back twice?)", method, f.ID))
	}
	q.places[f.ID] = free
	q.empty = append(q.empty, f.ID)
	for i := range b {
		b[i] = poison
	}
}

func (q *Queue) count(p place) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, at := range q.places {
		if at == p {
			n++
		}
	}
	return n
}

// wakeUp ends the current or the next Wait. The caller holds mu.
func (q *Queue) wakeUp() {
	q.sleeping = false
	select {
	case q.wake <- struct{}{}:
	default: // a wake-up is due already
	}
}

// startWait reports whether there is nothing yet to end a Wait. It takes a
// wake-up that is due along, as poll(2) on an eventfd does.
func (q *Queue) startWait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.wake:
		return false
	default:
	}
	if q.err != nil || len(q.waiting) > 0 {
		return false
	}
	q.sleeping = true
	q.notify()
	return true
}

func (q *Queue) endWait() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sleeping = false
	return q.err
}

// fail ends the queue's life. ErrClosed is the last word.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != queue.ErrClosed {
		q.err = err
	}
	q.wakeUp()
	q.notify()
}

// notify lets everyone in await look again. The caller holds mu.
func (q *Queue) notify() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// await returns once done, called with mu held, says so.
func (q *Queue) await(ctx context.Context, done func() bool) error {
	for {
		q.mu.Lock()
		ok, changed := done(), q.changed
		q.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
