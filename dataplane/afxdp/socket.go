package afxdp

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
)

// socketConfig says what an xsk is to be.
type socketConfig struct {
	ifindex   int
	queue     int // receive queue of the NIC
	mode      Mode
	frames    int
	frameSize int
	ringSize  int
}

// openSocket makes a socket, its memory and its rings, gives the kernel frames
// to receive into, and binds it to its queue. Nothing comes in yet: the XDP
// program does not know the socket.
func openSocket(c socketConfig) (_ *xsk, err error) {
	s := &xsk{fd: -1, copies: c.mode != ZeroCopy}
	defer func() {
		if err != nil {
			err = fmt.Errorf("queue %d: %w", c.queue, err)
			_ = s.free() // the first error tells more
		}
	}()

	if s.waker, err = queue.NewWaker(); err != nil {
		return nil, err
	}
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		s.fd = -1
		return nil, fmt.Errorf("create AF_XDP socket%s: %w", socketFix(err), err)
	}
	if s.mem, err = mapMemory(c.frames, c.frameSize); err != nil {
		return nil, err
	}
	if err := s.mem.register(s.fd); err != nil {
		return nil, err
	}
	if err := s.openRings(c.ringSize); err != nil {
		return nil, err
	}
	if s.copies {
		// Copies on their way count against the send buffer, and the ring is to
		// be the only limit. Half a page more than the frame is what one costs.
		// Without CAP_NET_ADMIN it stays smaller, and sending slower.
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, c.ringSize*(c.frameSize+2048))
		// Kernels before 6.17 do not know it.
		_ = unix.SetsockoptInt(s.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, min(c.ringSize, sendBudget))
	}
	s.stack = make([]uint64, c.frames)
	for i := range s.stack {
		s.stack[i] = uint64(i) * s.mem.frameSize
	}
	s.refill(1)
	if err := s.bind(c); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *xsk) openRings(size int) error {
	for _, ring := range []struct {
		name   string
		option int
		size   int
	}{
		{"fill", unix.XDP_UMEM_FILL_RING, 2 * size},
		{"completion", unix.XDP_UMEM_COMPLETION_RING, 2 * size},
		{"receive", unix.XDP_RX_RING, size},
		{"transmit", unix.XDP_TX_RING, size},
	} {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_XDP, ring.option, ring.size); err != nil {
			return fmt.Errorf("create %s ring of %d entries: %w", ring.name, ring.size, err)
		}
	}
	off, err := ringOffsets(s.fd)
	if err != nil {
		return err
	}
	return errors.Join(
		s.fill.open(s.fd, off.Fr, 2*size),
		s.completion.open(s.fd, off.Cr, 2*size),
		s.receive.open(s.fd, off.Rx, size),
		s.send.open(s.fd, off.Tx, size),
	)
}

// The kernel frees a queue some time after the socket on it was closed
// (net/xdp/xsk_buff_pool.c, xp_put_pool), so a socket that comes right after
// another one may find it taken.
const (
	bindTries = 50
	bindPause = 20 * time.Millisecond
)

func (s *xsk) bind(c socketConfig) error {
	flags := uint16(unix.XDP_USE_NEED_WAKEUP)
	if s.copies {
		flags |= unix.XDP_COPY
	} else {
		flags |= unix.XDP_ZEROCOPY
	}
	to := &unix.SockaddrXDP{Flags: flags, Ifindex: uint32(c.ifindex), QueueID: uint32(c.queue)}
	for try := 1; ; try++ {
		err := unix.Bind(s.fd, to)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY) || try == bindTries:
			return fmt.Errorf("bind AF_XDP socket%s: %w", bindFix(err, c.mode), err)
		}
		time.Sleep(bindPause)
	}
}

// The fixes go into start-up errors, in brackets.

func socketFix(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (run as root, or with CAP_NET_RAW)"
	case errors.Is(err, unix.EAFNOSUPPORT):
		return " (needs a kernel with CONFIG_XDP_SOCKETS)"
	}
	return ""
}

func memoryFix(err error) string {
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
		return " (run with CAP_IPC_LOCK, or raise the locked-memory limit: ulimit -l, LimitMEMLOCK=)"
	}
	return ""
}

func bindFix(err error, mode Mode) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return " (another program has an AF_XDP socket on this queue: stop it)"
	case errors.Is(err, unix.ENETDOWN):
		return " (set the interface up)"
	case mode == ZeroCopy && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)):
		return " (the driver has no zero-copy for this queue, this frame size or these rings)"
	}
	return ""
}
