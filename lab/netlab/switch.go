package netlab

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// switchSettings keep a switch from having a voice of its own on the network.
var switchSettings = []setting{
	{"net.ipv6.conf.all.disable_ipv6", "1"},
	{"net.ipv6.conf.default.disable_ipv6", "1"},
}

// bridgeSettings keep netfilter from looking into bridged packets, where it
// would drop or reassemble what a switch passes on. They exist only in a kernel
// that has br_netfilter.
var bridgeSettings = []setting{
	{"net.bridge.bridge-nf-call-iptables", "0"},
	{"net.bridge.bridge-nf-call-ip6tables", "0"},
	{"net.bridge.bridge-nf-call-arptables", "0"},
}

// Switch is an Ethernet switch: a Linux bridge, which learns MAC addresses and
// floods what it has not learned, multicast too. It passes frames with 802.1Q
// tags on unchanged.
type Switch struct {
	name string
	lab  *Lab
	ns   *namespace
}

// Switch adds a switch. Within its namespace the bridge is called as the switch
// is, so frames can be watched there.
func (l *Lab) Switch(name string) (*Switch, error) {
	ns, err := l.namespace(name, switchSettings)
	if err != nil {
		return nil, fmt.Errorf("new switch %s: %w", name, err)
	}
	s := &Switch{name: name, lab: l, ns: ns}
	err = ns.do(func() error {
		off := false
		attrs := netlink.NewLinkAttrs()
		attrs.Name = s.bridge()
		// Spanning tree and VLAN filtering are off anyway, and the kernel may
		// have been built without the latter.
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off})
	})
	if err == nil {
		err = ns.setUp(s.bridge())
	}
	for _, setting := range bridgeSettings {
		if e := ns.sysctl(setting.key, setting.value); err == nil && !errors.Is(e, os.ErrNotExist) {
			err = e
		}
	}
	if err != nil {
		return nil, fmt.Errorf("new switch %s: create bridge: %w", name, err)
	}
	return s, nil
}

// Namespace returns the name under which ip-netns(8) knows the switch.
func (s *Switch) Namespace() string { return s.ns.name }

// Do runs f on a thread inside the switch's namespace, as [Host.Do] does in a
// host's.
func (s *Switch) Do(f func() error) error {
	if err := s.ns.do(f); err != nil {
		return fmt.Errorf("switch %s: do: %w", s.name, err)
	}
	return nil
}

// Port returns the switch's end of the cable to a host's interface. Its index
// is that in the switch's namespace.
func (s *Switch) Port(h *Host, name string) (Link, error) {
	var l Link
	far, err := h.farEnd(name)
	if err == nil && far.ns != s.ns {
		err = fmt.Errorf("the cable does not end at switch %s", s.name)
	}
	if err == nil {
		err = s.ns.do(func() error {
			l, err = linkByName(far.name)
			return err
		})
	}
	return l, h.wrap("look up the port of "+name, err)
}

// bridge returns the name of the bridge interface, which has 15 bytes at most.
func (s *Switch) bridge() string { return s.name[:min(len(s.name), 15)] }
