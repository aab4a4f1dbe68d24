package cluster

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// join calls the configured peers that are not there, again and again: those that
// are not up yet, those that died, and the other half after a partition.
func (c *Cluster) join(ctx context.Context, call func([]string) (int, error)) {
	type result struct {
		peer string
		err  error
	}
	strangers := make(map[string]time.Time) // peers that answer and are nobody that is known: when to call next
	for first := true; ; first = false {
		var calls int
		results := make(chan result, len(c.cfg.Peers))
		for peer, addrs := range c.absent(ctx) {
			if time.Now().Before(strangers[peer]) {
				continue
			}
			calls++
			go func() {
				// It cannot be interrupted, and ends by itself after streamTimeout.
				_, err := call(addrs)
				results <- result{peer, err}
			}()
		}
		for range calls {
			select {
			case <-ctx.Done():
				return
			case r := <-results:
				switch {
				case r.err == nil:
					// If it is still absent, it calls itself by another address than
					// the configured one. That is no reason to call it all the time.
					strangers[r.peer] = time.Now().Add(strangerInterval)
				case first:
					c.log.Info("peer is not there, will be called again", "peer", r.peer, "error", lastLine(r.err))
				default:
					c.log.Debug("cannot join peer", "peer", r.peer, "error", lastLine(r.err))
				}
			}
		}
		// One that died after it had answered is called again at once.
		for peer := range strangers {
			if !c.stranger(ctx, peer) {
				delete(strangers, peer)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rejoinInterval):
		}
	}
}

// absent returns the configured peers that are no live members, with their
// addresses.
func (c *Cluster) absent(ctx context.Context) map[string][]string {
	all := make(map[string][]string)
	for _, peer := range c.cfg.Peers {
		addrs := resolve(ctx, peer)
		if c.there(addrs) {
			continue
		}
		for _, a := range addrs {
			all[peer] = append(all[peer], a.String())
		}
	}
	return all
}

// there reports whether a live member, or this node, has one of the addresses,
// or nobody is to be called.
func (c *Cluster) there(addrs []netip.AddrPort) bool {
	self := c.Addr()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving || slices.Contains(addrs, self) ||
		slices.ContainsFunc(c.live(), func(m *member) bool { return slices.Contains(addrs, m.Address) })
}

// stranger reports whether a peer that has answered is not among the members.
func (c *Cluster) stranger(ctx context.Context, peer string) bool {
	return !c.there(resolve(ctx, peer))
}

// resolve returns the addresses of host:port; none if it has none.
func resolve(ctx context.Context, peer string) []netip.AddrPort {
	if a, err := netip.ParseAddrPort(peer); err == nil {
		return []netip.AddrPort{a}
	}
	host, service, err := net.SplitHostPort(peer)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil
	}
	ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var all []netip.AddrPort
	for _, ip := range ips {
		all = append(all, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return all
}

// lastLine is the part of a joined error that says most.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimLeft(lines[len(lines)-1], "\t *")
}
