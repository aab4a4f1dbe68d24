package afxdp

import (
	"fmt"
	"runtime"

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
// in use. Where its driver does not say, it is the number that there may be, but
// no more than the machine has CPUs.
func ReceiveQueues(ifname string) (int, error) {
	nic, err := netlink.LinkByName(ifname)
	if err != nil {
		return 0, fmt.Errorf("look up interface: %w", err)
	}
	c := countQueues(nic.Attrs())
	if !c.known {
		return min(c.rx, runtime.NumCPU()), nil
	}
	return c.rx, nil
}

// pairQueues returns how many queues the interface has in use, and whether that
// is known. A queue has one number for both directions here, so each receive
// queue needs a transmit queue.
func pairQueues(nic *netlink.LinkAttrs) (queues int, known bool, err error) {
	c := countQueues(nic)
	if c.tx < c.rx && c.known {
		return 0, true, fmt.Errorf("the interface has %d receive and only %d transmit queues: make them equal with ethtool -L %s rx %d tx %d",
			c.rx, c.tx, nic.Name, c.tx, c.tx)
	}
	return min(c.rx, c.tx), c.known, nil
}

// queueCount is how many queues are in use, or, if that is not known, how many
// there may be.
type queueCount struct {
	rx, tx int
	known  bool
}

func countQueues(nic *netlink.LinkAttrs) queueCount {
	if rx, tx, err := channels(nic.Name); err == nil {
		return queueCount{rx, tx, true}
	}
	return queueCount{nic.NumRxQueues, nic.NumTxQueues, false}
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
