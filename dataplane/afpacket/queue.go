package afpacket

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

const (
	// maxRetries is how often a frame is offered again when the NIC has no
	// room, one right after the other.
	maxRetries = 16

	// downInterval is how often Wait looks whether an interface that went down
	// was deleted: the kernel tells a socket of the first only.
	downInterval = 200 * time.Millisecond
)

// ringQueue is a queue.Queue over one packet socket.
type ringQueue struct {
	// The worker's own.
	fd   int
	ring ring
	pool pool
	out  *sender
	gone bool // the interface does not exist any more
	down bool // the socket has reported that the link is down

	waker  *queue.Waker
	closed atomic.Bool

	waiting sync.Mutex // held by Wait, so that Close does not pull the socket from under it

	stats   sync.Mutex // orders reading the kernel's counter against closing fd
	open    bool       // fd is; guarded by stats
	lost    uint64     // by the kernel, which forgets what it has been asked; guarded by stats
	invalid atomic.Uint64
	unsent  atomic.Uint64
}

// newQueue opens a queue on ifi that drops every frame until it gets a filter.
func newQueue(ifi *net.Interface, geo geometry) (*ringQueue, error) {
	waker, err := queue.NewWaker()
	if err != nil {
		return nil, err
	}
	fd, err := openSocket(ifi)
	if err != nil {
		return nil, errors.Join(err, waker.Close())
	}
	mem, err := setUp(fd, geo)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd), waker.Close())
	}
	return &ringQueue{
		fd:    fd,
		open:  true,
		ring:  newRing(geo, mem),
		pool:  newPool(geo.size),
		out:   newSender(),
		waker: waker,
	}, nil
}

// usable returns why the queue cannot be worked any more.
func (q *ringQueue) usable() error {
	switch {
	case q.closed.Load():
		return queue.ErrClosed
	case q.gone:
		return queue.ErrGone
	}
	return nil
}

// Receive implements [queue.Queue]. It looks at no more slots than frames are
// asked for, so it may return fewer although more are there, if some were
// invalid.
func (q *ringQueue) Receive(frames []queue.Frame) (int, error) {
	if err := q.usable(); err != nil {
		return 0, err
	}
	n := 0
	var invalid uint64
	for range frames {
		ok, usable := q.ring.receive(&frames[n])
		if !ok {
			break
		}
		if usable {
			n++
		} else {
			invalid++
		}
	}
	if n > 0 {
		q.down = false
	}
	if invalid > 0 {
		q.invalid.Add(invalid)
	}
	return n, nil
}

// Alloc implements [queue.Queue]. The buffers do not come from the ring, so
// none is left for the kernel to fill because of them.
func (q *ringQueue) Alloc(frames []queue.Frame) int {
	if q.usable() != nil {
		return 0
	}
	n := min(len(frames), len(q.pool.free))
	for i := range frames[:n] {
		id, buf := q.pool.take()
		frames[i] = queue.Frame{
			Buf:   buf,
			Start: frameStart - slotHeader,
			End:   frameStart - slotHeader,
			ID:    uint64(q.ring.slots + id),
		}
	}
	return n
}

// Send implements [queue.Queue]. The kernel copies the frames, so they are free
// again when it returns.
func (q *ringQueue) Send(frames []queue.Frame) (int, error) {
	if q.closed.Load() {
		return 0, queue.ErrClosed
	}
	sent := 0
	err := q.usable()
	for rest := frames; len(rest) > 0 && err == nil; {
		n := q.out.load(rest)
		var taken int
		taken, err = q.transmit(n)
		sent += taken
		rest = rest[n:]
	}
	q.Release(frames)
	if sent < len(frames) {
		q.unsent.Add(uint64(len(frames) - sent))
	}
	return sent, err
}

// transmit offers the first n loaded messages to the kernel and returns how
// many it took.
func (q *ringQueue) transmit(n int) (int, error) {
	sent, retries := 0, 0
	for at := 0; at < n; {
		taken, errno := q.out.send(q.fd, at, n)
		at += taken
		sent += taken
		switch errno {
		case 0:
			retries = 0
		case unix.EAGAIN, unix.ENOBUFS, unix.EINTR:
			if retries++; retries > maxRetries {
				return sent, nil
			}
		case unix.ENETDOWN:
			// The first time it may be what the socket still had to say
			// about a link that is up again by now.
			q.down = true
			if retries++; retries > 1 {
				return sent, nil
			}
		case unix.ENXIO, unix.ENODEV:
			q.gone = true
			return sent, queue.ErrGone
		default:
			at++ // something is wrong with this one, for instance its length
		}
	}
	return sent, nil
}

// Release implements [queue.Queue]. Frames may come in any order, but the
// kernel stores no more once it has come round to a slot that is still lent.
func (q *ringQueue) Release(frames []queue.Frame) {
	if q.closed.Load() {
		return
	}
	for i := range frames {
		if id := int(frames[i].ID); id < q.ring.slots {
			q.ring.release(id)
		} else {
			q.pool.release(id - q.ring.slots)
		}
	}
}

// Wait implements [queue.Queue]. While the worker holds the frame received
// last it returns at once, as the kernel takes that for a frame not yet
// received (packet_poll in net/packet/af_packet.c).
func (q *ringQueue) Wait(timeout time.Duration) error {
	q.waiting.Lock()
	defer q.waiting.Unlock()
	if err := q.usable(); err != nil {
		return err
	}
	if q.down && (timeout < 0 || timeout > downInterval) {
		timeout = downInterval
	}
	events, err := q.waker.Wait(q.fd, timeout)
	if q.closed.Load() {
		return queue.ErrClosed
	}
	if err != nil {
		return err
	}
	if q.down || events&^unix.POLLIN != 0 {
		return q.checkLink()
	}
	return nil
}

// checkLink finds out whether the socket, having reported an error, is still
// bound to an interface.
func (q *ringQueue) checkLink() error {
	q.down = true
	if _, err := unix.GetsockoptInt(q.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil { // also clears it
		return fmt.Errorf("read socket error: %w", err)
	}
	addr, err := unix.Getsockname(q.fd)
	if err != nil {
		return fmt.Errorf("read socket address: %w", err)
	}
	if bound, ok := addr.(*unix.SockaddrLinklayer); ok && bound.Ifindex <= 0 {
		q.gone = true
		return queue.ErrGone
	}
	return nil
}

// Wake implements [queue.Queue].
func (q *ringQueue) Wake() { q.waker.Wake() }

// Stats implements [queue.Queue].
func (q *ringQueue) Stats() queue.Stats {
	q.stats.Lock()
	defer q.stats.Unlock()
	q.readLost()
	return queue.Stats{
		ReceiveDropped:  q.lost,
		ReceiveInvalid:  q.invalid.Load(),
		TransmitDropped: q.unsent.Load(),
	}
}

// readLost adds what the kernel has counted since the last time. The caller
// holds stats.
func (q *ringQueue) readLost() {
	if !q.open {
		return
	}
	kernel, err := unix.GetsockoptTpacketStats(q.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		q.lost += uint64(kernel.Drops)
	}
}

// Close implements [queue.Queue].
func (q *ringQueue) Close() error {
	if q.closed.Swap(true) {
		return nil
	}
	q.waker.Wake()
	q.waiting.Lock()
	defer q.waiting.Unlock()
	q.stats.Lock()
	defer q.stats.Unlock()

	q.readLost()
	q.open = false
	q.out = nil // it points into the ring
	var errs []error
	if err := unix.Munmap(q.ring.mem); err != nil {
		errs = append(errs, fmt.Errorf("unmap ring: %w", err))
	}
	if err := unix.Close(q.fd); err != nil {
		errs = append(errs, fmt.Errorf("close packet socket: %w", err))
	}
	return errors.Join(append(errs, q.waker.Close())...)
}
