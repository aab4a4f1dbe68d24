package balancer

import (
	"fmt"

	"weir/dataplane/engine"
	"weir/dataplane/limit"
	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/perf/world"
)

const (
	// NewRate is the default of flows.new_rate, for Options.NewRate.
	NewRate = 125_000

	// LimitNewFlows is how many new flows per second mode [Limited] lets pass.
	LimitNewFlows = 20_000
)

// half is how many backends there are from the start, and how many follow.
const half = world.Backends / 2

// states says in which state a backend is. New flows go to those that are active.
type states func(slot int) snapshot.BackendState

// firstHalf is how it is from the start.
func firstHalf(slot int) snapshot.BackendState {
	if slot < half {
		return snapshot.Active
	}
	return snapshot.Keeps
}

// secondHalf is how it is when all backends with flows are drained.
func secondHalf(slot int) snapshot.BackendState {
	if slot < half {
		return snapshot.Keeps
	}
	return snapshot.Active
}

// without is how it is with one backend out.
func without(out int) states {
	return func(slot int) snapshot.BackendState {
		if slot == out {
			return snapshot.Removed
		}
		return snapshot.Active
	}
}

// compile makes a snapshot of one service.
func compile(opt *Options, generation uint64, state states, i engine.InterfaceStatus, space *nat.Space) (*snapshot.Snapshot, error) {
	svc := snapshot.Service{Name: string(opt.Mode), Empty: stats.NoBackend}
	spec := snapshot.Spec{
		Generation: generation,
		Interfaces: []snapshot.Interface{{Name: i.Name, MAC: i.MAC, MTU: uint32(i.MTU)}},
		NewFlows:   limit.Rate{PerSecond: opt.NewRate},
	}
	var weights []maglev.Backend
	for slot := range world.Backends {
		b, err := backend(opt, slot, i)
		if err != nil {
			return nil, err
		}
		weight := uint32(0)
		if b.State = state(slot); b.State == snapshot.Active {
			weight = 1
		}
		spec.Backends = append(spec.Backends, b)
		svc.Members = append(svc.Members, uint32(slot))
		weights = append(weights, maglev.Backend{Name: fmt.Sprint(slot), Weight: weight})
	}
	switch opt.Mode {
	case NAT:
		svc.Mode = snapshot.NAT
		for n := range opt.SNAT {
			addr := world.SNAT(n, opt.IPv6).As16()
			slots, err := space.Slots([][16]byte{addr})
			if err != nil {
				return nil, err
			}
			spec.SNAT = append(spec.SNAT, snapshot.SNAT{Addr: addr, Range: nat.Range{Slot: slots[0], Lo: 1024, Hi: 65535}})
		}
	case Keep:
		svc.Mode = snapshot.NATKeep
	case Limited:
		svc.Limits.NewFlows = limit.Rate{PerSecond: LimitNewFlows}
	}
	var err error
	if svc.Table, err = maglev.Build(maglev.DefaultSize, weights); err != nil {
		return nil, err
	}
	spec.Services = []snapshot.Service{svc}
	for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
		spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: world.VIP(opt.IPv6).Addr().As16(), Proto: proto, Lo: 1, Hi: 65535})
	}
	return snapshot.New(spec)
}

// backend returns a backend of which only the state is missing.
func backend(opt *Options, slot int, i engine.InterfaceStatus) (snapshot.Backend, error) {
	addr, mac := world.Backend(slot, opt.IPv6)
	link := rewrite.Link{Src: i.MAC, Dst: mac, MTU: i.MTU}
	b := snapshot.Backend{Generation: 1, Addr: addr.As16()}
	var err error
	switch opt.Mode {
	case NAT, Keep:
		b.Rewrite, err = rewrite.NAT(link, opt.IPv6)
	case IPIP:
		b.Rewrite, err = rewrite.IPIP(link, opt.IPv6, rewrite.Tunnel{Source: world.Here(opt.IPv6), Destination: addr})
	default:
		b.Rewrite, err = rewrite.DSR(link, opt.IPv6)
	}
	return b, err
}
