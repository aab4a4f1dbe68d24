package via

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

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
	p := &probe{way: way, to: to.Addr().Unmap(), losses: n.losses.Load()}
	inner, err := n.steered.Load().DialContext(ctx, network, to, way)
	if err != nil {
		return nil, n.explain(err, p)
	}
	c := &conn{Conn: inner, network: n, probe: p}
	if network == "udp" {
		c.most = n.datagram(way, p.to)
	} else {
		p.answered.Store(true)
	}
	return c, nil
}

// Ping implements health.Network.
func (n *Network) Ping(ctx context.Context, to netip.Addr, way string) error {
	if way == "" {
		return n.plain.Ping(ctx, to, way)
	}
	p := &probe{way: way, to: to.Unmap(), losses: n.losses.Load()}
	return n.explain(n.steered.Load().Ping(ctx, to, way), p)
}

// probe is what has to be known of one to explain why it failed.
type probe struct {
	way      string
	to       netip.Addr
	losses   uint64      // of the device, before it began
	answered atomic.Bool // whatever fails after that, packets go there and back
}

// conn is a connection by a way.
type conn struct {
	net.Conn
	network *Network
	probe   *probe
	most    int // bytes of a datagram; 0: any
}

// Read explains a deadline that has passed for a reason of this box's own.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		c.probe.answered.Store(true)
	} else if err != io.EOF { // callers compare that one
		err = c.network.explain(err, c.probe)
	}
	return n, err
}

// Write refuses a datagram that would be dropped further on. A stream has shorter
// segments where the way has less room, see Options.
func (c *conn) Write(b []byte) (int, error) {
	if c.most != 0 && len(b) > c.most {
		return 0, fmt.Errorf("a datagram of %d bytes does not fit the way to the backend, which takes %d: %w", len(b), c.most, health.ErrUnable)
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error { return c.network.flows.close(c.Conn) }

// Options implements health.Steering: it marks a socket. The TTL tells workers of a
// packet that comes back whether a backend has forwarded it, whatever the box's
// own default.
//
// Where the way has less room than the device, as by a tunnel or with mtu: 1200, a
// TCP socket is told how long its segments may be. To answer by ICMP that a packet
// is too big, as a router does, would not be enough: with rp_filter the kernel
// drops what comes out of the device from the VIP, and IPv6 goes no lower than 1280.
func (n *Network) Options(fd int, key string, to netip.AddrPort) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(n.routing.now.Load().mark))
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
		return fmt.Errorf("set TTL: %w: %w", health.ErrUnable, err)
	}
	room := n.room(key, to.Addr())
	if room >= deviceMTU {
		return nil
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol == unix.IPPROTO_TCP {
		const leastMSS = 88 // that tcp(7) takes
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, max(room-headerLen(to.Addr())-packet.TCPMinLen, leastMSS))
	}
	if err != nil {
		return fmt.Errorf("set TCP_MAXSEG: %w: %w", health.ErrUnable, err)
	}
	return nil
}

// room returns how long packets by a way may be, in bytes: deviceMTU at most.
func (n *Network) room(key string, to netip.Addr) int {
	w := n.wayOf(key)
	switch {
	case w != nil && to.Is4() && w.Has4:
		return min(int(w.IPv4.Room()), deviceMTU)
	case w != nil && to.Is6() && w.Has6:
		return min(int(w.IPv6.Room()), deviceMTU)
	}
	return deviceMTU
}

// datagram returns how much a UDP packet by a way may carry.
func (n *Network) datagram(key string, to netip.Addr) int {
	return max(n.room(key, to)-headerLen(to)-packet.UDPLen, 1)
}

func headerLen(a netip.Addr) int {
	if a.Is6() {
		return packet.IPv6Len
	}
	return packet.IPv4MinLen
}

// Source implements health.Steering.
func (n *Network) Source(key string, to netip.Addr) (netip.Addr, error) {
	w, err := n.way(key, to)
	if err != nil {
		return netip.Addr{}, err
	}
	source, err := n.source(w, to)
	if err != nil {
		return source, err
	}
	if err := n.routing.from(source); err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", err, health.ErrUnable)
	}
	return source, nil
}

func (n *Network) source(w *Way, to netip.Addr) (netip.Addr, error) {
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
	w := n.wayOf(key)
	switch {
	case n.flows.isOver():
		return nil, fmt.Errorf("%w: %w", ErrClosed, health.ErrUnable)
	case w == nil:
		return nil, fmt.Errorf("no way to the backend is known yet: %w", health.ErrNotNow)
	case w.Reason != "" && w.Unreachable:
		return nil, fmt.Errorf("the backend cannot be reached: %s", w.Reason)
	case w.Reason != "":
		return nil, fmt.Errorf("no way to the backend: %s: %w", w.Reason, health.ErrNotNow)
	case n.routing.now.Load().why(to.Is6()) != nil:
		return nil, fmt.Errorf("%w: %w", n.routing.now.Load().why(to.Is6()), health.ErrUnable)
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
// learned about the backend. A backend that has said anything, be it no, is not
// excused.
func (n *Network) explain(err error, p *probe) error {
	switch {
	case err == nil || errors.Is(err, health.ErrUnable):
		return err
	case n.losses.Load() != p.losses:
		return fmt.Errorf("%w, but the device was lost meanwhile: %w", err, health.ErrUnable)
	case p.answered.Load() || !isSilence(err):
		return err
	}
	problem := n.routing.keep(p.to.Is6())
	if problem == nil {
		if w := n.wayOf(p.way); w != nil {
			if from, err := n.source(w, p.to); err == nil {
				problem = n.routing.from(from)
			}
		}
	}
	if problem != nil {
		return fmt.Errorf("%w, but %w: %w", err, problem, health.ErrUnable)
	}
	if problem := n.Filtered(p.way, p.to); problem != "" {
		return fmt.Errorf("%w, but %s: %w", err, problem, health.ErrUnable)
	}
	return err
}

// isSilence tells whether an error may have come about without a word from the
// backend.
func isSilence(err error) bool {
	for _, silence := range []error{
		os.ErrDeadlineExceeded, context.DeadlineExceeded, unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH,
	} {
		if errors.Is(err, silence) {
			return true
		}
	}
	return false
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

// Leads tells from which address of this box's and by which device packets for a
// VIP leave by a way, as the kernel's routes and rules are now. The error says why
// they do not, naming the fix behind a semicolon; source is not valid if the way or
// an address to ask from is missing already.
func (n *Network) Leads(key string, vip netip.Addr) (source netip.Addr, device string, err error) {
	w, err := n.way(key, vip)
	if err != nil {
		return source, "", err
	}
	if source, err = n.source(w, vip); err != nil {
		return source, "", err
	}
	return source, n.Device(), n.routing.lookup(source, vip)
}

func familyOf(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}
