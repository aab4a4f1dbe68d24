package wire

import (
	"fmt"
	"slices"

	"weir/perf/balancer"
	"weir/perf/loops"
	"weir/perf/peers"
	"weir/perf/splice"
)

// Subject is something that is measured: what forwards packets at the far end of
// the wire. It is exactly one of a loop, a balancer and a peer.
type Subject struct {
	Name   string
	Driver splice.Driver // empty in the kernel
	IPv6   bool          // of the traffic

	// Floor is the name of the subject that does the same without any load
	// balancing; empty if there is none.
	Floor string

	loop loops.Kind

	mode   balancer.Mode
	queues int // each with a worker, all on one CPU

	collected bool // the collector is at work all the time, over collectedHeap

	peer      peers.Kind
	place     place
	asItComes bool // the machine's table of connections is left as it is, whether it has room for all flows or not
}

// place is where a peer's work is done.
type place int

const (
	steered  place = iota // RPS: received on the generator's core, all else on the other one
	threaded              // threaded NAPI: everything in a thread on the other core
)

// collectedHeap is in bytes what weir has with 1,000 services of 100 backends.
const collectedHeap = 275 << 20

// Mode says what is done to a packet.
func (s *Subject) Mode() string {
	switch {
	case s.loop != "":
		return "swap"
	case s.mode != "":
		return string(s.mode)
	}
	return string(s.peer)
}

// DriverName says what receives and sends.
func (s *Subject) DriverName() string {
	switch {
	case s.Driver != "":
		return string(s.Driver)
	case s.place == threaded:
		return "kernel thread"
	}
	return "kernel"
}

// NftDNAT is the name of the subject that all others are compared with, beside
// their floor.
const NftDNAT = "nft-dnat"

// Subjects returns all subjects, in the order of tables.
func Subjects() []Subject {
	floor := func(driver splice.Driver) Subject {
		return Subject{Name: "floor-" + string(driver), Driver: driver, loop: loops.Own}
	}
	weir := func(name string, driver splice.Driver, mode balancer.Mode) Subject {
		return Subject{Name: name, Driver: driver, Floor: "floor-" + string(driver), mode: mode, queues: 1}
	}
	six := func(s Subject) Subject {
		s.Name, s.IPv6 = s.Name+"-6", true
		if s.Floor != "" {
			s.Floor += "-6"
		}
		return s
	}
	other := func(kind loops.Kind) Subject { return Subject{Name: string(kind), Driver: splice.AFXDP, loop: kind} }
	kernel := func(kind peers.Kind) Subject { return Subject{Name: string(kind), peer: kind} }
	thread := func(kind peers.Kind, name string) Subject { return Subject{Name: name, peer: kind, place: threaded} }

	dsr := weir("weir-dsr", splice.AFXDP, balancer.DSR)
	ipip := weir("weir-ipip", splice.AFXDP, balancer.IPIP)
	nat := weir("weir-nat", splice.AFXDP, balancer.NAT)
	small := kernel(peers.NftDNAT)
	small.Name, small.asItComes = "nft-dnat-default", true
	collected := dsr
	collected.Name, collected.collected = "weir-dsr-gc", true
	keep2 := weir("weir-keep-2", splice.AFXDP, balancer.Keep)
	keep2.queues = 2
	return []Subject{
		floor(splice.AFXDP), dsr, collected, ipip, nat,
		six(floor(splice.AFXDP)), six(dsr), six(ipip), six(nat),
		floor(splice.Generic), weir("weir-dsr-generic", splice.Generic, balancer.DSR),
		floor(splice.AFPacket), weir("weir-dsr-afpacket", splice.AFPacket, balancer.DSR),
		weir("weir-keep", splice.AFXDP, balancer.Keep), keep2,
		other(loops.Asavie), other(loops.AsavieDrained), other(loops.Testpmd),
		kernel(peers.NftDNAT), small, kernel(peers.NftDSR), kernel(peers.KernelForward), kernel(peers.IPVS),
		thread(peers.NftDNAT, "nft-dnat-thread"), thread(peers.NftDSR, "nft-dsr-thread"),
		thread(peers.XDPTX, "xdp-tx-thread"), thread(peers.XDPIPIP, "xdp-ipip-thread"),
	}
}

// MainSubjects returns the names of those that are measured if nothing else is
// asked for.
func MainSubjects() []string {
	return []string{
		"floor-afxdp", "weir-dsr", "weir-dsr-gc", "weir-ipip", "weir-nat", "floor-afpacket", "weir-dsr-afpacket",
		"asavie", "asavie-drained", NftDNAT, "nft-dnat-default", "nft-dsr", "kernel-forward", "xdp-tx-thread",
	}
}

// subjects returns those with these names, in the order of tables.
func subjects(names []string) ([]Subject, error) {
	all := Subjects()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s Subject) bool { return s.Name == name }) {
			return nil, fmt.Errorf("no subject %q; there are %v", name, Names(all))
		}
	}
	return slices.DeleteFunc(all, func(s Subject) bool { return !slices.Contains(names, s.Name) }), nil
}

// Names returns the names of subjects.
func Names(all []Subject) (names []string) {
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

// wantsOpening tells whether the subject forwards no segment of a connection of which
// it has not seen the first. To the kernel's own table of connections the others are
// as good (nf_conntrack_tcp_loose), and without an answer in between they would be
// invalid after the first (net/netfilter/nf_conntrack_proto_tcp.c, tcp_conntracks).
func (s *Subject) wantsOpening() bool {
	return s.mode == balancer.NAT || s.mode == balancer.Keep || s.peer == peers.IPVS
}

// can tells whether the subject can be measured in a scenario.
func (s *Subject) can(scenario Scenario) bool {
	if s.collected { // what a packet costs beside the collector says nothing
		return scenario == Latency
	}
	switch scenario {
	case Send:
		return s.loop != "" && s.loop != loops.Testpmd && !s.IPv6
	case Core: // it has to send by another interface
		// What nftables forwards to an ifb (nft_fwd_netdev_eval sets "redirected")
		// is not dropped there but comes in again.
		return s.loop == loops.Own || s.queues == 1 || s.peer != "" && s.peer.Place() == peers.Stack && s.peer != peers.NftDSR
	}
	return true
}

// Cores says on which CPU each part of the work is done.
type Cores struct {
	Generator int `json:"generator"`
	Receive   int `json:"receive"`
	Worker    int `json:"worker"`
	Transmit  int `json:"transmit"`
	Sink      int `json:"sink"` // -1 if the interface that is sent by drops everything
}

// cores says it for a scenario and the two CPUs there are. A veth is received
// from on the core that sends to it, but where a thread is to do that.
func (s *Subject) cores(scenario Scenario, cpus []int) Cores {
	c := Cores{Generator: cpus[0], Receive: cpus[0], Worker: cpus[1], Transmit: cpus[1], Sink: cpus[1]}
	if s.peer != "" && s.place == threaded {
		c.Receive = cpus[1]
	}
	if scenario == Core || scenario == Send {
		c.Sink = -1
	}
	return c
}

func (c Cores) String() string {
	sink := "-"
	if c.Sink >= 0 {
		sink = fmt.Sprint(c.Sink)
	}
	return fmt.Sprintf("%d/%d/%d/%d/%s", c.Generator, c.Receive, c.Worker, c.Transmit, sink)
}
