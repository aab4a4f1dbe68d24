package nic

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// receiveMulticast has the NIC take in all multicast frames: neighbour
// solicitations for a VIP go to a group (RFC 4291 section 2.7.1) that the
// kernel, which knows of no VIP, has not joined. The membership hangs on a
// socket that receives nothing, and ends with it, however the process ends.
func (n *NIC) receiveMulticast(ifi *net.Interface) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket (CAP_NET_RAW is needed): %w", err)
	}
	mreq := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_ALLMULTI}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("receive all multicast: %w", err)
	}
	n.closers = append(n.closers, func() error { return unix.Close(fd) })
	return nil
}
