package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Iface says what an interface is to be like.
type Iface struct {
	Name   string           // at most 15 bytes
	MAC    net.HardwareAddr // nil: the kernel picks one
	Addrs  []netip.Prefix
	MTU    int // bytes of IP packet; 0: 1500
	Queues int // receive and transmit queues, each; 0: 1
}

// Link is an interface as it is at one moment.
type Link struct {
	Name  string
	Index int // in the host's namespace
	MAC   net.HardwareAddr
}

// cableEnd is an interface in a namespace.
type cableEnd struct {
	ns   *namespace
	name string
}

// Connect gives the host an interface that is cabled to the switch, and waits
// until the link is up.
func (h *Host) Connect(s *Switch, iface Iface) (Link, error) {
	h.lab.mu.Lock()
	h.lab.ports++
	port := fmt.Sprintf("port%d", h.lab.ports)
	h.lab.mu.Unlock()
	operation := fmt.Sprintf("connect %s to switch %s", iface.Name, s.name)
	err := h.cable(iface, s.ns, Iface{Name: port, MTU: iface.MTU, Queues: iface.Queues})
	if err != nil {
		return Link{}, h.wrap(operation, err)
	}
	err = s.ns.do(func() error {
		bridge, err := netlink.LinkByName(s.bridge())
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return errors.Join(
			netlink.LinkSetAlias(link, h.name+" "+iface.Name),
			netlink.LinkSetMaster(link, bridge))
	})
	if err != nil {
		return Link{}, h.wrap(operation, err)
	}
	if err := bringUp(cableEnd{s.ns, port}, cableEnd{h.ns, iface.Name}); err != nil {
		return Link{}, h.wrap(operation, err)
	}
	return h.Link(iface.Name)
}

// ConnectTo cables an interface of this host to one of another, both new, and
// waits until the link is up.
func (h *Host) ConnectTo(other *Host, mine, theirs Iface) error {
	err := h.cable(mine, other.ns, theirs)
	if err == nil {
		err = bringUp(cableEnd{other.ns, theirs.Name}, cableEnd{h.ns, mine.Name})
	}
	return h.wrap(fmt.Sprintf("connect %s to %s of %s", mine.Name, theirs.Name, other.name), err)
}

// Cable cables an interface of this host to one of another, both new, and leaves
// both down: see [Host.LinkUp].
func (h *Host) Cable(other *Host, mine, theirs Iface) error {
	return h.wrap(fmt.Sprintf("cable %s to %s of %s", mine.Name, theirs.Name, other.name), h.cable(mine, other.ns, theirs))
}

// cable creates a veth pair, down, with addresses and without offloads.
func (h *Host) cable(mine Iface, farNS *namespace, theirs Iface) error {
	far, err := netns.GetFromName(farNS.name)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", farNS.name, err)
	}
	defer far.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = mine.Name
	attrs.MTU = mine.MTU
	attrs.HardwareAddr = mine.MAC
	attrs.NumTxQueues = max(mine.Queues, 1)
	attrs.NumRxQueues = max(mine.Queues, 1)
	veth := netlink.NewVeth(attrs)
	veth.PeerName = theirs.Name
	veth.PeerMTU = uint32(theirs.MTU)
	veth.PeerHardwareAddr = theirs.MAC
	veth.PeerNumTxQueues = uint32(max(theirs.Queues, 1))
	veth.PeerNumRxQueues = uint32(max(theirs.Queues, 1))
	veth.PeerNamespace = netlink.NsFd(far)
	if err := h.ns.do(func() error { return netlink.LinkAdd(veth) }); err != nil {
		return fmt.Errorf("create veth pair: %w", err)
	}
	a, b := cableEnd{h.ns, mine.Name}, cableEnd{farNS, theirs.Name}
	h.lab.mu.Lock()
	h.lab.far[a], h.lab.far[b] = b, a
	h.lab.mu.Unlock()
	return errors.Join(a.configure(mine.Addrs), b.configure(theirs.Addrs))
}

// configure switches offloads off and adds addresses.
func (e cableEnd) configure(addrs []netip.Prefix) error {
	return e.ns.do(func() error {
		if err := offloadsOff(e.name); err != nil {
			return fmt.Errorf("switch offloads of %s off: %w", e.name, err)
		}
		link, err := netlink.LinkByName(e.name)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if err := netlink.AddrAdd(link, address(addr)); err != nil {
				return fmt.Errorf("add address %s: %w", addr, err)
			}
		}
		return nil
	})
}

// offloads are what a veth would otherwise leave to a NIC that is not there:
// its frames would show up with unfinished checksums, longer than the MTU, or
// with the tag beside the frame, to whoever reads them before the kernel does.
// The names are those of the kernel's net/ethtool/common.c.
var offloads = []string{
	"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp",
	"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation",
	"tx-udp-segmentation", "tx-generic-segmentation", "rx-gro", "tx-vlan-hw-insert", "tx-vlan-stag-hw-insert",
}

// offloadsOff acts on the namespace of the calling thread.
func offloadsOff(name string) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	states, err := tool.FeaturesWithState(name)
	if err != nil {
		return err
	}
	off := make(map[string]bool)
	for _, feature := range offloads {
		if s := states[feature]; s.Active && s.Available {
			off[feature] = false
		}
	}
	if len(off) == 0 {
		return nil
	}
	return tool.Change(name, off)
}

// bringUp sets both ends up and waits for the link.
func bringUp(ends ...cableEnd) error {
	for _, e := range ends {
		if err := e.ns.setUp(e.name); err != nil {
			return err
		}
	}
	for _, e := range ends {
		if err := e.ns.awaitUp(e.name); err != nil {
			return err
		}
	}
	return nil
}

// setUp sets an interface administratively up.
func (ns *namespace) setUp(name string) error {
	err := ns.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// awaitUp waits until the kernel has noticed that an interface has a carrier,
// if it has one. Only then do IPv6 addresses work; the kernel may take a second
// about it (net/core/link_watch.c).
func (ns *namespace) awaitUp(name string) error {
	const lowerUp = 1 << 16 // IFF_LOWER_UP: carrier, not delayed
	deadline := time.Now().Add(10 * time.Second)
	return ns.do(func() error {
		for {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("await link of %s: %w", name, err)
			}
			attrs := link.Attrs()
			if attrs.OperState == netlink.OperUp || attrs.RawFlags&lowerUp == 0 {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("await link of %s: still %s", name, attrs.OperState)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// Link returns what the interface is like now.
func (h *Host) Link(name string) (Link, error) {
	var l Link
	err := h.ns.do(func() (err error) {
		l, err = linkByName(name)
		return err
	})
	return l, h.wrap("look up "+name, err)
}

// linkByName acts on the namespace of the calling thread.
func linkByName(name string) (Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Link{}, err
	}
	attrs := link.Attrs()
	return Link{Name: attrs.Name, Index: attrs.Index, MAC: attrs.HardwareAddr}, nil
}

// SetMAC changes the interface's MAC address, up or down.
func (h *Host) SetMAC(name string, mac net.HardwareAddr) error {
	return h.withLink(fmt.Sprintf("set mac of %s to %s", name, mac), name, func(link netlink.Link) error {
		return netlink.LinkSetHardwareAddr(link, mac)
	})
}

// LinkDown sets the interface administratively down. As on any host, the routes
// through it are gone then; addresses stay.
func (h *Host) LinkDown(name string) error {
	return h.withLink("set "+name+" down", name, netlink.LinkSetDown)
}

// LinkUp sets the interface administratively up and waits for the link, at both
// ends, if the other end is up.
func (h *Host) LinkUp(name string) error {
	far, err := h.farEnd(name)
	if err == nil {
		err = errors.Join(h.ns.setUp(name), h.ns.awaitUp(name), far.ns.awaitUp(far.name))
	}
	return h.wrap("set "+name+" up", err)
}

// LinkDelete deletes the interface, and with it the other end of its cable.
func (h *Host) LinkDelete(name string) error {
	if err := h.withLink("delete "+name, name, netlink.LinkDel); err != nil {
		return err
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	end := cableEnd{h.ns, name}
	delete(h.lab.far, h.lab.far[end])
	delete(h.lab.far, end)
	return nil
}

// Unplug pulls the cable out of the interface: it stays administratively up and
// loses its carrier.
func (h *Host) Unplug(name string) error {
	far, err := h.farEnd(name)
	if err == nil {
		err = far.ns.do(func() error {
			link, err := netlink.LinkByName(far.name)
			if err != nil {
				return err
			}
			return netlink.LinkSetDown(link)
		})
	}
	return h.wrap("unplug "+name, err)
}

// Plug puts the cable back and waits for the link, if the interface is up.
func (h *Host) Plug(name string) error {
	far, err := h.farEnd(name)
	if err == nil {
		err = errors.Join(far.ns.setUp(far.name), far.ns.awaitUp(far.name), h.ns.awaitUp(name))
	}
	return h.wrap("plug "+name, err)
}

func (h *Host) farEnd(name string) (cableEnd, error) {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	far, ok := h.lab.far[cableEnd{h.ns, name}]
	if !ok {
		return cableEnd{}, errors.New("no cable there")
	}
	return far, nil
}
