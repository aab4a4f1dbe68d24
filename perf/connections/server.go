package connections

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// servers are the backends: one thread, with a listening socket in the network
// namespace of each. Who connects is asked nothing before it has sent its byte:
// until then the kernel keeps the connection to itself (TCP_DEFER_ACCEPT, tcp(7)).
type servers struct {
	epoll     int
	listeners []int
	answered  []atomic.Uint64 // by listener
	of        map[int]int     // which listener a connection that waits for its byte is of
}

// newServers serves on listening sockets, which are the servers' from now on.
func newServers(listeners []int) (*servers, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("new servers: %w", err)
	}
	s := &servers{epoll: epoll, listeners: listeners, answered: make([]atomic.Uint64, len(listeners)), of: make(map[int]int)}
	for i, fd := range listeners {
		err := errors.Join(
			unix.SetNonblock(fd, true),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1),
			unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd), Pad: int32(i)}))
		if err != nil {
			return nil, fmt.Errorf("new servers: socket %d: %w", i, err)
		}
	}
	return s, nil
}

// status returns how many connections each backend has answered.
func (s *servers) status() []uint64 {
	n := make([]uint64, len(s.answered))
	for i := range s.answered {
		n[i] = s.answered[i].Load()
	}
	return n
}

// answerOf is what backend number i answers, from a to z.
func answerOf(i int) byte { return 'a' + byte(i) }

// run answers until the process ends.
func (s *servers) run() error {
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("run servers: wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if i, waits := s.of[fd]; waits {
				s.answer(fd, i)
			} else if err := s.accept(fd, int(e.Pad)); err != nil {
				return err
			}
		}
	}
}

// accept takes all that have come.
func (s *servers) accept(listener, i int) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("run servers: accept: %w", err)
		}
		s.answer(fd, i)
	}
}

// answer answers if the byte is there, and waits for it otherwise.
func (s *servers) answer(fd, i int) {
	var b [8]byte
	n, err := unix.Read(fd, b[:])
	if errors.Is(err, unix.EAGAIN) {
		if _, waits := s.of[fd]; waits {
			return
		}
		if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err == nil {
			s.of[fd] = i
			return
		}
	}
	// To one that says something else nothing is said: the client counts it.
	if n == 1 && b[0] == request {
		if _, err := unix.Write(fd, []byte{answerOf(i)}); err == nil {
			s.answered[i].Add(1)
		}
	}
	delete(s.of, fd)
	unix.Close(fd)
}
