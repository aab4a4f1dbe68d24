package decap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// anyAddress is the prefix of length zero, over both families.
var anyAddress = decapPrefix{}

// addressKey is the program's form of an address.
func addressKey(a netip.Addr) decapAddress {
	key := decapAddress{Family: 6}
	if a.Is4() {
		key.Family = 4
	}
	copy(key.Bytes[:], a.AsSlice())
	return key
}

// prefixKey is the program's form of a prefix: the family counts as 32 more
// leading bits, so that no IPv4 prefix matches an IPv6 address or the reverse.
func prefixKey(p netip.Prefix) decapPrefix {
	return decapPrefix{Length: uint32(32 + p.Bits()), Address: addressKey(p.Masked().Addr())}
}

// Run keeps the allowed outer destinations the same as the host's own
// addresses, in the network namespace of the thread that calls it, until ctx is
// done; it then returns nil. Without Run they stay what they were at New, and
// an address that the host gets later receives nothing through the tunnel.
func (d *Decap) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.follow(ctx); err != nil {
			return err
		}
	}
	return nil
}

// follow works until ctx is done or the kernel has lost a message because this
// side was slow. All is read anew after that, so nothing is missed.
func (d *Decap) follow(ctx context.Context) error {
	updates, done := make(chan netlink.AddrUpdate), make(chan struct{})
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				d.log.Warn("watching the host's addresses", "err", err)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("decap: watch the host's addresses: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // lets the library's goroutine end
		}
	}()
	for {
		// Subscribed first and read second: no change falls between.
		if err := d.readLocals(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-updates:
			if !open {
				return nil
			}
		}
	}
}

// readLocals makes the map what the host's addresses are. New ones go in before
// old ones go out, so that an address that stays is never missing.
func (d *Decap) readLocals() error {
	addresses, err := hostAddresses()
	if err != nil {
		return err
	}
	want := make(map[decapPrefix]struct{}, len(addresses))
	for a := range addresses {
		if !a.IsLoopback() && !a.IsMulticast() {
			want[prefixKey(netip.PrefixFrom(a, a.BitLen()))] = struct{}{}
		}
	}
	if len(want) == 0 {
		want[anyAddress] = struct{}{}
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || maps.Equal(want, d.locals) {
		return nil
	}
	if _, unchecked := want[anyAddress]; unchecked {
		d.log.Warn("the host has no address; the outer destination of tunnelled packets is not checked")
	}
	if err := fill(d.objects.Locals, want); err != nil {
		return err
	}
	for key := range d.locals {
		if _, stays := want[key]; stays {
			continue
		}
		if err := d.objects.Locals.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("decap: take an address out of map locals: %w", err)
		}
	}
	d.locals = want
	return nil
}

// hostAddresses returns all addresses of all interfaces, with the indexes of
// the interfaces that have them.
func hostAddresses() (map[netip.Addr][]int, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	for tries := 0; errors.Is(err, netlink.ErrDumpInterrupted) && tries < 10; tries++ {
		list, err = netlink.AddrList(nil, netlink.FAMILY_ALL) // they changed while being listed
	}
	if err != nil {
		return nil, fmt.Errorf("decap: list the host's addresses: %w", err)
	}
	found := make(map[netip.Addr][]int, len(list))
	for _, entry := range list {
		if entry.IPNet == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(entry.IP); ok {
			found[a.Unmap()] = append(found[a.Unmap()], entry.LinkIndex)
		}
	}
	return found, nil
}
