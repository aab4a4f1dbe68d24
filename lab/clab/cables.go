package clab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"weir/lab/netlab"
)

// oui is what containerlab's MAC addresses begin with (links/endpoint.go). The
// rest counts the ends of all links, so that they are the same each time.
var oui = [3]byte{0xaa, 0xc1, 0xab}

// cable is a link of a lab that is up.
type cable struct {
	Link
	macs [2]net.HardwareAddr

	mu   sync.Mutex
	made bool
	gone bool
}

func newCables(l *Lab) []*cable {
	var all []*cable
	for i, link := range l.topology.Links {
		c := &cable{Link: link}
		for j, e := range link.Ends {
			number := 2*i + j + 1
			c.macs[j] = net.HardwareAddr{oui[0], oui[1], oui[2], byte(number >> 16), byte(number >> 8), byte(number)}
			if e.MAC != "" {
				c.macs[j], _ = net.ParseMAC(e.MAC) // has been checked
			}
		}
		all = append(all, c)
	}
	return all
}

func (c *cable) iface(end int) netlab.Iface {
	return netlab.Iface{Name: c.Ends[end].Interface, MAC: c.macs[end], MTU: c.MTU}
}

// createLinks makes the node's ends of its links and sets them up, in the file's
// order. As with containerlab, the other end of a link comes up when its own node
// gets that far.
func (n *node) createLinks(ctx context.Context) error {
	for _, c := range n.lab.cables {
		for end, e := range c.Ends {
			if e.Node != n.spec.Name {
				continue
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := n.lab.plug(c, end); err != nil {
				return fmt.Errorf("link %s: %w", c, err)
			}
		}
	}
	return nil
}

// String returns the link as the file has it.
func (c *cable) String() string { return c.Ends[0].String() + " -- " + c.Ends[1].String() }

// plug sets one end of a cable up. Whoever comes first makes the cable.
func (l *Lab) plug(c *cable, end int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return errors.New("the node at the other end has ended")
	}
	host, other := l.host(c.Ends[end].Node), c.Ends[1-end].Node
	if bridge := l.switches[other]; bridge != nil {
		c.made = true
		_, err := host.Connect(bridge, c.iface(end))
		return err
	}
	if !c.made {
		if err := host.Cable(l.host(other), c.iface(end), c.iface(1-end)); err != nil {
			return err
		}
		c.made = true
	}
	return host.LinkUp(c.Ends[end].Interface)
}

// host returns the namespace that a node uses, or nil for a bridge.
func (l *Lab) host(name string) *netlab.Host {
	n := l.topology.node(name)
	return l.hosts[n.network()]
}

// dropCables takes the cables out of a namespace in which nothing runs any more:
// a container's network is gone with its last process.
func (l *Lab) dropCables(network string) error {
	for _, n := range l.nodes {
		if n.spec.network() == network && n.isRunning() {
			return nil
		}
	}
	var errs []error
	for _, c := range l.cables {
		for _, e := range c.Ends {
			if l.switches[e.Node] == nil && l.topology.node(e.Node).network() == network {
				errs = append(errs, l.drop(c, e))
			}
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) drop(c *cable, e End) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	made := c.made && !c.gone
	c.gone = true
	if !made {
		return nil
	}
	return l.host(e.Node).LinkDelete(e.Interface)
}
