// Package sink is where the traffic of a measurement ends: it counts frames and
// drops them.
//
// The problem it solves: what arrives has to be counted by somebody who is not
// measured, who misses nothing, and who costs little, for on a veth the work
// of the receiving side is done by the core that sends.
package sink

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// The object does not depend on where the checkout is, see dataplane/steer.
//
//go:generate go tool bpf2go -target bpfel -no-global-types sink bpf/sink.c -- -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu

// Sink is a counter at the ingress of one interface (TCX, Linux 6.6).
type Sink struct {
	objects *ebpf.Collection
	link    link.Link
}

// Open attaches a sink to the interface with that index in the calling
// thread's network namespace. It takes UDP datagrams and TCP segments to the
// port in IPv4, whoever they are addressed to, and leaves everything else alone.
func Open(ifindex int, port uint16) (*Sink, error) {
	_ = rlimit.RemoveMemlock() // counts only before Linux 5.11, where there is no TCX
	spec, err := loadSink()
	if err != nil {
		return nil, fmt.Errorf("open sink: read embedded BPF program: %w", err)
	}
	if err := spec.Variables[sinkVarPort].Set(uint32(port)); err != nil {
		return nil, fmt.Errorf("open sink: set port: %w", err)
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("open sink: load BPF program (run as root): %w", err)
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex,
		Program:   objects.Programs[sinkProgCount],
		Attach:    ebpf.AttachTCXIngress,
	})
	if err != nil {
		objects.Close()
		return nil, fmt.Errorf("open sink: attach BPF program (needs Linux 6.6): %w", err)
	}
	return &Sink{objects: objects, link: l}, nil
}

// Counts are frames by kind.
type Counts struct {
	Datagrams uint64 // UDP
	Openings  uint64 // TCP connection requests
	Segments  uint64 // all other TCP
}

// Arrived returns what the sink has taken.
func (s *Sink) Arrived() (c Counts, err error) {
	for key, n := range []*uint64{&c.Datagrams, &c.Openings, &c.Segments} {
		var perCPU []uint64
		if err := s.objects.Maps[sinkMapArrived].Lookup(uint32(key), &perCPU); err != nil {
			return Counts{}, fmt.Errorf("read sink's counter: %w", err)
		}
		for _, m := range perCPU {
			*n += m
		}
	}
	return c, nil
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
