package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// A socket belongs to the namespace of the thread that created it, and it stays
// there whichever threads use it afterwards. Package net creates a socket on
// the goroutine that asks for it as long as there is one address and no name to
// look up, so all of these take literal addresses only.

// Listen announces on an address inside the host, as [net.ListenConfig.Listen]
// does. Multipath TCP, which package net would try, is off: the lab's servers
// speak what the servers behind a load balancer mostly do.
func (h *Host) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	var l net.Listener
	err := h.withLiteral(address, func() (err error) {
		l, err = config.Listen(ctx, network, address)
		return err
	})
	return l, h.wrap("listen", err)
}

// ListenPacket announces on an address inside the host, as
// [net.ListenConfig.ListenPacket] does.
func (h *Host) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var config net.ListenConfig
	var c net.PacketConn
	err := h.withLiteral(address, func() (err error) {
		c, err = config.ListenPacket(ctx, network, address)
		return err
	})
	return c, h.wrap("listen packet", err)
}

// DialContext connects from inside the host, as [net.Dialer.DialContext] does.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.dial(ctx, net.Dialer{}, network, address)
}

// DialFrom returns a function that connects, over tcp or udp, from one of the
// host's addresses; port 0 is any port.
func (h *Host) DialFrom(local netip.AddrPort) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var dialer net.Dialer
		switch network {
		case "tcp", "tcp4", "tcp6":
			dialer.LocalAddr = net.TCPAddrFromAddrPort(local)
		case "udp", "udp4", "udp6":
			dialer.LocalAddr = net.UDPAddrFromAddrPort(local)
		default:
			return nil, h.wrap("dial from "+local.String(), net.UnknownNetworkError(network))
		}
		return h.dial(ctx, dialer, network, address)
	}
}

func (h *Host) dial(ctx context.Context, dialer net.Dialer, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.withLiteral(address, func() (err error) {
		c, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return c, h.wrap("dial", err)
}

// withLiteral runs f inside the host if address needs no name to be looked up.
// An empty host part means any address, to listen on.
func (h *Host) withLiteral(address string, f func() error) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%s: not a literal address", address)
		}
	}
	return h.ns.do(f)
}
