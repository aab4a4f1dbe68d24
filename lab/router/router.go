// Package router runs real routing daemons, FRR and BIRD, in hosts of a lab.
//
// The problem it solves: that two of our own programs understand each other
// says little about BGP. What a user has on the other side is a router with a
// mind of its own about capabilities, timers, MD5 and next hops, and a kernel
// behind it that spreads flows over the routes it was given. So tests speak to
// the daemons that routers run, started one by one as a supervisor would, each
// with state of its own, and ask them by the tools that an operator uses.
//
// The daemons' configuration is the caller's text, FRR's divided between its two
// daemons. They end with the lab, and with the program that made it.
package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/netlab"
)

// ErrMissing is in the error when a daemon is not installed.
var ErrMissing = errors.New("not installed: run scripts/deps")

const (
	readyWithin  = 10 * time.Second // until a daemon answers
	stopGrace    = 5 * time.Second  // from SIGTERM to SIGKILL
	pollInterval = 10 * time.Millisecond
)

// program returns an error if there is no such program.
func program(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s: %w", path, ErrMissing)
	}
	return nil
}

// awaitSocket waits until something listens on a unix socket, and fails if the
// process that should has ended.
func awaitSocket(ctx context.Context, p *netlab.Process, path string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.Done():
			return fmt.Errorf("it ended (%v): %s", p.Wait(), strings.TrimSpace(p.Output()))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w: %s", err, strings.TrimSpace(p.Output()))
		case <-time.After(pollInterval):
		}
	}
}

// Hop is one next hop of a route.
type Hop struct {
	Via       netip.Addr // zero: on the link
	Interface string
}

// Hops returns the next hops that a host's kernel has for a prefix in its main
// table, sorted by gateway; none if it has no such route.
func Hops(h *netlab.Host, prefix netip.Prefix) ([]Hop, error) {
	prefix = prefix.Masked()
	family := netlink.FAMILY_V4
	if prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	var hops []Hop
	err := h.Do(func() error {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if !sameNet(r.Dst, prefix) || r.Type != unix.RTN_UNICAST {
				continue
			}
			parts := r.MultiPath
			if len(parts) == 0 {
				parts = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}}
			}
			for _, part := range parts {
				hop := Hop{Via: gateway(part)}
				if link, err := netlink.LinkByIndex(part.LinkIndex); err == nil {
					hop.Interface = link.Attrs().Name
				}
				hops = append(hops, hop)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("routes to %s: %w", prefix, err)
	}
	slices.SortFunc(hops, func(a, b Hop) int { return a.Via.Compare(b.Via) })
	return hops, nil
}

func sameNet(n *net.IPNet, prefix netip.Prefix) bool {
	if n == nil { // the default route
		return prefix.Bits() == 0
	}
	ones, _ := n.Mask.Size()
	addr, ok := netip.AddrFromSlice(n.IP)
	return ok && ones == prefix.Bits() && addr.Unmap() == prefix.Addr().Unmap()
}

func gateway(n *netlink.NexthopInfo) netip.Addr {
	if via, ok := n.Via.(*netlink.Via); ok {
		addr, _ := netip.AddrFromSlice(via.Addr)
		return addr.Unmap()
	}
	addr, _ := netip.AddrFromSlice(n.Gw)
	return addr.Unmap()
}

// AwaitHops waits until a host's kernel has a route to the prefix through
// exactly these gateways, or through none. It gives up when ctx is done, and
// without a deadline after 20 seconds.
func AwaitHops(ctx context.Context, h *netlab.Host, prefix netip.Prefix, via ...netip.Addr) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
	}
	want := slices.SortedFunc(slices.Values(via), netip.Addr.Compare)
	for {
		hops, err := Hops(h, prefix)
		if err != nil {
			return err
		}
		var got []netip.Addr
		for _, hop := range hops {
			got = append(got, hop.Via)
		}
		if slices.Equal(got, want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has routes to %s through %v, want %v: %w", h.Name(), prefix, got, want, context.Cause(ctx))
		case <-time.After(pollInterval):
		}
	}
}
