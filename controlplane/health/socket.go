package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connected socket of the runtime's poller.
type conn struct {
	file      *os.File
	peer      netip.AddrPort
	datagrams bool

	once    sync.Once
	release func() // may be nil
}

// finish waits until the TCP connection is made. Another connect(2) is the one
// call that says how far it is.
func (c *conn) finish(ctx context.Context, peer unix.Sockaddr) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.file.SetDeadline(time.Unix(1, 0)) })()
	var result error
	err = raw.Write(func(fd uintptr) bool {
		switch err := unix.Connect(int(fd), peer); err {
		case nil, unix.EISCONN:
			return true
		case unix.EALREADY, unix.EINPROGRESS, unix.EINTR:
			return false
		default:
			result = os.NewSyscallError("connect", err)
			return true
		}
	})
	if err != nil {
		return err
	}
	return result
}

// Read implements net.Conn. A datagram may be empty, which an os.File takes
// for the end.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	if c.datagrams && err == io.EOF {
		err = nil
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error)        { return c.file.Write(p) }
func (c *conn) SetDeadline(t time.Time) error      { return c.file.SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.file.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
func (c *conn) RemoteAddr() net.Addr               { return c.address(c.peer) }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr {
	var local netip.AddrPort
	if raw, err := c.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if name, err := unix.Getsockname(int(fd)); err == nil {
				local = addrPort(name)
			}
		})
	}
	return c.address(local)
}

func (c *conn) address(a netip.AddrPort) net.Addr {
	if c.datagrams {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

// Close implements net.Conn. The flow is released after its last packet.
func (c *conn) Close() error {
	err := c.file.Close()
	c.once.Do(func() {
		if c.release != nil {
			c.release()
		}
	})
	return err
}

var errNoAddress = errors.New("no address")

// sockaddr returns the form of an address that system calls take.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	addr := a.Addr()
	switch {
	case addr.Is4():
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: addr.As4()}, nil
	case addr.Is6():
		zone, err := zoneID(addr)
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: addr.As16(), ZoneId: zone}, err
	}
	return nil, errNoAddress
}

// zoneID returns the index of the interface that a link-local address is on.
func zoneID(a netip.Addr) (uint32, error) {
	if a.Zone() == "" {
		return 0, nil
	}
	if index, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(index), nil
	}
	link, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w: %w", a.Zone(), ErrUnable, err)
	}
	return uint32(link.Index), nil
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}
