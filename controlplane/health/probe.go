package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Probe describes what is asked of a target and which answer is good: one of
// TCP, HTTP, ICMP, UDP, DNS and GRPC. It is plain data: two that are deeply
// equal do the same.
type Probe interface {
	fmt.Stringer // the kind, as one lower-case word

	// complete returns a copy with defaults filled in, and with no memory shared.
	complete() Probe

	// prepare does what can be done once for all attempts on one target. An error
	// says that there will never be one.
	prepare(e *equipment, to netip.AddrPort) (attempt, error)
}

// attempt is one probe of one target. It ends when ctx does, at the latest.
type attempt func(ctx context.Context) error

// equipment is what attempts need of the world.
type equipment struct {
	network Network
	way     string
	shared  *shared
}

// shared is what the attempts of one Checker have in common.
type shared struct {
	credentials credentials
	readers     sync.Pool // of *answer
	datagrams   sync.Pool // of *[maxDatagram]byte
}

const maxDatagram = 1 << 16 // more than UDP can carry

func newShared() *shared {
	return &shared{
		credentials: credentials{known: map[TLS]*credential{}},
		readers: sync.Pool{New: func() any {
			a := &answer{}
			a.reader = bufio.NewReader(&a.limit)
			return a
		}},
		datagrams: sync.Pool{New: func() any { return new([maxDatagram]byte) }},
	}
}

// answer reads what comes from the network, up to a limit.
type answer struct {
	limit  io.LimitedReader
	reader *bufio.Reader
}

func (s *shared) read(from io.Reader, limit int64) *answer {
	a := s.readers.Get().(*answer)
	a.limit = io.LimitedReader{R: from, N: limit}
	a.reader.Reset(&a.limit)
	return a
}

func (s *shared) done(a *answer) {
	a.limit.R = nil
	s.readers.Put(a)
}

func (e *equipment) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return e.network.DialContext(ctx, network, to, e.way)
}

// limited has a connection's reads and writes fail when ctx ends. The function
// that it returns lifts that.
func limited(ctx context.Context, c net.Conn) func() bool {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// attemptOn returns the probe of a check as one attempt on all its targets.
func attemptOn(c Check, network Network, s *shared) attempt {
	unable := func(err error) attempt {
		return func(context.Context) error { return fmt.Errorf("%w: %w", ErrUnable, err) }
	}
	if len(c.Targets) == 0 {
		return unable(errors.New("no target"))
	}
	all := make([]attempt, len(c.Targets))
	for i, to := range c.Targets {
		var err error
		if all[i], err = c.Probe.prepare(&equipment{network: network, way: c.Way, shared: s}, to); err != nil {
			return unable(err)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return func(ctx context.Context) error {
		errs := make([]error, len(all))
		var others sync.WaitGroup
		for i := range all[1:] {
			others.Go(func() { errs[i+1] = explain(ctx, all[i+1](ctx), c.Timeout) })
		}
		errs[0] = explain(ctx, all[0](ctx), c.Timeout)
		others.Wait()
		return worst(c.Targets, errs)
	}
}

// worst returns the first failure of several targets, and only without one the
// first that could not be probed. It names the target.
func worst(targets []netip.AddrPort, errs []error) error {
	found, failures := -1, 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		failures++
		if found < 0 || ours(errs[found]) && !ours(err) {
			found = i
		}
	}
	switch failures {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%v: %w", targets[found], errs[found])
	}
	return fmt.Errorf("%v (and %d more): %w", targets[found], failures-1, errs[found])
}

// noAnswer is the error of a probe that took too long.
type noAnswer time.Duration

func (n noAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(n)) }

// explain returns a noAnswer in place of an error that the end of ctx is the
// cause of.
func explain(ctx context.Context, err error, timeout time.Duration) error {
	if err == nil || ours(err) || errors.As(err, new(noAnswer)) {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return noAnswer(timeout)
	}
	return err
}

// ours says whether a probe failed for want of something on this machine, and
// so says nothing about the backend.
func ours(err error) bool {
	if errors.Is(err, ErrUnable) {
		return true
	}
	for _, errno := range []unix.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS,
		unix.EADDRNOTAVAIL, // no local port is free, connect(2)
		unix.EADDRINUSE,    // the same for a socket with an address, bind(2)
		unix.EPERM,         // this box's own firewall, netfilter's answer to sendto(2)
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// TCP connects, and is content with that.
type TCP struct{}

func (TCP) String() string  { return "tcp" }
func (TCP) complete() Probe { return TCP{} }

func (TCP) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	return func(ctx context.Context) error {
		conn, err := e.dial(ctx, "tcp", to)
		if err != nil {
			return err
		}
		return conn.Close()
	}, nil
}

// ICMP sends an echo request (RFC 792, RFC 4443) and wants its answer.
type ICMP struct{}

func (ICMP) String() string  { return "icmp" }
func (ICMP) complete() Probe { return ICMP{} }

func (ICMP) prepare(e *equipment, to netip.AddrPort) (attempt, error) {
	return func(ctx context.Context) error { return e.network.Ping(ctx, to.Addr(), e.way) }, nil
}
