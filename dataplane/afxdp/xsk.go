package afxdp

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/steer"
)

const (
	// batch is how many free frames are worth a write to the fill ring.
	batch = 64

	// sendBudget is how many frames the kernel may send in one call, if it copies
	// them: a worker's batch and what was left of earlier ones. It is also what
	// bounds the call, to a fraction of a millisecond.
	sendBudget = 256

	// maxStalls is how often in a row the kernel is asked to send without
	// sending anything, before that is left for later.
	maxStalls = 8

	// minFrame is the least a driver can be given: an Ethernet header. An empty
	// frame the kernel would drop and not give back.
	minFrame = 14

	// sendRetry is how soon Wait ends if the NIC had no room for everything.
	sendRetry = time.Millisecond

	// maxWait bounds a sleep. The kernel wakes nobody when it takes the NIC
	// away, so a queue has to look from time to time.
	maxWait = time.Second
)

// xsk is one AF_XDP socket with its packet memory and rings: one queue of the
// NIC. It implements [queue.Queue].
//
// A frame is at every moment in exactly one place: on the stack, with the
// caller, or with the kernel, which takes it by the fill ring and gives it back
// by the receive ring, or takes it by the send ring and gives it back by the
// completion ring.
type xsk struct {
	fd         int
	copies     bool // not zero-copy: the kernel sends only inside sendto(2)
	mem        memory
	fill       fillRing
	completion completionRing
	receive    receiveRing
	send       sendRing
	room       *steer.Room // in the receive ring, as the XDP program knows it; nil for zero-copy
	waker      *queue.Waker

	// Only the worker touches these.
	stack []uint64 // addresses of free frames; its capacity is all of them
	down  bool     // the link was down when the kernel was last asked to send
	gone  bool     // the NIC does not exist any more

	dropped atomic.Uint64 // frames given up by Send; written by the worker

	closed  atomic.Bool
	waiting sync.Mutex // held by Wait, so that Close frees nothing under it

	mu   sync.Mutex  // held by Stats and Close, for fd
	last queue.Stats // after Close
}

var _ queue.Queue = (*xsk)(nil)

// usable is nil as long as frames can come and go.
func (s *xsk) usable() error {
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if s.gone {
		return queue.ErrGone
	}
	return nil
}

// Receive implements [queue.Queue].
func (s *xsk) Receive(frames []queue.Frame) (int, error) {
	if err := s.usable(); err != nil {
		return 0, err
	}
	n := s.receive.take(frames, &s.mem)
	if n > 0 {
		if s.room != nil {
			s.room.Took(n)
		}
		s.refill(batch)
		return n, nil
	}
	if s.room != nil {
		s.room.Even()
	}
	s.refill(1) // the kernel may have run out with less than a batch free
	if s.fill.needWakeup() {
		s.call(unix.SYS_RECVFROM)
	}
	return 0, nil
}

// Alloc implements [queue.Queue].
func (s *xsk) Alloc(frames []queue.Frame) int {
	if s.usable() != nil {
		return 0
	}
	if len(s.stack) < len(frames) {
		s.reclaim()
	}
	n := min(len(frames), len(s.stack))
	rest := len(s.stack) - n
	frames, free := frames[:n], s.stack[rest:]
	for i, id := range free[:len(frames)] {
		f := &frames[i] // in place, as in receiveRing.take
		f.Buf, f.Start, f.End, f.ID = s.mem.frame(id), unix.XDP_PACKET_HEADROOM, unix.XDP_PACKET_HEADROOM, id
	}
	s.stack = s.stack[:rest]
	return n
}

// Release implements [queue.Queue].
func (s *xsk) Release(frames []queue.Frame) {
	if s.closed.Load() {
		return
	}
	s.push(frames)
	s.refill(batch)
}

// Send implements [queue.Queue].
func (s *xsk) Send(frames []queue.Frame) (int, error) {
	if s.closed.Load() {
		return 0, queue.ErrClosed
	}
	if s.gone {
		s.giveUp(frames)
		return 0, queue.ErrGone
	}
	s.reclaim()
	if s.down || s.send.room(len(frames)) < len(frames) {
		s.transmit()
	}
	n := 0
	if !s.down && !s.gone {
		n = s.enqueue(frames)
		s.transmit()
	} else {
		s.giveUp(frames)
	}
	s.refill(batch)
	if s.gone {
		return n, queue.ErrGone
	}
	return n, nil
}

// enqueue puts frames into the send ring, gives the others up, and returns how
// many are in.
func (s *xsk) enqueue(frames []queue.Frame) int {
	n := 0
	for room := s.send.room(len(frames)); len(frames) > 0 && room > 0; {
		good := min(s.sendable(frames), room)
		s.send.put(frames[:good])
		n, room, frames = n+good, room-good, frames[good:]
		if len(frames) > 0 && room > 0 { // one that cannot be sent
			s.giveUp(frames[:1])
			frames = frames[1:]
		}
	}
	s.giveUp(frames)
	return n
}

// sendable returns how many frames at the beginning of frames the kernel will
// accept. What it does not accept, it does not give back.
func (s *xsk) sendable(frames []queue.Frame) int {
	size := uint32(s.mem.frameSize)
	for i := range frames {
		f := &frames[i]
		if f.End > size || f.Start > f.End || f.End-f.Start < minFrame {
			return i
		}
	}
	return len(frames)
}

// giveUp takes frames back that will not be sent.
func (s *xsk) giveUp(frames []queue.Frame) {
	if len(frames) > 0 {
		s.push(frames)
		s.dropped.Add(uint64(len(frames)))
	}
}

func (s *xsk) push(frames []queue.Frame) {
	stack := s.stack
	for i := range frames {
		stack = append(stack, frames[i].ID)
	}
	s.stack = stack
}

// reclaim takes back what has been sent.
func (s *xsk) reclaim() { s.stack = s.completion.take(s.stack, s.mem.frameSize) }

// refill moves free frames to the fill ring, if at least so many can go.
func (s *xsk) refill(atLeast int) {
	if len(s.stack) < atLeast {
		s.reclaim()
	}
	n := min(s.fill.room(atLeast), len(s.stack))
	if n < atLeast {
		return
	}
	rest := len(s.stack) - n
	s.fill.put(s.stack[rest:])
	s.stack = s.stack[:rest]
}

// transmit tells the kernel about the frames in the send ring. In copy mode it
// sends them in this very call, but no more than sendBudget, or 32 before Linux
// 6.17 (net/xdp/xsk.c, __xsk_generic_xmit). What the kernel does not
// take now stays in the ring for the next time. If the link is down or the NIC
// gone, it sets down or gone.
func (s *xsk) transmit() {
	s.down = false
	if !s.copies {
		if s.send.needWakeup() {
			s.call(unix.SYS_SENDTO)
		}
		return
	}
	pending := s.send.pending()
	calls := pending + maxStalls
	for stalls := 0; pending > 0 && stalls < maxStalls && calls > 0; calls-- {
		switch s.call(unix.SYS_SENDTO) {
		case 0, unix.EAGAIN, unix.ENOBUFS, unix.EINTR:
			stalls++
		case unix.EBUSY: // the driver has dropped one, which the kernel gives back
			s.dropped.Add(1)
		default:
			return
		}
		if now := s.send.pending(); now < pending {
			pending, stalls = now, 0
		}
	}
}

// call makes a system call that has no purpose but to have the kernel look at
// the rings: sendto(2) or recvfrom(2) of nothing. It never blocks, so the Go
// scheduler is told nothing of it.
func (s *xsk) call(number uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall6(number, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case unix.ENETDOWN:
		s.down = true
	case unix.ENXIO, unix.ENODEV:
		s.gone = true
	}
	return errno
}

// Wait implements [queue.Queue].
func (s *xsk) Wait(timeout time.Duration) error {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	if timeout < 0 || timeout > maxWait {
		timeout = maxWait
	}
	s.refill(1)
	if s.send.pending() > 0 {
		s.transmit()
		if s.send.pending() > 0 && !s.down {
			timeout = min(timeout, sendRetry)
		}
	}
	// Has the NIC look at the fill ring, and tells whether it still exists.
	s.call(unix.SYS_RECVFROM)
	if s.gone {
		return queue.ErrGone
	}
	events, err := s.waker.Wait(s.fd, timeout)
	if s.closed.Load() {
		return queue.ErrClosed
	}
	if err != nil {
		return fmt.Errorf("wait on AF_XDP socket: %w", err)
	}
	if events&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		s.call(unix.SYS_RECVFROM)
		if s.gone {
			return queue.ErrGone
		}
	}
	return nil
}

// Wake implements [queue.Queue].
func (s *xsk) Wake() { s.waker.Wake() }

// Stats implements [queue.Queue].
func (s *xsk) Stats() queue.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats()
}

func (s *xsk) stats() queue.Stats {
	if s.fd < 0 {
		return s.last
	}
	kernel, err := statistics(s.fd)
	if err != nil { // it cannot fail on an open AF_XDP socket
		return s.last
	}
	st := queue.Stats{
		ReceiveDropped:  kernel.Rx_dropped + kernel.Rx_ring_full,
		ReceiveInvalid:  kernel.Rx_invalid_descs,
		TransmitDropped: kernel.Tx_invalid_descs + s.dropped.Load(),
	}
	if s.room != nil {
		st.ReceiveDropped += s.room.Refused()
	}
	return st
}

// Close implements [queue.Queue].
func (s *xsk) Close() error {
	s.closed.Store(true)
	s.waker.Wake()
	s.waiting.Lock()
	defer s.waiting.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = s.stats()
	return s.free()
}

// free gives back all that openSocket took, also if that failed half-way. It
// may be called twice.
func (s *xsk) free() error {
	var errs []error
	if s.fd >= 0 {
		errs = append(errs, unix.Close(s.fd))
		s.fd = -1
	}
	if s.room != nil {
		errs = append(errs, s.room.Close())
	}
	errs = append(errs, s.fill.unmap(), s.completion.unmap(), s.receive.unmap(), s.send.unmap(), s.mem.unmap())
	if s.waker != nil {
		errs = append(errs, s.waker.Close())
	}
	return errors.Join(errs...)
}
