package afxdp

import (
	"fmt"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// frameOverhead is what a received frame has beside its MTU's worth of packet:
// an Ethernet header and one 802.1Q tag.
const frameOverhead = 14 + 4

// frameSize returns the size of a packet buffer that can hold every frame of an
// interface, behind the headroom that the kernel leaves. The kernel knows two
// sizes on all machines: 2048 bytes and a page (net/xdp/xdp_umem.c).
func frameSize(mtu int) (int, error) {
	for _, size := range []int{2048, 4096} {
		if unix.XDP_PACKET_HEADROOM+frameOverhead+mtu <= size {
			return size, nil
		}
	}
	const most = 4096 - unix.XDP_PACKET_HEADROOM - frameOverhead
	return 0, fmt.Errorf("an MTU of %d does not fit a packet buffer: set it to %d or less, or use another driver", mtu, most)
}

// ReceiveQueues returns how many receive queues the interface of this name has
// in use.
func ReceiveQueues(ifname string) (int, error) {
	nic, err := netlink.LinkByName(ifname)
	if err != nil {
		return 0, fmt.Errorf("look up interface: %w", err)
	}
	rx, _ := countQueues(nic.Attrs())
	return rx, nil
}

// pairQueues returns how many queues the interface has in use. A queue has one
// number for both directions here, so each receive queue needs a transmit queue.
func pairQueues(nic *netlink.LinkAttrs) (int, error) {
	rx, tx := countQueues(nic)
	if tx < rx {
		return 0, fmt.Errorf("the interface has %d receive and only %d transmit queues: make them equal with ethtool -L %s rx %d tx %d",
			rx, tx, nic.Name, tx, tx)
	}
	return rx, nil
}

// countQueues returns how many receive and transmit queues are in use.
func countQueues(nic *netlink.LinkAttrs) (rx, tx int) {
	rx, tx, err := channels(nic.Name)
	if err != nil {
		// The driver has no channels to set, so all its queues are in use.
		return nic.NumRxQueues, nic.NumTxQueues
	}
	return rx, tx
}

// channels asks the driver how many of its queues are in use.
func channels(ifname string) (rx, tx int, err error) {
	nic, err := ethtool.NewEthtool()
	if err != nil {
		return 0, 0, err
	}
	defer nic.Close()
	c, err := nic.GetChannels(ifname)
	if err != nil {
		return 0, 0, err
	}
	rx, tx = int(c.RxCount+c.CombinedCount), int(c.TxCount+c.CombinedCount)
	if rx == 0 || tx == 0 {
		return 0, 0, fmt.Errorf("driver says %d receive and %d transmit queues", rx, tx)
	}
	return rx, tx, nil
}
