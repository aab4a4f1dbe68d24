package peers

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
)

// The object does not depend on where the checkout is, see dataplane/steer.
//
//go:generate go tool bpf2go -target bpfel -no-global-types peers bpf/peers.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// backend is a backend as the program has it.
type backend struct {
	Address [4]byte
	MAC     [6]byte
	_       uint16
}

// load puts the programs into the kernel, for these options and with this outer
// source.
func load(opt *Options, source netip.Addr) (*ebpf.Collection, error) {
	_ = rlimit.RemoveMemlock() // counts only before Linux 5.11
	spec, err := loadPeers()
	if err != nil {
		return nil, fmt.Errorf("read embedded BPF programs: %w", err)
	}
	if opt.Kind == XDPIPIP {
		backends := make([]backend, MaxBackends)
		for i, b := range opt.Backends {
			backends[i] = backend{Address: b.Addr.As4(), MAC: [6]byte(b.MAC)}
		}
		for _, v := range []struct {
			name  string
			value any
		}{
			{peersVarVip, opt.VIP.Addr().As4()},
			{peersVarVipPort, binary.BigEndian.AppendUint16(nil, opt.VIP.Port())},
			{peersVarTunnelSource, source.As4()},
			{peersVarNumber, uint32(len(opt.Backends))},
			{peersVarBackends, backends},
		} {
			if err := spec.Variables[v.name].Set(v.value); err != nil {
				return nil, fmt.Errorf("set %s: %w", v.name, err)
			}
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load BPF programs (run as root): %w", err)
	}
	return objects, nil
}

// attach attaches the program of the kind, in the driver.
func (p *Peer) attach() error {
	return p.host.Do(func() error {
		on, err := netlink.LinkByName(p.opt.Interface)
		if err != nil {
			return fmt.Errorf("find %s: %w", p.opt.Interface, err)
		}
		source, err := p.tunnelSource(on)
		if err != nil {
			return err
		}
		objects, err := load(&p.opt, source)
		if err != nil {
			return err
		}
		defer objects.Close() // the link keeps the program
		name := peersProgTx
		if p.opt.Kind == XDPIPIP {
			name = peersProgIpip
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: objects.Programs[name], Interface: on.Attrs().Index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach XDP program to %s, in the driver: %w", p.opt.Interface, err)
		}
		p.onClose(l.Close)
		return nil
	})
}

// tunnelSource returns the first address of the interface, or the VIP if it has
// none.
func (p *Peer) tunnelSource(on netlink.Link) (netip.Addr, error) {
	addrs, err := netlink.AddrList(on, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", p.opt.Interface, err)
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			return addr, nil
		}
	}
	return p.opt.VIP.Addr(), nil
}
