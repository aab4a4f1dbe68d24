package via

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"weir/controlplane/health"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
)

var (
	_ health.Network  = (*Network)(nil)
	_ health.Steering = (*Network)(nil)
)

// DialContext implements health.Network. The way "" stands for the kernel's own
// routes; any other is a key of SetWays.
//
// A connection by a way is closed a little after Close has returned, and then
// reset, so that what the server says in the meantime finds a socket.
func (n *Network) DialContext(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error) {
	if way == "" {
		return n.plain.DialContext(ctx, network, to, way)
	}
	inner, err := n.steered.DialContext(ctx, network, to, way)
	if err != nil {
		return nil, n.explain(err, way, to.Addr().Unmap())
	}
	return &conn{Conn: inner, network: n, way: way, to: to.Addr().Unmap()}, nil
}

// Ping implements health.Network.
func (n *Network) Ping(ctx context.Context, to netip.Addr, way string) error {
	if way == "" {
		return n.plain.Ping(ctx, to, way)
	}
	return n.explain(n.steered.Ping(ctx, to, way), way, to.Unmap())
}

// conn is a connection by a way.
type conn struct {
	net.Conn
	network *Network
	way     string
	to      netip.Addr
}

// Read explains a deadline that has passed for a reason of this box's own.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && err != io.EOF { // callers compare that one
		err = c.network.explain(err, c.way, c.to)
	}
	return n, err
}

func (c *conn) Close() error { return c.network.flows.close(c.Conn) }

// Options implements health.Steering: it marks a socket. The TTL tells workers of a
// packet that comes back whether a backend has forwarded it, whatever the box's
// own default.
func (n *Network) Options(fd int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(n.routing.mark))
	if err != nil {
		return fmt.Errorf("set SO_MARK (run as root or with CAP_NET_ADMIN): %w: %w", health.ErrUnable, err)
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, snapshot.ProbeTTL)
	} else if err == nil {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, snapshot.ProbeTTL)
	}
	if err != nil {
		return fmt.Errorf("set TTL: %w", err)
	}
	return nil
}

// Source implements health.Steering.
func (n *Network) Source(key string, to netip.Addr) (netip.Addr, error) {
	w, err := n.way(key, to)
	if err != nil {
		return netip.Addr{}, err
	}
	source := w.Source4
	if to.Is6() {
		source = w.Source6
	}
	if source.IsValid() {
		return source, nil
	}
	return n.sources.choose(w.Interface, to)
}

// way returns the way with this key, if it takes packets to this address now.
func (n *Network) way(key string, to netip.Addr) (*Way, error) {
	w := (*n.ways.Load())[key]
	switch {
	case n.flows.isOver():
		return nil, fmt.Errorf("%w: %w", ErrClosed, health.ErrUnable)
	case w == nil:
		return nil, fmt.Errorf("no way to the backend is known yet: %w", health.ErrUnable)
	case w.Reason != "":
		return nil, fmt.Errorf("no way to the backend: %s: %w", w.Reason, health.ErrUnable)
	case to.Is6() && n.routing.no6 != nil:
		return nil, fmt.Errorf("no IPv6 on this box: %w: %w", n.routing.no6, health.ErrUnable)
	case to.Is4() && !w.Has4, to.Is6() && !w.Has6:
		return nil, fmt.Errorf("the way to the backend takes no %s: %w", familyOf(to), health.ErrUnable)
	}
	return w, nil
}

// Register implements health.Steering.
func (n *Network) Register(key string, f health.Flow) (release func(), err error) {
	w, err := n.way(key, f.Remote.Addr())
	if err != nil {
		return nil, err
	}
	one := n.flows.begin(endpoint{packet.Addr16(f.Local.Addr()), f.Local.Port(), f.Protocol}, w)
	return func() { n.flows.end(one) }, nil
}

// explain adds to an error that this box is to blame for it: then nothing has been
// learned about the backend.
func (n *Network) explain(err error, key string, to netip.Addr) error {
	if err == nil || errors.Is(err, health.ErrUnable) {
		return err
	}
	if problem := n.routing.keep(); problem != nil {
		return fmt.Errorf("%w, but %w: %w", err, problem, health.ErrUnable)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if problem := n.Filtered(key, to); problem != "" {
		return fmt.Errorf("%w, but %s: %w", err, problem, health.ErrUnable)
	}
	return err
}

// Filtered says why this box's kernel drops answers from a VIP that were asked
// for by a way, naming the fix; "" if it takes them, or nobody can tell.
func (n *Network) Filtered(key string, vip netip.Addr) string {
	source, err := n.Source(key, vip)
	if err != nil || vip.Is6() {
		return ""
	}
	return n.sources.filtered(source, vip)
}

func familyOf(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}
