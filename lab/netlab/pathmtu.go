package netlab

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// PathMTU returns the longest packet in bytes that the host's kernel would send
// to an address: what the link takes, or less once an ICMP error has told it so
// (ip(7) and ipv6(7), IP_MTU and IPV6_MTU).
func (h *Host) PathMTU(addr netip.Addr) (int, error) {
	var mtu int
	err := h.ns.do(func() (err error) {
		mtu, err = pathMTU(addr)
		return err
	})
	return mtu, h.wrap("path mtu to "+addr.String(), err)
}

func pathMTU(addr netip.Addr) (int, error) {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU
	if addr.Is6() {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	const discard = 9
	mtu, err := 0, unix.Connect(fd, sockaddr(netip.AddrPortFrom(addr, discard)))
	if err == nil {
		mtu, err = unix.GetsockoptInt(fd, level, option)
	}
	return mtu, errors.Join(err, unix.Close(fd))
}
