// Package peers sets up what a user would pick instead of weir: load balancing,
// or what comes close to it, in the kernel.
//
// The problem it solves: how fast weir is says little unless what else there is
// has been measured in the same run, on the same interface, with the same
// traffic. So a peer is set up on a host of a lab as a careful user would set
// it up on a machine, by one call, takes the traffic for one VIP, and is gone
// without a trace when it is closed. Nothing is done to make one fast or slow:
// offloads, GRO, RPS, queues and CPUs are the caller's to choose.
//
// No peer has a thread of its own: see [Place] for which core does its work.
package peers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"weir/lab/netlab"
)

// Kind is what is in the place of weir.
type Kind string

// The kinds. What the XDP ones send on a veth is received in time only if there
// is an XDP program at its other end: with GRO instead, frames wait there for one
// that does not come from XDP.
const (
	// XDPTX is an XDP program that swaps the MAC addresses of every frame, ARP
	// too, and sends it back: no look-up, no backend. Nothing that forwards on
	// this interface can be faster.
	XDPTX Kind = "xdp-tx"

	// XDPIPIP is an XDP program that chooses a backend by a hash of source
	// address and port, puts an IPv4 header in front of the packet and sends it
	// back: the floor for a load balancer in XDP. IPv4 only.
	XDPIPIP Kind = "xdp-ipip"

	// KernelForward is the kernel as a router, with a route to the VIP through
	// the backend and a permanent neighbour. With several backends the route has
	// as many next hops, chosen by addresses and ports. Backends hold the VIP.
	KernelForward Kind = "kernel-forward"

	// NftDNAT is nftables with dnat to an address that a hash of source address
	// and port chooses, and with that the kernel's connection tracking. Answers
	// have to come back this way: over routes, or because of SNAT.
	NftDNAT Kind = "nft-dnat"

	// NftDSR is nftables without state, at the ingress hook of the interface: a
	// new destination MAC, chosen as above, and out. Backends hold the VIP.
	NftDSR Kind = "nft-dsr"

	// IPVS is the kernel's own layer-4 load balancer, direct routing, round
	// robin. Backends hold the VIP. The program ipvsadm sets it up.
	IPVS Kind = "ipvs"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{XDPTX, XDPIPIP, KernelForward, NftDNAT, NftDSR, IPVS} }

// Place is where in the kernel a peer's work is done. Both are in softirq (on
// the core where a frame was received) and neither shows in the run time of any
// process's thread but by chance. On a veth the core that receives is the one
// that sends. Only threaded NAPI (Documentation/networking/napi.rst), which
// takes a veth with GRO or an XDP program, gives the work a thread, and with it
// a core and a run time of its own.
type Place string

// The places.
const (
	// Driver is the NAPI poll of the driver, before there is an sk_buff. RPS
	// does not matter.
	Driver Place = "driver"

	// Stack is after there is an sk_buff: on the core of the NAPI poll, or, with
	// RPS, on the core that it hands the frame to
	// (Documentation/networking/scaling.rst).
	Stack Place = "stack"
)

// Place returns where the kind's work is done.
func (k Kind) Place() Place {
	if k == XDPTX || k == XDPIPIP {
		return Driver
	}
	return Stack
}

// ErrNotSupported is in the error when this kernel, or this kind, cannot do what
// is asked.
var ErrNotSupported = errors.New("not supported")

// Backend is where traffic goes.
type Backend struct {
	Addr netip.Addr
	MAC  net.HardwareAddr // on the network behind Out
}

// Options says what to set up. What has no default is needed.
type Options struct {
	Kind      Kind
	Interface string         // that traffic comes in by
	Out       string         // that it leaves by, maybe an ifb, which drops it; default Interface, and for XDP kinds nothing else
	VIP       netip.AddrPort // UDP and TCP; not on any interface of the host
	Backends  []Backend      // 1 to MaxBackends, of the VIP's IP version; XDPTX needs none

	// Conntrack is how many connections the kernel's table is to have room for,
	// with NftDNAT. The default is what the machine is set to. There is one limit
	// for all network namespaces, and Close sets it back.
	Conntrack int

	// SNAT, with NftDNAT, has backends see these addresses as the client. Who sends
	// to them has to be told that they are the host's: it does not answer for them.
	SNAT netip.Prefix
}

// MaxBackends is how many backends a peer may have.
const MaxBackends = 64

func (opt *Options) complete() error {
	if !slices.Contains(Kinds(), opt.Kind) {
		return fmt.Errorf("no such kind; there are %v", Kinds())
	}
	if opt.Interface == "" {
		return errors.New("no interface")
	}
	if opt.Out == "" {
		opt.Out = opt.Interface
	}
	if opt.Kind != NftDNAT && (opt.SNAT != netip.Prefix{} || opt.Conntrack != 0) {
		return fmt.Errorf("snat and conntrack are for %s", NftDNAT)
	}
	if opt.Kind.Place() == Driver && opt.Out != opt.Interface {
		return fmt.Errorf("send by %s: %w: it sends by the interface that it receives by", opt.Out, ErrNotSupported)
	}
	if opt.Kind == XDPTX {
		return nil
	}
	if !opt.VIP.IsValid() || opt.VIP.Addr().Is4In6() || opt.VIP.Port() == 0 {
		return fmt.Errorf("vip %s: not an address and a port", opt.VIP)
	}
	if opt.Kind == XDPIPIP && !opt.VIP.Addr().Is4() {
		return fmt.Errorf("vip %s: %w: it is for IPv4", opt.VIP, ErrNotSupported)
	}
	if (opt.SNAT != netip.Prefix{}) && (!opt.SNAT.IsValid() || opt.SNAT.Addr().BitLen() != opt.VIP.Addr().BitLen()) {
		return fmt.Errorf("snat %s: vip %s needs another", opt.SNAT, opt.VIP)
	}
	if n := len(opt.Backends); n < 1 || n > MaxBackends {
		return fmt.Errorf("%d backends, want 1 to %d", n, MaxBackends)
	}
	for _, b := range opt.Backends {
		if b.Addr.BitLen() != opt.VIP.Addr().BitLen() || len(b.MAC) != 6 {
			return fmt.Errorf("backend %s with MAC %q: vip %s needs another", b.Addr, b.MAC, opt.VIP)
		}
	}
	return nil
}

// Peer is one that has been set up.
type Peer struct {
	host *netlab.Host
	opt  Options
	undo []func() error // in the order of setting up
}

// Start sets a peer up. Nothing is left if it fails.
func Start(host *netlab.Host, opt Options) (*Peer, error) {
	p := &Peer{host: host, opt: opt}
	err := p.opt.complete()
	if err == nil {
		err = p.start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start peer %s: %w", opt.Kind, err), p.Close())
	}
	return p, nil
}

func (p *Peer) start() error {
	switch p.opt.Kind {
	case XDPTX, XDPIPIP:
		return p.attach()
	case KernelForward:
		return p.each(p.forward, p.reachBackends, p.routeVIP)
	case NftDNAT:
		return p.each(p.forward, p.reachBackends, p.sizeConntrack, p.translate)
	case NftDSR:
		return p.redirect()
	default:
		return p.each(p.haveIPVS, p.forward, p.reachBackends, p.holdVIP, p.direct)
	}
}

func (p *Peer) each(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Connections returns how many connections the host's kernel tracks, for IPVS how many
// it has had; it is false of a kind that does not have it track any.
func (p *Peer) Connections() (n int, ok bool, err error) {
	count := trackedConnections
	switch p.opt.Kind {
	case NftDNAT:
	case IPVS:
		count = ipvsConnections
	default:
		return 0, false, nil
	}
	err = p.host.Do(func() error {
		n, err = count()
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("count connections of peer %s: %w", p.opt.Kind, err)
	}
	return n, true, nil
}

// Close removes all that Start has made, and sets back what it has set. It may
// be called twice.
func (p *Peer) Close() error {
	var errs []error
	for _, undo := range slices.Backward(p.undo) {
		errs = append(errs, undo())
	}
	p.undo = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close peer %s: %w", p.opt.Kind, err)
	}
	return nil
}

// onClose has Close call f, before all that it has been told of so far.
func (p *Peer) onClose(f func() error) { p.undo = append(p.undo, f) }
