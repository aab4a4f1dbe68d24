// Package sink is where the traffic of a measurement ends: it counts frames, can
// look whether they are what they should be and how long they were under way,
// and drops them.
//
// The problem it solves: what arrives has to be counted by somebody who is not
// measured, who misses nothing, and who costs little, for on a veth the work
// of the receiving side is done by the core that sends.
package sink

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"weir/perf/measure"
)

// The object does not depend on where the checkout is, see dataplane/steer.
//
//go:generate go tool bpf2go -target bpfel -no-global-types -type outcome sink bpf/sink.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Hook is where a sink takes frames from an interface.
type Hook int

// The hooks.
const (
	// TCX is the traffic control's ingress (Linux 6.6): after an sk_buff was made.
	TCX Hook = iota

	// XDP is XDP in the driver, before there is an sk_buff. On a veth, one that
	// was sent as an sk_buff is made a frame for it, which costs more than TCX.
	XDP
)

// Options says what to take and what to look at.
type Options struct {
	Interface int    // index in the calling thread's network namespace
	Port      uint16 // destination port of UDP and TCP
	Hook      Hook

	// Verify has all checksums and lengths of each frame checked: up to two IP
	// headers, and UDP or TCP with all of the payload. It costs some 30 ns for a
	// frame of 60 bytes and 140 ns for one of 1514 (BenchmarkArrive). Who sends
	// from a socket has to do without checksum offload (ethtool -K tx off), or
	// the checksums are not there yet; and GRO has to merge nothing.
	Verify bool

	// Destination, optional, has frames taken for bad that go elsewhere. It costs
	// next to nothing.
	Destination Destination

	// Latency has the time taken that passed since each frame's stamp (generator),
	// and its number compared with the highest before. It costs some 30 ns. A
	// frame without stamp is bad then. There may be one generator in the sink's
	// life, for the numbers begin again with each. GRO, which a veth needs for
	// redirected frames if it has no XDP program, holds TCP segments with data
	// back, and so reorders them.
	Latency bool
}

// Destination is where frames are to go: to MAC addresses that begin with so many
// bits of MAC, and, by the innermost IP header, to addresses of To.
type Destination struct {
	MAC     [6]byte
	MACBits int // 0 for any address
	To      netip.Prefix
}

// variables returns the program's variables.
func (d *Destination) variables() map[string]any {
	v := map[string]any{sinkVarElsewhere: d.To.IsValid()}
	if !d.To.IsValid() {
		return v
	}
	var mac, macMask [8]byte
	var to, toMask [16]byte
	for bit := range d.MACBits {
		macMask[bit/8] |= 0x80 >> (bit % 8)
	}
	for bit := range d.To.Bits() {
		toMask[bit/8] |= 0x80 >> (bit % 8)
	}
	copy(mac[:], d.MAC[:])
	copy(to[:], d.To.Addr().AsSlice())
	for i := range mac {
		mac[i] &= macMask[i]
	}
	for i := range to {
		to[i] &= toMask[i]
	}
	v[sinkVarMac], v[sinkVarMacMask] = mac, macMask
	v[sinkVarTo], v[sinkVarToMask] = to, toMask
	v[sinkVarToIpv6] = d.To.Addr().Is6()
	return v
}

// stamps is struct stamps in bpf/sink.c.
type stamps struct {
	Greatest  time.Duration
	Reordered uint64
	Buckets   [measure.Buckets]uint64
}

// Sink is a counter at one interface.
type Sink struct {
	objects *ebpf.Collection
	link    link.Link
}

// Open attaches a sink to an interface. It takes UDP datagrams and TCP
// segments to the port, whoever they are addressed to, in IPv4 and IPv6, alone
// or in one IPv4 or IPv6 packet, and leaves everything else alone: also packets
// with IPv4 options or IPv6 extension headers, and fragments.
func Open(opt Options) (*Sink, error) {
	_ = rlimit.RemoveMemlock() // counts only before Linux 5.11, where there is no TCX
	spec, err := loadSink()
	if err != nil {
		return nil, fmt.Errorf("open sink: read embedded BPF program: %w", err)
	}
	variables := opt.Destination.variables()
	variables[sinkVarPort] = uint32(opt.Port)
	variables[sinkVarVerify] = opt.Verify
	variables[sinkVarLatency] = opt.Latency
	for name, value := range variables {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("open sink: set %s: %w", name, err)
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("open sink: load BPF program (run as root): %w", err)
	}
	l, err := attach(objects, &opt)
	if err != nil {
		objects.Close()
		return nil, fmt.Errorf("open sink: %w", err)
	}
	return &Sink{objects: objects, link: l}, nil
}

func attach(objects *ebpf.Collection, opt *Options) (l link.Link, err error) {
	switch opt.Hook {
	case TCX:
		l, err = link.AttachTCX(link.TCXOptions{
			Interface: opt.Interface,
			Program:   objects.Programs[sinkProgCountSkb],
			Attach:    ebpf.AttachTCXIngress,
		})
		if err != nil {
			err = fmt.Errorf("attach BPF program by TCX (needs Linux 6.6): %w", err)
		}
	case XDP:
		l, err = link.AttachXDP(link.XDPOptions{
			Interface: opt.Interface,
			Program:   objects.Programs[sinkProgCountXdp],
			Flags:     link.XDPDriverMode,
		})
		if err != nil {
			err = fmt.Errorf("attach XDP program (needs a driver with XDP): %w", err)
		}
	default:
		err = fmt.Errorf("hook %d: there is none", opt.Hook)
	}
	return l, err
}

// Counts are frames by protocol.
type Counts struct {
	Datagrams uint64 // UDP
	Openings  uint64 // TCP connection requests
	Segments  uint64 // all other TCP
}

// Arrived returns what the sink has taken, but for bad frames.
func (s *Sink) Arrived() (Counts, error) {
	var r Reading
	err := s.readArrived(&r)
	return r.Counts(), err
}

// Close detaches the sink. It may be called twice.
func (s *Sink) Close() error {
	err := s.link.Close()
	s.objects.Close()
	if err != nil {
		return fmt.Errorf("close sink: %w", err)
	}
	return nil
}
