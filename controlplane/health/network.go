package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnable says that a probe cannot be made on this box: there is no way to
// the backend yet, a file cannot be read, a privilege is missing. It says
// nothing about the backend, so it is no result. It is meant to be wrapped.
var ErrUnable = errors.New("cannot be made on this box")

// ErrNotNow is an ErrUnable that says nothing about later: the way to the backend is
// not known yet, or this box is too busy to look. It neither counts against the
// backend nor in its favour, however often it comes.
var ErrNotNow = fmt.Errorf("not now: %w", ErrUnable)

// Network carries probes to backends. All methods may be called from any
// goroutine.
type Network interface {
	// DialContext connects to a TCP port, or makes a UDP socket that talks to
	// one; network is "tcp" or "udp". The way is the check's: "" stands for the
	// kernel's routes. The connection may keep ctx's deadline. Closing it resets
	// a TCP connection. An error that wraps ErrUnable says that there is no such
	// way now.
	DialContext(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error)

	// Ping sends one ICMP echo request and returns nil when it is answered, or
	// an error when ctx ends before that.
	Ping(ctx context.Context, to netip.Addr, way string) error
}

// Steering makes the sockets of a Kernel take another way than the kernel's
// routes. For each connection and each echo request a Kernel calls, in this
// order: Options (for ICMP only once, when it opens its socket), Source,
// Register; only then a packet leaves. The functions may be called from any
// goroutine, at the same time.
//
// This is all that another implementation of Network needs: it embeds or holds
// NewKernel(itself) and does without sockets of its own.
type Steering interface {
	// Options sets options on a new socket, such as SO_MARK, before it is bound.
	// The socket for ICMP serves all ways: then way is empty and to not valid.
	Options(fd int, way string, to netip.AddrPort) error

	// Source returns the address of this box that packets by this way to this
	// address come from. Not valid: the kernel chooses. An error should wrap
	// ErrUnable if there is no such way.
	Source(way string, to netip.Addr) (netip.Addr, error)

	// Register is told the addresses of a flow before its first packet. Without
	// a Source, the address in Local is unspecified. The function that it returns
	// (nil: none) is called once, when the socket has been closed, or the echo
	// request was answered or given up. The kernel may have given the same local
	// port to another flow by then, and that one may be registered already: a
	// release must take back only what its own Register has put in. Packets that
	// the kernel sent before the close, such as its reset, may still be on the
	// way to whoever looks at them.
	Register(way string, flow Flow) (release func(), err error)
}

// Flow is one conversation of a probe.
type Flow struct {
	Protocol uint8          // IANA's number: TCP 6, UDP 17, ICMP 1, ICMPv6 58
	Local    netip.AddrPort // for ICMP, the port is the identifier of the echo request (RFC 792)
	Remote   netip.AddrPort // for ICMP, the port is zero
}

// Kernel is the Network of the kernel's sockets. It opens at most one raw ICMP
// socket per family, for the first ping, and owns it until Close. Pings need
// CAP_NET_RAW.
type Kernel struct {
	steering Steering // nil: the kernel's routes
	pings    [2]pinger
}

// NewKernel returns a Network of the kernel's sockets in the process's network
// namespace. Without a steering (nil), the only way that it knows is "". It
// opens and starts nothing.
func NewKernel(steering Steering) *Kernel {
	k := &Kernel{steering: steering}
	k.pings[0] = pinger{family: family4, options: k.options}
	k.pings[1] = pinger{family: family6, options: k.options}
	return k
}

// Close ends the pings under way and closes the sockets that they share.
// Connections are their owner's. It may be called twice.
func (k *Kernel) Close() error {
	return errors.Join(k.pings[0].close(), k.pings[1].close())
}

// options is for the sockets of pings.
func (k *Kernel) options(fd int) error {
	if k.steering == nil {
		return nil
	}
	return k.steering.Options(fd, "", netip.AddrPort{})
}

func (k *Kernel) source(way string, to netip.Addr) (netip.Addr, error) {
	if k.steering != nil {
		return k.steering.Source(way, to)
	}
	if way != "" {
		return netip.Addr{}, fmt.Errorf("no way %q: %w", way, ErrUnable)
	}
	return netip.Addr{}, nil
}

// Ping implements Network. The answer must come from the address that was
// asked, with the identifier, the sequence number and the random payload of
// the question.
func (k *Kernel) Ping(ctx context.Context, to netip.Addr, way string) error {
	to = to.Unmap()
	source, err := k.source(way, to)
	if err != nil {
		return err
	}
	p := &k.pings[0]
	if to.Is6() {
		p = &k.pings[1]
	}
	return p.ping(ctx, to, source, func(local netip.AddrPort) (func(), error) {
		if k.steering == nil {
			return nil, nil
		}
		return k.steering.Register(way, Flow{Protocol: p.family.protocol, Local: local, Remote: netip.AddrPortFrom(to, 0)})
	})
}

// DialContext implements Network. The connection keeps ctx's deadline.
//
// It does what net.Dialer does for one address, but without a goroutine, and
// with fewer system calls. Close resets a TCP connection instead of ending it in
// order (SO_LINGER of zero, socket(7)): otherwise thousands of checks leave
// tens of thousands of ports in TIME_WAIT.
func (k *Kernel) DialContext(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	conn, err := k.dial(ctx, network, to, way)
	if err != nil {
		return nil, fmt.Errorf("dial %s %v: %w", network, to, err)
	}
	return conn, nil
}

func (k *Kernel) dial(ctx context.Context, network string, to netip.AddrPort, way string) (net.Conn, error) {
	kind, protocol := unix.SOCK_STREAM, uint8(unix.IPPROTO_TCP)
	switch network {
	case "tcp":
	case "udp":
		kind, protocol = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	default:
		return nil, net.UnknownNetworkError(network)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	source, err := k.source(way, to.Addr())
	if err != nil {
		return nil, err
	}
	peer, err := sockaddr(to)
	if err != nil {
		return nil, err
	}
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	release, err := k.prepare(fd, way, Flow{Protocol: protocol, Local: netip.AddrPortFrom(source, 0), Remote: to})
	if err == nil {
		err = unix.Connect(fd, peer)
		if err == unix.EINPROGRESS || err == unix.EINTR {
			err = nil // it goes on
		} else {
			err = os.NewSyscallError("connect", err)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		if release != nil {
			release()
		}
		return nil, err
	}

	c := &conn{file: os.NewFile(uintptr(fd), network), peer: to, release: release, datagrams: network == "udp"}
	if deadline, ok := ctx.Deadline(); ok {
		err = c.file.SetDeadline(deadline)
	}
	if err == nil && !c.datagrams {
		err = c.finish(ctx, peer)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// prepare sets a new socket up and has it registered. Whatever it returns, the
// release function is the caller's to call after closing.
func (k *Kernel) prepare(fd int, way string, flow Flow) (release func(), err error) {
	if flow.Protocol == unix.IPPROTO_TCP {
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return nil, fmt.Errorf("set SO_LINGER: %w", err)
		}
		// Without it, a second segment waits for the peer's delayed acknowledgement.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return nil, fmt.Errorf("set TCP_NODELAY: %w", err)
		}
	}
	if k.steering == nil {
		return nil, nil
	}
	if err := k.steering.Options(fd, way, flow.Remote); err != nil {
		return nil, err
	}
	if !flow.Local.Addr().IsValid() {
		unspecified := netip.IPv4Unspecified()
		if flow.Remote.Addr().Is6() {
			unspecified = netip.IPv6Unspecified()
		}
		flow.Local = netip.AddrPortFrom(unspecified, 0)
	}
	local, err := sockaddr(flow.Local)
	if err != nil {
		return nil, err
	}
	err = unix.Bind(fd, local)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("bind to %v (no local port is free, see net.ipv4.ip_local_port_range): %w", flow.Local.Addr(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("bind to %v: %w", flow.Local.Addr(), err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	flow.Local = addrPort(name)
	return k.steering.Register(way, flow)
}
