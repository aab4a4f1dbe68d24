package peers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// set sets a setting of the host, with slashes as in /proc/sys, and has Close
// set it back.
func (p *Peer) set(key, value string) error {
	var old string
	err := p.host.Do(func() (err error) {
		old, err = read(key)
		return err
	})
	if err != nil || old == value {
		return err
	}
	if err := p.host.Sysctl(key, value); err != nil {
		return err
	}
	p.onClose(func() error { return p.host.Sysctl(key, old) })
	return nil
}

func read(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/sys", key))
	return strings.TrimSpace(string(b)), err
}

// forward makes the host a router that does not tell clients of a shorter way
// where both interfaces are the same. For IPv6 there is no such setting.
func (p *Peer) forward() error {
	if p.opt.VIP.Addr().Is6() {
		return p.set("net/ipv6/conf/all/forwarding", "1")
	}
	return errors.Join(
		p.set("net/ipv4/ip_forward", "1"), // first: it sets others
		p.set("net/ipv4/conf/all/send_redirects", "0"),
		p.set("net/ipv4/conf/"+p.opt.Interface+"/send_redirects", "0"))
}

// reachBackends has the host reach each backend by Out, and know its MAC.
func (p *Peer) reachBackends() error {
	return p.host.Do(func() error {
		out, err := netlink.LinkByName(p.opt.Out)
		if err != nil {
			return fmt.Errorf("find %s: %w", p.opt.Out, err)
		}
		for _, b := range p.opt.Backends {
			n := &netlink.Neigh{
				LinkIndex: out.Attrs().Index, Family: family(b.Addr), State: netlink.NUD_PERMANENT, IP: b.Addr.AsSlice(), HardwareAddr: b.MAC,
			}
			if err := netlink.NeighSet(n); err != nil {
				return fmt.Errorf("add neighbour %s: %w", b.Addr, err)
			}
			p.onHostClose(func() error { return netlink.NeighDel(n) })
			if err := p.addRoute(&netlink.Route{Dst: single(b.Addr), LinkIndex: n.LinkIndex, Scope: netlink.SCOPE_LINK}); err != nil {
				return err
			}
		}
		return nil
	})
}

// routeVIP sends what is for the VIP through the backends.
func (p *Peer) routeVIP() error {
	if len(p.opt.Backends) > 1 {
		key := "net/ipv4/fib_multipath_hash_policy"
		if p.opt.VIP.Addr().Is6() {
			key = "net/ipv6/fib_multipath_hash_policy"
		}
		err := p.set(key, "1") // addresses and ports, Documentation/networking/ip-sysctl.rst
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("several backends: %w: needs a kernel with CONFIG_IP_ROUTE_MULTIPATH", ErrNotSupported)
		}
		if err != nil {
			return err
		}
	}
	return p.host.Do(func() error {
		out, err := netlink.LinkByName(p.opt.Out)
		if err != nil {
			return fmt.Errorf("find %s: %w", p.opt.Out, err)
		}
		route := &netlink.Route{Dst: single(p.opt.VIP.Addr())}
		for _, b := range p.opt.Backends {
			route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{
				LinkIndex: out.Attrs().Index, Gw: b.Addr.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			})
		}
		return p.addRoute(route)
	})
}

// addRoute adds a route in the calling thread's host, unless it is there.
func (p *Peer) addRoute(r *netlink.Route) error {
	err := netlink.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("add route to %s: %w", r.Dst, err)
	}
	p.onHostClose(func() error { return netlink.RouteDel(r) })
	return nil
}

// holdVIP makes the VIP an address of the host itself.
func (p *Peer) holdVIP() error {
	vip := netip.PrefixFrom(p.opt.VIP.Addr(), p.opt.VIP.Addr().BitLen())
	if err := p.host.AddAddr("lo", vip); err != nil {
		return err
	}
	p.onClose(func() error { return p.host.DelAddr("lo", vip) })
	return nil
}

// onHostClose is onClose for what has to run in the host.
func (p *Peer) onHostClose(f func() error) {
	p.onClose(func() error { return p.host.Do(f) })
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
