package sink

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"weir/lab/netlab"
)

// Ifb is a sink for a program that is measured together with its sending: an
// interface that drops whatever a program sends through it, and so takes next to
// nothing (drivers/net/ifb.c). It counts, and cannot look at what it is given:
// AF_XDP sends past every place where a BPF program could.
type Ifb struct {
	host *netlab.Host
	name string
}

// OpenIfb gives the host an ifb of that name with so many queues, receive and
// transmit each, and brings it up.
func OpenIfb(host *netlab.Host, name string, queues int) (*Ifb, error) {
	err := host.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = name, queues, queues
		ifb := &netlink.Ifb{LinkAttrs: attrs}
		if err := netlink.LinkAdd(ifb); err != nil {
			return fmt.Errorf("create ifb (needs a kernel with CONFIG_IFB): %w", err)
		}
		if err := netlink.LinkSetUp(ifb); err != nil {
			return errors.Join(err, netlink.LinkDel(ifb))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open sink: %w", err)
	}
	return &Ifb{host: host, name: name}, nil
}

// Taken returns what the ifb was given so far.
func (i *Ifb) Taken() (t Tally, err error) {
	err = i.host.Do(func() error {
		link, err := netlink.LinkByName(i.name)
		if err == nil {
			s := link.Attrs().Statistics // what it is given is what it receives: it stands for the other side
			t = Tally{Packets: s.RxPackets, Bytes: s.RxBytes}
		}
		return err
	})
	if err != nil {
		return Tally{}, fmt.Errorf("read ifb's counters: %w", err)
	}
	return t, nil
}

// Close removes the interface. It may be called twice.
func (i *Ifb) Close() error {
	err := i.host.Do(func() error {
		link, err := netlink.LinkByName(i.name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		return fmt.Errorf("close ifb: %w", err)
	}
	return nil
}
