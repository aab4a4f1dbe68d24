package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weir/controlplane/config"
	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/worker"
)

// Plan is what a configuration would change if it were put in force now. Health
// and next hops are taken as they are, backends that are not known yet as usable,
// and what takes its time (a drain, a slow start) as over, before and after.
type Plan struct {
	Diff
	Moves map[string]*Move // by service

	running, after *snapshot.Snapshot
	view           *View // of running
}

// Move is how the slots of a service's Maglev tables move, of both families
// together. A slot stands for an equal part of all new flows, and of those flows
// that no worker remembers.
type Move struct {
	Share    float64 // of slots that move to another backend, 0 to 1
	Backends []BackendMove
}

// BackendMove is what a backend has of the slots, each 0 to 1, before and after,
// and what leaves it and comes to it. The invalid address stands for none: there
// is no backend that may be given a new flow.
type BackendMove struct {
	Address       netip.Addr
	Before, After float64
	Leaves, Comes float64
}

// Plan works out what cfg would change. It changes nothing.
func (r *Reconciler) Plan(cfg *config.Config) (*Plan, error) {
	r.mu.Lock()
	in, _, _ := r.input(time.Now())
	in.drains = maps.Clone(in.drains)
	in.settled = true
	running, view := r.applied, r.view.Load()
	first, second := r.compiler.clone(), r.compiler.clone()
	r.mu.Unlock()
	if running == nil {
		return nil, errors.New("weir is still starting; ask again in a moment")
	}

	p := &Plan{Diff: DiffOf(in.config, cfg), Moves: make(map[string]*Move), running: running, view: view}
	before, err := first.compile(in)
	if err != nil {
		return nil, fmt.Errorf("compile the running configuration: %w", err)
	}
	in.config = cfg
	after, err := second.compile(in)
	if err != nil {
		return nil, fmt.Errorf("compile the new configuration: %w", err)
	}
	p.after = after.snap
	old, fresh := familiesOf(before), familiesOf(after)
	for i := range p.Services {
		name := p.Services[i].Name
		p.Moves[name] = moveOf(name, old, fresh)
	}
	return p, nil
}

// Breaks tells whether a flow that is alive now would be no longer, because its
// packets would go to another backend, or to none. It names the
// service that the flow is of; empty if it is none's already, or over.
func (p *Plan) Breaks(f *worker.Flow) (service string, breaks bool) {
	if f.State == flow.StateClosed || f.State == flow.StateTimeWait || !keeps(p.running, f) {
		return "", false
	}
	use, _ := p.view.Slot(f.Slot, f.Generation)
	return use.Service, !keeps(p.after, f) && !p.rejoins(f)
}

// rejoins tells whether a flow that runs now, and would not be left where it is,
// would be given the same backend again. Packets that weir only sends on go by
// Maglev then, also in the middle of a connection; NAT would need a SNAT port
// that the backend knows.
func (p *Plan) rejoins(f *worker.Flow) bool {
	b := p.running.Backend(f.Slot)
	svc := serviceOf(p.after, f)
	if svc == nil || svc.Mode != snapshot.Direct || p.running.Services[b.Service].Mode != snapshot.Direct {
		return false
	}
	slot := svc.Choose(&f.Tuple)
	return slot != snapshot.None && p.after.Backend(slot).Addr == b.Addr
}

// serviceOf returns the service that a flow's packets would be let in to; nil for
// none.
func serviceOf(snap *snapshot.Snapshot, f *worker.Flow) *snapshot.Service {
	vip := snap.VIP(&f.Tuple.Dst)
	if vip == nil {
		return nil
	}
	index := vip.Service(f.Tuple.Proto, f.Tuple.DstPort)
	if index == snapshot.None {
		return nil
	}
	svc := &snap.Services[index]
	if svc.ACL != nil && !svc.ACL.Allows(&f.Tuple.Src) {
		return nil
	}
	return svc
}

// keeps tells whether workers that go by a snapshot would leave a flow where it
// is: as package forward decides.
func keeps(snap *snapshot.Snapshot, f *worker.Flow) bool {
	svc := serviceOf(snap, f)
	if svc == nil || uint64(f.Slot) >= uint64(snap.Slots()) {
		return false
	}
	b := snap.Backend(f.Slot)
	if b.Generation != f.Generation || b.State == snapshot.Removed || svc != &snap.Services[b.Service] {
		return false
	}
	if !f.SNAT.IsValid() {
		return true
	}
	addr := packet.Addr16(f.SNAT.Addr())
	own := snap.VIP(&addr)
	if own == nil || own.SNAT == nil {
		return false
	}
	// Only new flows go by the ports, unless all others are the kernel's.
	r := own.SNAT.Range
	return !own.SNAT.Shared || r.Lo <= f.SNAT.Port() && f.SNAT.Port() <= r.Hi
}

// spread is how one family of a service spreads new flows.
type spread struct {
	service *snapshot.Service
	view    *View
}

// at returns the backend of the n-th part of all new flows, over and over if
// there are fewer; the invalid address for none. Tables of different sizes have
// nothing in common, so that it does not matter which part is held against which.
func (s *spread) at(n int) netip.Addr {
	if len(s.service.Table) == 0 {
		return netip.Addr{}
	}
	slot := s.service.Members[s.service.Table[n%len(s.service.Table)]]
	return s.view.Slots[slot].Backend
}

func familiesOf(out output) map[serviceKey]*spread {
	all := make(map[serviceKey]*spread)
	n := 0
	for i := range out.view.Services {
		s := out.view.Services[i].Service
		for _, g := range groups(s) {
			if key := (serviceKey{s.Name, g.ipv6}); all[key] == nil { // one VIP stands for all of its family
				all[key] = &spread{&out.snap.Services[n], out.view}
			}
			n++
		}
	}
	return all
}

// moveOf compares the tables of the families that a service has before and
// after; nil if there are none.
func moveOf(name string, before, after map[serviceKey]*spread) *Move {
	var keys []serviceKey
	for _, ipv6 := range []bool{false, true} {
		if key := (serviceKey{name, ipv6}); before[key] != nil && after[key] != nil {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	m := &Move{}
	moves := make(map[netip.Addr]*BackendMove)
	of := func(a netip.Addr) *BackendMove {
		if moves[a] == nil {
			moves[a] = &BackendMove{Address: a}
		}
		return moves[a]
	}
	for _, key := range keys {
		old, fresh := before[key], after[key]
		size := max(len(old.service.Table), len(fresh.service.Table), 1)
		part := 1 / float64(size*len(keys))
		for n := range size {
			from, to := old.at(n), fresh.at(n)
			of(from).Before += part
			of(to).After += part
			if from != to {
				of(from).Leaves += part
				of(to).Comes += part
				m.Share += part
			}
		}
	}
	for _, move := range moves {
		if move.Leaves > 0 || move.Comes > 0 {
			m.Backends = append(m.Backends, *move)
		}
	}
	slices.SortFunc(m.Backends, func(a, b BackendMove) int { return a.Address.Compare(b.Address) })
	return m
}
