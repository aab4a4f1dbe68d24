package peers

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

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

// Runs of RunTime are done in several calls of a few milliseconds each, for a
// signal that comes in a call ends it, and it has to start again.
const (
	runsPerCall = 100_000
	calls       = 5
)

// RunTime returns how long an XDP kind's program takes for a frame of 60 bytes,
// without driver, receiving or sending: the median of calls of BPF_PROG_TEST_RUN
// (Documentation/bpf/bpf_prog_run.rst), all with the same frame, which is in the
// caches then. For XDPIPIP the way back is in it: the outer header is taken off
// again, so that the next run finds the same packet.
func RunTime(kind Kind) (time.Duration, error) {
	program := peersProgTx
	switch kind {
	case XDPTX:
	case XDPIPIP:
		program = peersProgIpipUndone
	default:
		return 0, fmt.Errorf("run %s: %w: it is no XDP program", kind, ErrNotSupported)
	}
	opt := Options{Kind: kind, VIP: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 10}), 9)}
	for i := range byte(8) {
		opt.Backends = append(opt.Backends, Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 0, 10 + i}), MAC: net.HardwareAddr{2, 0, 0, 0, 1, i}})
	}
	objects, err := load(&opt, opt.VIP.Addr())
	if err != nil {
		return 0, fmt.Errorf("run %s: %w", kind, err)
	}
	defer objects.Close()
	var times []time.Duration
	for range calls {
		verdict, each, err := objects.Programs[program].Benchmark(frame(opt.VIP), runsPerCall, func() {})
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", kind, err)
		}
		if verdict != xdpTX {
			return 0, fmt.Errorf("run %s: verdict %d, want %d", kind, verdict, xdpTX)
		}
		times = append(times, each)
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

const xdpTX = 3 // linux/bpf.h

// frame returns a UDP datagram to an address of IPv4, the shortest that Ethernet
// has. No program looks at its checksums.
func frame(to netip.AddrPort) []byte {
	b := make([]byte, 60)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:] // RFC 791, section 3.1
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8], ip[9] = 64, 17
	copy(ip[12:], []byte{198, 18, 0, 1})
	dst := to.Addr().As4()
	copy(ip[16:], dst[:])
	udp := ip[20:] // RFC 768
	binary.BigEndian.PutUint16(udp, 1024)
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	return b
}
