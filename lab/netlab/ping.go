package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// pingTimeout is how long [Host.Ping] waits when its context has no deadline.
const pingTimeout = 2 * time.Second

// Types of ICMP messages, RFC 792 and RFC 4443 sections 4.1 and 4.2.
const (
	icmpEchoRequest  = 8
	icmpEchoReply    = 0
	icmp6EchoRequest = 128
	icmp6EchoReply   = 129
)

// Ping sends one ICMP echo request to an address and waits for the reply, until
// the context's deadline or, without one, for two seconds. A cancellation does
// not shorten the wait.
func (h *Host) Ping(ctx context.Context, addr netip.Addr) error {
	wait := pingTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	err := ctx.Err()
	if err == nil {
		err = h.ns.do(func() error { return echo(addr, max(wait, time.Millisecond)) })
	}
	return h.wrap("ping "+addr.String(), err)
}

// echo works from the calling thread's namespace through a ping socket
// (icmp(7), ping_group_range): the kernel fills in identifier and checksum, and
// delivers only what answers this socket.
func echo(addr netip.Addr, wait time.Duration) error {
	family, protocol, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, icmpEchoRequest, icmpEchoReply
	if addr.Is6() {
		family, protocol, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, icmp6EchoRequest, icmp6EchoReply
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("open ping socket: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(wait.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("set timeout: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(addr, 0))); err != nil {
		return fmt.Errorf("connect ping socket: %w", err)
	}
	const header = 8
	message := append([]byte{byte(request), 0, 0, 0, 0, 0, 0, 1}, "weir lab"...)
	if _, err := unix.Write(fd, message); err != nil {
		return fmt.Errorf("send echo request: %w", err)
	}
	answer := make([]byte, 128)
	n, err := unix.Read(fd, answer)
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("no reply in %v", wait.Round(time.Millisecond))
	}
	if err != nil {
		return fmt.Errorf("await echo reply: %w", err)
	}
	if n < header || answer[0] != byte(reply) || string(answer[header:n]) != string(message[header:]) {
		return fmt.Errorf("wrong reply % x", answer[:n])
	}
	return nil
}

func sockaddr(addr netip.AddrPort) unix.Sockaddr {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}
	}
	return &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
}
