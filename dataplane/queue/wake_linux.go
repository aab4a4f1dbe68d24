package queue

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Waker is an eventfd beside a socket: one poll(2) sleeps on both. The drivers
// build Wait and Wake of [Queue] on it.
type Waker struct {
	mu     sync.Mutex // orders Wake against Close, so that no write hits a reused descriptor
	fd     int
	closed bool
}

// NewWaker creates the eventfd.
func NewWaker() (*Waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	return &Waker{fd: fd}, nil
}

// Wait polls sock for input until it has some, Wake is called or timeout has
// passed (forever if negative). It returns the events poll(2) reported for
// sock, zero for none. It may not run at the same time as Close.
func (w *Waker) Wait(sock int, timeout time.Duration) (int16, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	fds := [2]unix.PollFd{
		{Fd: int32(sock), Events: unix.POLLIN},
		{Fd: int32(w.fd), Events: unix.POLLIN},
	}
	_, err := unix.Poll(fds[:], ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("poll: %w", err)
	}
	if fds[1].Revents != 0 {
		var buf [8]byte
		_, _ = unix.Read(w.fd, buf[:]) // only empties the counter; EAGAIN is as good
	}
	return fds[0].Revents, nil
}

// Wake ends the current or the next Wait. After Close it does nothing.
func (w *Waker) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	one := [8]byte{1}
	_, _ = unix.Write(w.fd, one[:]) // EAGAIN means the counter is full, so a wake-up is due anyway
}

// Close closes the eventfd. It may be called twice.
func (w *Waker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	if err := unix.Close(w.fd); err != nil {
		return fmt.Errorf("close eventfd: %w", err)
	}
	return nil
}
