package nic

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// warnOfChecksums logs how to get finished checksums if the interface's other
// end is on this host. What is sent there has none yet (CHECKSUM_PARTIAL in
// include/linux/skbuff.h): the sender leaves them to a NIC that never comes. An
// XDP program is not told which frames these are, so weir would send them on as
// they are, and the receiver would drop them. AF_PACKET is told.
func warnOfChecksums(opt Options) error {
	link, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return fmt.Errorf("look up interface: %w", err)
	}
	if what, fix := unfinishedChecksums(link.Type()); fix != "" {
		opt.Log.Warn(what, "interface", opt.Interface, "fix", fix)
	}
	return nil
}

// unfinishedChecksums returns what to say about a kind of link, nothing if it
// hands over finished checksums.
func unfinishedChecksums(kind string) (what, fix string) {
	switch kind {
	case "veth":
		return "frames from this host's other end of the veth carry unfinished checksums, and AF_XDP cannot finish them",
			"on the other end: ethtool -K PEER tx off"
	case "tuntap": // as netlink.Tuntap calls it; "tun" to the kernel
		return "frames from the VM behind this tap may carry unfinished checksums, and AF_XDP cannot finish them",
			"in the VM: ethtool -K NIC tx off; or start it with its NIC's checksum offload off (QEMU virtio-net: csum=off)"
	}
	return "", ""
}
