package connections

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weir/perf/measure"
)

// Clients of a measurement are one thread with an epoll set, and no more system
// calls than it takes, so that little of what the machine can do is theirs.
//
// A connection is opened from one of several addresses, so that no port is used
// twice within a minute at the rates that two CPUs reach. The client sends one
// byte, and has to get one, the backend's, and then the end of the connection.
// The backend closes first, as a web server does that was asked for one page, so
// it is the one to wait in TIME-WAIT (RFC 9293, section 3.6).

// request is what a client sends.
const request = '?'

// Failures of connections that are no error number.
const (
	failedUnanswered = "closed without an answer"
	failedAnswer     = "wrong answer"
	failedTime       = "no end in time"
)

// clientCounts is what has become of connections so far.
type clientCounts struct {
	Opened   uint64            `json:"opened"`
	Answered []uint64          `json:"answered"` // as they should be, by backend
	Failed   map[string]uint64 `json:"failed"`   // by reason
	Late     uint64            `json:"late"`     // that had to wait for another to end, with a rate
	Took     measure.Histogram `json:"took"`     // from when they were to be opened to their end, of answered ones
}

func (c *clientCounts) answered() (n uint64) {
	for _, m := range c.Answered {
		n += m
	}
	return n
}

// clientOptions says what clients do.
type clientOptions struct {
	To       []netip.AddrPort // in turn, IPv4
	From     []netip.Addr     // in turn
	Number   int              // of clients
	Rate     int              // connections per second; 0 for as many as the clients can open
	Backends int              // that may answer
	Patience time.Duration    // after which a connection has failed
}

// clients opens connections.
type clients struct {
	clientOptions

	stopping atomic.Bool
	epoll    int
	slots    []slot
	free     []int32

	mu     sync.Mutex
	counts clientCounts
}

// slot is one client.
type slot struct {
	fd     int // -1 if there is no connection
	due    time.Time
	opened time.Time
	sent   bool
	answer byte // zero until there is one
}

func newClients(opt clientOptions) (*clients, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("new clients: %w", err)
	}
	c := &clients{clientOptions: opt, epoll: epoll, slots: make([]slot, opt.Number)}
	for i := range c.slots {
		c.slots[i].fd = -1
		c.free = append(c.free, int32(i))
	}
	c.counts.Answered, c.counts.Failed = make([]uint64, opt.Backends), make(map[string]uint64)
	return c, nil
}

// status returns all counts as they are now. It may be called at any time.
func (c *clients) status() clientCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Answered, s.Failed = slices.Clone(s.Answered), maps.Clone(s.Failed)
	return s
}

// stop has run return when all open connections have ended.
func (c *clients) stop() { c.stopping.Store(true) }

// run opens connections until stop is called.
func (c *clients) run() error {
	runtime.LockOSThread()
	defer unix.Close(c.epoll)
	start := time.Now()
	scheduled, expired := 0, start
	events := make([]unix.EpollEvent, 256)
	for {
		now := time.Now()
		stopping := c.stopping.Load()
		if stopping && len(c.free) == len(c.slots) {
			return nil
		}
		for !stopping && len(c.free) > 0 {
			due := now
			if c.Rate > 0 {
				due = start.Add(time.Duration(scheduled) * time.Second / time.Duration(c.Rate))
				if due.After(now) {
					break
				}
			}
			scheduled++
			if err := c.open(due, now); err != nil {
				return err
			}
		}
		n, err := unix.EpollWait(c.epoll, events, 1) // a rate is kept in steps of a millisecond
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("run clients: wait: %w", err)
		}
		c.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			c.proceed(e.Fd, e.Events)
		}
		if now.Sub(expired) > c.Patience/10 {
			expired = now
			c.expire(now)
		}
		c.mu.Unlock()
	}
}

// late is how long a connection may be opened after its time without counting as
// late: more than the clients' own pace.
const late = 10 * time.Millisecond

// open opens a connection that was due then. What is wrong with the connection
// is counted; an error is wrong with the client.
func (c *clients) open(due, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.free[len(c.free)-1]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open connection: %w", err)
	}
	n := int(c.counts.Opened)
	from, to := c.From[n%len(c.From)], c.To[n%len(c.To)]
	err = errors.Join(
		// The port is chosen when it is known who it is to.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
		unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: i,
		}))
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("open connection from %s: %w", from, err)
	}
	c.free = c.free[:len(c.free)-1]
	c.counts.Opened++
	if now.Sub(due) > late {
		c.counts.Late++
	}
	c.slots[i] = slot{fd: fd, due: due, opened: now}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		c.fail(i, err.Error())
	}
	return nil
}

// proceed does what an event on a client's connection allows.
func (c *clients) proceed(i int32, events uint32) {
	s := &c.slots[i]
	if s.fd < 0 {
		return
	}
	if events&unix.EPOLLERR != 0 {
		number, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil {
			err = unix.Errno(number)
		}
		c.fail(i, err.Error())
		return
	}
	if !s.sent {
		if _, err := unix.Write(s.fd, []byte{request}); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				c.fail(i, err.Error())
			}
			return
		}
		s.sent = true
	}
	if events&unix.EPOLLIN == 0 {
		return
	}
	var b [8]byte
	n, err := unix.Read(s.fd, b[:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return
	case err != nil:
		c.fail(i, err.Error())
		return
	case n == 1 && s.answer == 0 && b[0] >= answerOf(0) && b[0] < answerOf(c.Backends):
		s.answer = b[0]
	case n > 0:
		c.fail(i, failedAnswer)
		return
	}
	// All that has come was read, so what is left to read is the end.
	if events&unix.EPOLLRDHUP == 0 {
		return
	}
	if s.answer == 0 {
		c.fail(i, failedUnanswered)
		return
	}
	c.counts.Answered[s.answer-answerOf(0)]++
	c.counts.Took.Add(time.Since(s.due))
	c.end(i)
}

// fail ends a connection that has failed.
func (c *clients) fail(i int32, reason string) {
	c.counts.Failed[reason]++
	c.end(i)
}

func (c *clients) end(i int32) {
	unix.Close(c.slots[i].fd) // and with that it is out of the epoll set
	c.slots[i].fd = -1
	c.free = append(c.free, i)
}

// expire ends connections that take too long.
func (c *clients) expire(now time.Time) {
	for i := range c.slots {
		if s := &c.slots[i]; s.fd >= 0 && now.Sub(s.opened) > c.Patience {
			c.fail(int32(i), failedTime)
		}
	}
}
