package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/packet"
)

// examination is one run of a Doctor.
type examination struct {
	subject  Subject
	steering Steering
	timeout  time.Duration
	watch    *watch

	plain *health.Kernel // by the kernel's routes
	full  *health.Kernel // by the way of traffic
	near  *health.Kernel // the same, but good for the next hop alone

	// Found by route: the device and NIC that frames leave by, and to whom.
	device netlink.Link
	nic    string
	next   netip.Addr

	// Found by reach: the backend has answered in any way at its own address.
	alive bool

	// Found by way: VIPs that cannot be asked for.
	astray []netip.Addr
}

func (d *Doctor) begin(s Subject) (*examination, error) {
	s.Backend = s.Backend.Unmap()
	w, err := newWatch(s.Backend)
	if err != nil {
		return nil, err
	}
	e := &examination{subject: s, steering: d.steering, timeout: d.timeout, watch: w}
	e.plain = health.NewKernel(&tap{watch: w})
	if d.steering == nil {
		return e, nil
	}
	// The tunnel takes one hop off.
	ttl := 1
	if s.Mode == IPIP {
		ttl = 2
	}
	e.full = health.NewKernel(&tap{watch: w, base: d.steering})
	e.near = health.NewKernel(&tap{watch: w, base: d.steering, ttl: ttl})
	return e, nil
}

func (e *examination) end() {
	for _, k := range []*health.Kernel{e.plain, e.full, e.near} {
		if k != nil {
			_ = k.Close() // its sockets are gone either way
		}
	}
	e.watch.close()
}

// tap is a steering that has the watch look for the answers to a flow before its
// first packet leaves.
type tap struct {
	watch *watch
	base  health.Steering // nil: the kernel's routes
	ttl   int             // 0: the kernel's own
}

func (t *tap) Options(fd int, way string, to netip.AddrPort) error {
	if t.base != nil {
		if err := t.base.Options(fd, way, to); err != nil {
			return err
		}
	}
	if t.ttl != 0 {
		// The socket is of one family or the other, and takes its own.
		err4 := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, t.ttl)
		err6 := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, t.ttl)
		if err4 != nil && err6 != nil {
			return fmt.Errorf("set TTL: %w", err4)
		}
	}
	return nil
}

func (t *tap) Source(way string, to netip.Addr) (netip.Addr, error) {
	if t.base == nil {
		return netip.Addr{}, nil
	}
	return t.base.Source(way, to)
}

func (t *tap) Register(way string, f health.Flow) (func(), error) {
	if err := t.watch.focus(f); err != nil {
		return nil, err
	}
	if t.base == nil {
		return nil, nil
	}
	return t.base.Register(way, f)
}

// outcome is what has become of a probe.
type outcome uint8

const (
	answered outcome = iota
	refused          // by a TCP reset
	rejected         // by an ICMP error
	silent
	unable // it could not be made; it says nothing about the backend
)

// result is a probe's.
type result struct {
	outcome outcome
	err     error
	took    time.Duration
	flow    health.Flow
	seen    []seen
}

// tcp connects.
func (e *examination) tcp(ctx context.Context, k *health.Kernel, to netip.AddrPort, way string) result {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_ = e.watch.focus(health.Flow{})
	started := time.Now()
	c, err := k.DialContext(ctx, "tcp", to, way)
	r := result{err: err, took: time.Since(started)}
	if err == nil {
		_ = c.Close()
	}
	return e.judge(r)
}

// ping asks for an echo.
func (e *examination) ping(ctx context.Context, k *health.Kernel, to netip.Addr, way string) result {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	_ = e.watch.focus(health.Flow{})
	started := time.Now()
	err := k.Ping(ctx, to, way)
	return e.judge(result{err: err, took: time.Since(started)})
}

// judge names the outcome of a probe. That a connection was refused may be said
// by a reset or by an ICMP error, and only the watch can tell.
func (e *examination) judge(r result) result {
	if r.err == nil {
		r.outcome = answered
		return r
	}
	if errors.Is(r.err, unix.ECONNREFUSED) {
		e.watch.await(moment, func(f health.Flow, s *seen) bool { return s.isReset(f) || s.kind == problem })
	}
	r.flow, r.seen = e.watch.probe()
	switch {
	case errors.Is(r.err, health.ErrUnable):
		r.outcome = unable
	case r.has(func(s *seen) bool { return s.isReset(r.flow) }):
		r.outcome = refused
	case errors.Is(r.err, unix.ECONNREFUSED), errors.Is(r.err, unix.EHOSTUNREACH), errors.Is(r.err, unix.ENETUNREACH),
		errors.Is(r.err, unix.EACCES), errors.Is(r.err, unix.EPROTO),
		r.has(func(s *seen) bool { return s.kind == problem }):
		r.outcome = rejected
	case errors.Is(r.err, context.DeadlineExceeded), errors.Is(r.err, unix.ETIMEDOUT), isTimeout(r.err):
		r.outcome = silent
	default:
		r.outcome = unable
	}
	return r
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (r *result) has(match func(*seen) bool) bool { return r.find(match) != nil }

// find returns the first packet that matches; nil for none.
func (r *result) find(match func(*seen) bool) *seen {
	for i := range r.seen {
		if match(&r.seen[i]) {
			return &r.seen[i]
		}
	}
	return nil
}

func (s *seen) isReset(f health.Flow) bool {
	return s.kind == segment && s.flag&packet.TCPRst != 0 && s.from == f.Remote.Addr()
}
