// Package balancer is weir's data plane without a control plane: one interface
// and a service that is made by hand.
//
// The problem it solves: what a measurement says of weir has to be true of all
// that weir does with a packet, from the XDP program to the send ring, and must
// not depend on what else an appliance does at the time.
//
// It also tells whether flows are where they were. After a flow has lost its
// entry the same backend would be chosen again, as nothing has changed, and
// nothing would show. So all backends that there are can be drained at a time
// when others take their place: a flow that is known stays then, and one that
// is not goes elsewhere.
package balancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"weir/dataplane/affinity"
	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/steer"
	"weir/dataplane/worker"
	"weir/perf/measure"
	"weir/perf/splice"
	"weir/perf/world"
)

// Mode is what is done to packets.
type Mode string

// The modes.
const (
	DSR     Mode = "dsr"
	IPIP    Mode = "ipip"       // IPv4 in IPv4 or IPv6 in IPv6
	NAT     Mode = "nat"        // within an IP version
	Limited Mode = "dsr-limits" // DSR, with LimitNewFlows
	Keep    Mode = "nat-keep"   // within an IP version, the client's address stays
)

// Modes returns all modes.
func Modes() []Mode { return []Mode{DSR, IPIP, NAT, Limited, Keep} }

// Options says what to run, and on what.
type Options struct {
	Mode      Mode
	IPv6      bool           // of VIP and backends
	Driver    splice.Driver  // default AF_XDP in copy mode
	Interface string         // in the process's network namespace
	Out       string         // to send by; default Interface. With another one there is no engine, but one worker on a splice
	Queues    int            // of the interface, each with a worker
	CPU       int            // that all workers are pinned to
	Entries   int            // of the flow table, each
	NewRate   uint32         // entries for new flows that each worker may make per second; 0 is no limit
	SNAT      int            // addresses, in mode NAT
	Collected int            // bytes of a heap that the collector goes through again and again; 0: it has nothing to do
	Clients   netip.Prefix   // whose flows Known, Drain and Lost are about
	Room      *affinity.Room `json:"-"` // for the workers; nil in a process that others work in too
	Log       *slog.Logger   `json:"-"`
}

// Balancer is the data plane at work. Its methods belong to one goroutine, but for
// Run. Those with a context wait for the workers to answer.
type Balancer struct {
	opt   Options
	plane plane

	snapshots int                    // applied so far
	turns     int                    // calls of Turn
	drained   map[packet.Tuple]place // established when Drain was called
}

// plane is what of an [engine.Engine] is used here.
type plane interface {
	Run(ctx context.Context) error // and close it
	Apply(*snapshot.Snapshot, steer.Set) error
	Interfaces() []engine.InterfaceStatus
	NATSpace() *nat.Space
	Workers() []engine.Worker
}

// place says where a flow is.
type place struct{ slot, generation uint32 }

// Open opens the interface. Nothing is forwarded before Run.
func Open(opt Options) (*Balancer, error) {
	if !slices.Contains(Modes(), opt.Mode) {
		return nil, fmt.Errorf("open balancer: no mode %q: there are %v", opt.Mode, Modes())
	}
	if opt.Driver == "" {
		opt.Driver = splice.AFXDP
	}
	p, err := openPlane(&opt)
	if err != nil {
		return nil, fmt.Errorf("open balancer: %w", err)
	}
	b := &Balancer{opt: opt, plane: p}
	if err := b.apply(firstHalf); err != nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		return nil, fmt.Errorf("open balancer: %w", errors.Join(err, p.Run(ended))) // which closes it
	}
	return b, nil
}

func openPlane(opt *Options) (plane, error) {
	if opt.Out != "" && opt.Out != opt.Interface {
		return openSpliced(opt)
	}
	i := engine.Interface{Name: opt.Interface, Queues: opt.Queues, CPUs: []int{opt.CPU}}
	i.Driver, i.XDPModes = opt.Driver.NIC()
	e, err := engine.New(engine.Config{
		Interfaces: []engine.Interface{i}, FlowEntries: opt.Entries, Timeouts: flow.DefaultTimeouts(), Room: opt.Room, Log: opt.Log,
	})
	if err != nil {
		return nil, err
	}
	return e, e.Open()
}

// Run forwards until ctx ends, and closes the interface. It is called once.
func (b *Balancer) Run(ctx context.Context) error {
	if b.opt.Collected > 0 {
		go collect(ctx, b.opt.Collected)
	}
	return b.plane.Run(ctx)
}

func (b *Balancer) apply(state states) error {
	b.snapshots++
	snap, err := compile(&b.opt, uint64(b.snapshots), state, b.plane.Interfaces()[0], b.plane.NATSpace())
	if err != nil {
		return err
	}
	return b.plane.Apply(snap, steer.Set{VIPs: []netip.Addr{world.VIP(b.opt.IPv6).Addr()}})
}

// Turn applies a snapshot in which one backend is out, each time the next one, and
// all others get new flows: those of that one go elsewhere.
func (b *Balancer) Turn() error {
	if err := b.apply(without(b.turns % world.Backends)); err != nil {
		return err
	}
	b.turns++
	return nil
}

// Snapshots returns how many were applied, with that of Open.
func (b *Balancer) Snapshots() int { return b.snapshots }

func (b *Balancer) workers() ([]engine.Worker, error) {
	all := b.plane.Workers()
	if len(all) != b.opt.Queues {
		return nil, fmt.Errorf("%d workers instead of %d: %v", len(all), b.opt.Queues, b.plane.Interfaces()[0].Err)
	}
	return all, nil
}

// Threads returns the ids of the workers' threads, once they run.
func (b *Balancer) Threads(ctx context.Context) ([]int, error) {
	workers, err := b.workers()
	threads := make([]int, len(workers))
	for i, w := range workers {
		err = errors.Join(err, w.Do(ctx, func() { threads[i] = unix.Gettid() }))
	}
	return threads, err
}

// Status is what the workers have counted since they were started.
type Status struct {
	Ran             time.Duration `json:"ran_ns"` // by all workers, when they counted the rest
	Received        uint64        `json:"received"`
	ReceiveDropped  uint64        `json:"receive_dropped"` // by the kernel, which found no room in the rings
	Sent            uint64        `json:"sent"`            // that the queue took
	HandedOver      uint64        `json:"handed_over"`     // from one worker to another
	TransmitDropped uint64        `json:"transmit_dropped"`
	Kept            uint64        `json:"kept"` // packets for backends that Drain is about

	Decided          uint64 `json:"decided"` // packets whose flow was not known
	Flows            int    `json:"flows"`   // now
	Capacity         int    `json:"capacity"`
	Evicted          uint64 `json:"evicted"` // trusted flows
	UntrustedEvicted uint64 `json:"untrusted_evicted"`
	Unrecorded       uint64 `json:"unrecorded"` // above NewRate
	Refused          uint64 `json:"refused"`    // no room in the table, or no SNAT port
	TakenOver        uint64 `json:"taken_over"` // SNAT ports
	SNATFlows        int64  `json:"snat_flows"` // that have a SNAT port, now
	Limited          uint64 `json:"limited"`    // above LimitNewFlows

	Drops map[string]uint64 `json:"drops"` // by reason, but for those without
}

// Status returns what the workers have counted.
func (b *Balancer) Status(ctx context.Context) (Status, error) {
	s := Status{Drops: make(map[string]uint64)}
	workers, err := b.workers()
	if err != nil {
		return s, err
	}
	var c stats.Counters
	for _, w := range workers {
		ws, err := w.Status(ctx)
		if err == nil {
			err = addOwnTime(ctx, w, &s.Ran)
		}
		if err != nil {
			return s, err
		}
		ws.Counters.AddTo(&c)
		s.Flows += ws.Flows
		s.Capacity += ws.Capacity
		s.ReceiveDropped += ws.Queue.ReceiveDropped
		s.TransmitDropped += ws.Queue.TransmitDropped
	}
	s.Received = c.Received.Packets
	s.Sent = c.Transmitted.Packets
	s.HandedOver = c.HandedOver.Packets
	s.Evicted = c.FlowsEvicted
	s.UntrustedEvicted = c.FlowsUntrustedEvicted
	s.Unrecorded = c.FlowsUnrecorded
	s.Refused = c.FlowsRefused + c.Drops[stats.PortsExhausted]
	s.TakenOver = c.NATTakenOver
	s.SNATFlows = c.NATFlows
	s.Limited = c.Drops[stats.ServiceLimit]
	for slot := range c.Backends {
		s.Decided += c.Backends[slot].NewFlows
	}
	for _, sent := range c.Sent[:min(half, len(c.Sent))] {
		s.Kept += sent.Packets
	}
	for reason, n := range c.Drops {
		if n > 0 {
			s.Drops[stats.Reason(reason).String()] = n
		}
	}
	return s, nil
}

// addOwnTime adds how long the worker's thread has run.
func addOwnTime(ctx context.Context, w engine.Worker, sum *time.Duration) error {
	var ran time.Duration
	var errRead error
	if err := w.Do(ctx, func() { ran, errRead = measure.OwnTime() }); err != nil {
		return err // what the worker may still write to is nobody's
	}
	*sum += ran
	return errRead
}

// Known is how many flows of the clients the workers know.
type Known struct {
	All         int `json:"all"`
	Established int `json:"established"` // those that have opened before are trusted then
}

// Known counts flows.
func (b *Balancer) Known(ctx context.Context) (k Known, err error) {
	err = b.flows(ctx, func(f worker.Flow) {
		k.All++
		if f.State == flow.StateEstablished {
			k.Established++
		}
	})
	return k, err
}

// Drain keeps in mind where each established flow of the clients is, and has
// new flows go to other backends from now on.
func (b *Balancer) Drain(ctx context.Context) (err error) {
	if b.drained, err = b.established(ctx); err != nil {
		return err
	}
	return b.apply(secondHalf)
}

// Loss says what has become of flows that were there at the time of Drain.
type Loss struct {
	Gone  int `json:"gone"`  // no worker knows them any more
	Moved int `json:"moved"` // they are at another backend
}

// Lost returns how many flows are not where they were at the time of Drain.
func (b *Balancer) Lost(ctx context.Context) (Loss, error) {
	now, err := b.established(ctx)
	return lost(b.drained, now), err
}

func lost(before, now map[packet.Tuple]place) (l Loss) {
	for tuple, was := range before {
		switch is, ok := now[tuple]; {
		case !ok:
			l.Gone++
		case is != was:
			l.Moved++
		}
	}
	return l
}

func (b *Balancer) established(ctx context.Context) (map[packet.Tuple]place, error) {
	flows := make(map[packet.Tuple]place)
	err := b.flows(ctx, func(f worker.Flow) {
		if f.State == flow.StateEstablished {
			flows[f.Tuple] = place{f.Slot, f.Generation}
		}
	})
	return flows, err
}

// flows calls yield for each flow of the clients.
func (b *Balancer) flows(ctx context.Context, yield func(worker.Flow)) error {
	workers, err := b.workers()
	for _, w := range workers {
		err = errors.Join(err, w.Flows(ctx, func(f worker.Flow) bool {
			if b.opt.Clients.Contains(packet.NetipAddr(f.Tuple.Src)) {
				yield(f)
			}
			return true
		}))
	}
	return err
}
