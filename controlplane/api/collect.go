package api

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/config"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/stats"
	"weir/dataplane/worker"
)

// Appliance is what the api asks.
type Appliance interface {
	Info() Info
	View() *reconcile.View
	Interfaces() []engine.InterfaceStatus
	Workers() []engine.Worker
	Status(ctx context.Context) []engine.WorkerStatus
	NATSpace() *nat.Space
	Reload() (Reloaded, error)

	// Announcements is what has become of all of them, in the order in which they
	// are to be shown. What the view has as not Ready need not be in it.
	Announcements() []announce.Status

	Pools() []Pool     // by name
	Members() []Member // by name; without a cluster none, or this node
	Peers() []Peer     // by name

	// Doctor looks into a service, or into all if that is empty, until it has a
	// diagnosis or ctx ends; what it has not found out by then is skipped. The error
	// is for when there can be no diagnosis at all.
	Doctor(ctx context.Context, service string) (Diagnosis, error)

	// Plan says what a configuration would change, given as the text of a file of
	// this name, and what is to be warned of. It changes nothing.
	Plan(name string, text []byte) (*reconcile.Plan, []string, error)

	// Drain and Undrain return the services concerned.
	Drain(backend netip.Addr, service string, over time.Duration) ([]string, error)
	Undrain(backend netip.Addr, service string) ([]string, error)
}

// totals adds the counters of all workers that answered.
func totals(all []engine.WorkerStatus) *stats.Counters {
	sum := &stats.Counters{}
	for i := range all {
		if all[i].Err == nil {
			all[i].Counters.AddTo(sum)
		}
	}
	return sum
}

// loadOf is what a backend was sent, what came back, and what became of its
// connections: the sum over its slots.
func loadOf(b *reconcile.Backend, sum *stats.Counters) (l Load, answers Traffic, tcp TCP) {
	for _, slot := range b.Slots {
		if int(slot.Number) >= len(sum.Backends) {
			continue
		}
		if c := &sum.Backends[slot.Number]; c.Generation == slot.Generation {
			l.add(Load{Traffic(sum.Sent[slot.Number]), c.NewFlows, c.Flows})
			answers.Packets += c.Answers.Packets
			answers.Bytes += c.Answers.Bytes
			tcp.Opened += c.Opened
			tcp.Established += c.Established
			tcp.Retries += c.Retries
			tcp.Resets += c.Resets
		}
	}
	return l, answers, tcp
}

func services(view *reconcile.View, sum *stats.Counters) []Service {
	all := make([]Service, 0, len(view.Services))
	for i := range view.Services {
		v := &view.Services[i]
		s := Service{
			Name: v.Name, Mode: string(v.Mode), Affinity: string(v.Affinity), TableSize: v.TableSize,
			Addresses: v.Addresses, Backends: len(v.Backends), Usable: v.Usable(),
			Ping: string(v.Ping), Reject: string(v.Reject), SlowStartMS: v.SlowStart.Milliseconds(),
			Limits: limits(&v.Limits),
		}
		if v.Mode == config.ModeNAT {
			s.ClientAddress = string(v.ClientAddress)
		}
		if v.Affinity == config.AffinitySource {
			s.AffinityPrefix, s.AffinityPrefix6 = v.AffinityPrefix, v.AffinityPrefix6
		}
		if len(v.ACL.Allow)+len(v.ACL.Deny) > 0 {
			s.ACL = &ACL{Allow: len(v.ACL.Allow), Deny: len(v.ACL.Deny)}
		}
		for _, p := range v.Ports {
			s.Ports = append(s.Ports, p.String())
		}
		for k := range v.Backends {
			load, _, _ := loadOf(&v.Backends[k], sum)
			s.Load.add(load)
		}
		all = append(all, s)
	}
	return all
}

func limits(l *config.Limits) *Limits {
	p := &l.PerSource
	if l.NewFlows+l.Packets+p.NewFlows+p.Packets == 0 {
		return nil
	}
	return &Limits{
		NewFlows: l.NewFlows, Packets: l.Packets, Prefix: p.Prefix, Prefix6: p.Prefix6,
		NewFlowsPerSrc: p.NewFlows, PacketsPerSrc: p.Packets,
	}
}

func backends(view *reconcile.View, sum *stats.Counters) []Backend {
	all := []Backend{}
	for i := range view.Services {
		s := &view.Services[i]
		for k := range s.Backends {
			all = append(all, backend(s, &s.Backends[k], sum))
		}
	}
	return all
}

func backend(s *reconcile.Service, v *reconcile.Backend, sum *stats.Counters) Backend {
	b := Backend{
		Service: s.Name, Address: v.Address, Port: v.Port, Weight: v.Weight, Share: v.Share,
		Admin: string(v.Admin), Status: string(v.Status), Reason: v.Reason,
		WeightNow: v.WeightNow(), WeightUntil: v.Until, Drained: v.Drained,
	}
	b.Load, b.Answers, b.TCP = loadOf(v, sum)
	if len(v.Checks) > 0 {
		b.Health = &Health{
			Kind: checkKind(s.Health), Target: string(s.Health.Address), Port: checkPort(s, v.Address), State: v.Health.State.String(), Since: v.Health.Since,
			LastError: v.Health.LastError, LastMS: v.Health.LastDuration.Seconds() * 1000,
		}
	}
	if v.Hop.State == nexthop.Resolved {
		b.Path = &Path{
			Interface: v.Hop.Interface, SrcMAC: v.Hop.SrcMAC.String(), DstMAC: v.Hop.DstMAC.String(),
			VLAN: v.Hop.VLAN, Gateway: v.Hop.Gateway, Source: v.Hop.Source, MTU: v.MTU, MTUSource: string(v.MTUSource),
		}
	}
	return b
}

func checkKind(h *config.Health) string {
	switch {
	case h.HTTP != nil:
		return "http"
	case h.ICMP != nil:
		return "icmp"
	case h.UDP != nil:
		return "udp"
	case h.DNS != nil:
		return "dns"
	case h.GRPC != nil:
		return "grpc"
	}
	return "tcp"
}

// checkPort is where the checks of a backend go; 0 if they have no port.
func checkPort(s *reconcile.Service, backend netip.Addr) uint16 {
	i := slices.IndexFunc(s.Service.Backends, func(b config.Backend) bool { return b.Address == backend })
	if i < 0 || s.Health.ICMP != nil {
		return 0
	}
	return s.Service.Backends[i].CheckPort
}

func workers(all []engine.WorkerStatus) []Worker {
	out := make([]Worker, 0, len(all))
	for i := range all {
		s := &all[i]
		w := Worker{Interface: s.Interface, Queue: s.Index, CPU: s.CPU, Drops: map[string]uint64{}}
		if s.Err != nil {
			w.Error = s.Err.Error()
			out = append(out, w)
			continue
		}
		c := &s.Counters
		w.Received, w.Transmitted = Traffic(c.Received), Traffic(c.Transmitted)
		w.HandedOver, w.Spread = Traffic(c.HandedOver), Traffic(c.Spread)
		w.ARPReplies, w.NDPReplies, w.EchoReplies = c.ARPReplies, c.NDPReplies, c.EchoReplies
		w.Flows, w.FlowCapacity = s.Flows, s.Capacity
		w.FlowsEvicted, w.FlowsExpired, w.Untrusted = c.FlowsEvicted, c.FlowsExpired, c.FlowsUntrustedEvicted
		w.Refused, w.Unrecorded = c.FlowsRefused, c.FlowsUnrecorded
		w.NATFlows, w.NATTakenOver = c.NATFlows, c.NATTakenOver
		w.TooBigReplies, w.TooBigLearned = c.PathMTUAnswers, c.PathMTULearned
		w.Rejects, w.Relayed = c.Rejects, c.ErrorsRelayed
		w.Fragmented, w.FragmentsHeld = c.Fragmented, c.FragmentsHeld
		w.Wakeups, w.Pauses, w.LongestUS = c.Wakeups, c.Pauses, c.Longest.Microseconds()
		w.KernelDropped, w.KernelInvalid = s.Queue.ReceiveDropped, s.Queue.ReceiveInvalid
		for r := range stats.NumReasons {
			if n := c.Drops[r]; n > 0 {
				w.Drops[r.String()] = n
				w.Dropped += n
			}
		}
		out = append(out, w)
	}
	return out
}

func drops(sum *stats.Counters) []Drop {
	all := make([]Drop, 0, stats.NumReasons)
	for r := stats.ReasonNone + 1; r < stats.NumReasons; r++ {
		all = append(all, Drop{Reason: r.String(), Help: r.Help(), Packets: sum.Drops[r]})
	}
	return all
}

func interfaces(all []engine.InterfaceStatus) []Interface {
	out := make([]Interface, 0, len(all))
	for _, s := range all {
		i := Interface{
			Name: s.Name, Up: s.Up, Stuck: s.Stuck, MAC: s.MAC.String(), MTU: s.MTU,
			Driver: string(s.Driver), Mode: s.Mode, Reasons: s.Reasons, Workers: s.Workers,
		}
		if s.Err != nil {
			i.Error = s.Err.Error()
		}
		out = append(out, i)
	}
	return out
}

// natOf asks the space who owns each block, which is an atomic load each.
func natOf(view *reconcile.View, space *nat.Space, sum *stats.Counters) NAT {
	out := NAT{
		Addresses: []SNAT{}, Flows: sum.NATFlows, TakenOver: sum.NATTakenOver, Exhausted: sum.Drops[stats.PortsExhausted],
	}
	for _, a := range view.SNAT {
		r := a.Range
		s := SNAT{Address: a.Address, Shared: a.Shared, Ports: config.PortRange{Lo: r.Lo, Hi: r.Hi}.String()}
		for block := int(r.Lo) / nat.BlockPorts; block <= int(r.Hi)/nat.BlockPorts; block++ {
			s.Blocks++
			if _, owned := space.Owner(r.Slot, uint16(block*nat.BlockPorts)); owned {
				s.InUse++
			}
		}
		out.Addresses = append(out.Addresses, s)
	}
	return out
}

// flowFilter says which flows are wanted.
type flowFilter struct {
	service string
	backend netip.Addr
	limit   int
}

// flows lists flows, worker by worker. A worker that does not answer is an
// error, since a list without its flows would mislead.
func flows(ctx context.Context, a Appliance, filter flowFilter) (Flows, error) {
	out := Flows{Flows: []Flow{}}
	view := a.View()
	for _, w := range a.Workers() {
		err := w.Flows(ctx, func(f worker.Flow) bool {
			out.add(&f, w.Interface, w.Index(), view, filter)
			return !out.Truncated
		})
		if err != nil || out.Truncated {
			return out, err
		}
	}
	return out, nil
}

func (out *Flows) add(f *worker.Flow, ifname string, index int, view *reconcile.View, filter flowFilter) {
	use, _ := view.Slot(f.Slot, f.Generation) // of nobody if the backend is gone
	if filter.service != "" && use.Service != filter.service {
		return
	}
	if filter.backend.IsValid() && use.Backend != filter.backend {
		return
	}
	if len(out.Flows) == filter.limit {
		out.Truncated = true
		return
	}
	protocol := "tcp"
	if f.Tuple.Proto == packet.ProtoUDP {
		protocol = "udp"
	}
	out.Flows = append(out.Flows, Flow{
		Protocol: protocol,
		Client:   netip.AddrPortFrom(packet.NetipAddr(f.Tuple.Src), f.Tuple.SrcPort),
		VIP:      netip.AddrPortFrom(packet.NetipAddr(f.Tuple.Dst), f.Tuple.DstPort),
		SNAT:     f.SNAT,
		Service:  use.Service, Backend: use.Backend,
		State: f.State.String(), IdleMS: f.Idle.Milliseconds(),
		Interface: ifname, Worker: index,
	})
}
