package nic

import (
	"fmt"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

// adviseOnChecksums logs how to get finished checksums if the interface's other
// end is on this host. What is sent there has none yet (CHECKSUM_PARTIAL in
// include/linux/skbuff.h): the sender leaves them to a NIC that never comes. An
// XDP program is not told which frames these are, so weir would send them on as
// they are, and the receiver would drop them. AF_PACKET is told.
func adviseOnChecksums(opt Options) error {
	link, err := netlink.LinkByName(opt.Interface)
	if err != nil {
		return fmt.Errorf("look up interface: %w", err)
	}
	switch link.Type() {
	case "veth":
		return adviseOnVeth(link, opt)
	case "tuntap": // as netlink.Tuntap calls it; "tun" to the kernel
		opt.Log.Warn("frames from the VM behind this tap may carry unfinished checksums, and AF_XDP cannot finish them",
			"interface", opt.Interface,
			"fix", "in the VM: ethtool -K NIC tx off; or start it with its NIC's checksum offload off (QEMU virtio-net: csum=off)")
	}
	return nil
}

// adviseOnVeth warns if the other end leaves checksums unfinished. In another
// network namespace, which is where containers have theirs, that is not to be
// seen: most do, but containerlab for one sees to it.
func adviseOnVeth(link netlink.Link, opt Options) error {
	peer := peerHere(link.Attrs())
	if peer == "" {
		opt.Log.Info("frames from the other end of this veth, in another network namespace, carry unfinished checksums unless that is switched off there, and AF_XDP cannot finish them",
			"interface", opt.Interface, "fix", "on the other end: ethtool -K PEER tx off")
		return nil
	}
	unfinished, err := leavesChecksums(peer)
	if err != nil {
		return err
	}
	if unfinished {
		opt.Log.Warn("frames from the other end of this veth carry unfinished checksums, and AF_XDP cannot finish them",
			"interface", opt.Interface, "fix", "ethtool -K "+peer+" tx off")
	}
	return nil
}

// peerHere returns the name of a veth's other end, nothing if that is in another
// network namespace.
func peerHere(veth *netlink.LinkAttrs) string {
	if veth.NetNsID != -1 || veth.ParentIndex == 0 {
		return ""
	}
	peer, err := netlink.LinkByIndex(veth.ParentIndex)
	if err != nil {
		return "" // it has just been moved away
	}
	return peer.Attrs().Name
}

// leavesChecksums tells whether the kernel leaves checksums of IP packets to an
// interface that sends them (NETIF_F_CSUM_MASK in include/linux/netdev_features.h).
func leavesChecksums(ifname string) (bool, error) {
	nic, err := ethtool.NewEthtool()
	if err != nil {
		return false, fmt.Errorf("open ethtool socket: %w", err)
	}
	defer nic.Close()
	features, err := nic.Features(ifname)
	if err != nil {
		return false, fmt.Errorf("read features of %s: %w", ifname, err)
	}
	for name, on := range features {
		if on && strings.HasPrefix(name, "tx-checksum-ip") {
			return true, nil
		}
	}
	return false, nil
}
