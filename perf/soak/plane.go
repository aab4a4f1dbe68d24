package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"

	"weir/dataplane/afxdp"
	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/nic"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/steer"
	"weir/perf/world"
)

// Mode is what is done to packets.
type Mode string

// The modes.
const (
	DSR Mode = "dsr"
	NAT Mode = "nat" // IPv4 to IPv4
)

// Modes returns all modes.
func Modes() []Mode { return []Mode{DSR, NAT} }

func (m Mode) check() error {
	for _, mode := range Modes() {
		if m == mode {
			return nil
		}
	}
	return fmt.Errorf("no mode %q: there are %v", m, Modes())
}

// planeOptions says what to run, and on what.
type planeOptions struct {
	Mode      Mode
	Interface string
	CPU       int
	Entries   int
}

// plane is weir's data plane as an appliance has it, engine and all, on one
// interface with one queue. Its methods belong to one goroutine, but for run.
type plane struct {
	opt    planeOptions
	engine *engine.Engine
	turns  int
}

// newRate is the default of flows.new_rate, entries per second.
const newRate = 125_000

// snats is how many SNAT addresses there are.
const snats = 4

func openPlane(opt planeOptions, log *slog.Logger) (*plane, error) {
	e, err := engine.New(engine.Config{
		Interfaces: []engine.Interface{{
			Name: opt.Interface, Driver: nic.AFXDP, XDPModes: []afxdp.Mode{afxdp.Copy}, Queues: 1, CPUs: []int{opt.CPU},
		}},
		FlowEntries: opt.Entries,
		Timeouts:    flow.DefaultTimeouts(),
		Log:         log,
	})
	if err != nil {
		return nil, err
	}
	if err := e.Open(); err != nil {
		return nil, err
	}
	p := &plane{opt: opt, engine: e}
	if err := p.turn(); err != nil {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		return nil, errors.Join(err, e.Run(ended)) // which closes it
	}
	return p, nil
}

func (p *plane) run(ctx context.Context) error { return p.engine.Run(ctx) }

// turn applies the next snapshot.
func (p *plane) turn() error {
	snap, err := compile(p.opt.Mode, p.turns, p.engine.Interfaces()[0], p.engine.NATSpace())
	if err != nil {
		return err
	}
	p.turns++
	return p.engine.Apply(snap, steer.Set{VIPs: []netip.Addr{world.VIP4}})
}

// compile makes the snapshot of a turn, of one service. One backend is out, each
// time the next one: its flows go elsewhere, and a new Maglev table is built.
func compile(mode Mode, turn int, i engine.InterfaceStatus, space *nat.Space) (*snapshot.Snapshot, error) {
	svc := snapshot.Service{Name: string(mode), Empty: stats.NoBackend}
	spec := snapshot.Spec{
		Generation: uint64(turn + 1),
		Interfaces: []snapshot.Interface{{Name: i.Name, MAC: i.MAC, MTU: uint32(i.MTU)}},
		NewFlows:   limit.Rate{PerSecond: newRate},
	}
	var weights []maglev.Backend
	for slot := range world.Backends {
		addr, mac := world.Backend(slot, false)
		link := rewrite.Link{Src: i.MAC, Dst: mac, MTU: i.MTU}
		b := snapshot.Backend{State: snapshot.Active, Generation: 1, Addr: addr.As16()}
		weight := uint32(1)
		if slot == turn%world.Backends {
			b.State, weight = snapshot.Removed, 0
		}
		var err error
		if mode == NAT {
			b.Rewrite, err = rewrite.NAT(link, false)
		} else {
			b.Rewrite, err = rewrite.DSR(link, false)
		}
		if err != nil {
			return nil, err
		}
		spec.Backends = append(spec.Backends, b)
		svc.Members = append(svc.Members, uint32(slot))
		weights = append(weights, maglev.Backend{Name: fmt.Sprint(slot), Weight: weight})
	}
	if mode == NAT {
		svc.Mode = snapshot.NAT
		var addrs [][16]byte
		for n := range snats {
			addrs = append(addrs, world.SNAT(n, false).As16())
		}
		slots, err := space.Slots(addrs)
		if err != nil {
			return nil, err
		}
		for n, slot := range slots {
			spec.SNAT = append(spec.SNAT, snapshot.SNAT{Addr: addrs[n], Range: nat.Range{Slot: slot, Lo: 1024, Hi: 65535}})
		}
	}
	var err error
	if svc.Table, err = maglev.Build(maglev.DefaultSize, weights); err != nil {
		return nil, err
	}
	spec.Services = []snapshot.Service{svc}
	vip := world.VIP(false)
	spec.VIPs = []snapshot.VIPSpec{{Addr: vip.Addr().As16(), Proto: packet.ProtoTCP, Lo: vip.Port(), Hi: vip.Port()}}
	return snapshot.New(spec)
}

// Sample is how things are at one moment. Counts are since the start.
type Sample struct {
	Seconds float64 `json:"seconds"` // since traffic began

	Memory     uint64 `json:"memory"` // bytes of the process that are resident
	Heap       uint64 `json:"heap"`   // bytes of it that the last collection found in use
	Goroutines int    `json:"goroutines"`
	FDs        int    `json:"fds"`

	Snapshots int   `json:"snapshots"`
	Flows     int   `json:"flows"`
	SNATFlows int64 `json:"snat_flows"` // that have a SNAT port

	Received        uint64 `json:"received"`
	ReceiveDropped  uint64 `json:"receive_dropped"` // by the kernel, which found no room in the rings
	Sent            uint64 `json:"sent"`
	TransmitDropped uint64 `json:"transmit_dropped"`
	Dropped         uint64 `json:"dropped"` // by the worker, for any reason
	NewFlows        uint64 `json:"new_flows"`

	Frames afxdp.Account `json:"frames"`
	Total  int           `json:"total"`           // of Frames
	Fault  string        `json:"fault,omitempty"` // of them
}

// totalOf returns how many frames there are: each is in one place.
func totalOf(a afxdp.Account) int {
	return a.Free + a.Fill + a.Receiving + a.Received + a.Send + a.Sending + a.Completed + a.Held
}

// sample looks at everything but what is seen from outside.
func (p *plane) sample(ctx context.Context) (s Sample, err error) {
	workers := p.engine.Workers()
	if len(workers) != 1 {
		return s, fmt.Errorf("%d workers instead of one: %v", len(workers), p.engine.Interfaces()[0].Err)
	}
	w := workers[0]
	var fault error
	err = w.Do(ctx, func() { s.Frames, fault = afxdp.AccountOf(w.Queue()) })
	if err != nil {
		return s, err
	}
	s.Total = totalOf(s.Frames)
	if fault != nil {
		s.Fault = fault.Error()
	}
	status, err := w.Status(ctx)
	if err != nil {
		return s, err
	}
	c := &status.Counters
	s.Received, s.Sent = c.Received.Packets, c.Transmitted.Packets
	s.ReceiveDropped, s.TransmitDropped = status.Queue.ReceiveDropped, status.Queue.TransmitDropped
	for _, n := range c.Drops {
		s.Dropped += n
	}
	for i := range c.Backends {
		s.NewFlows += c.Backends[i].NewFlows
	}
	s.Flows, s.SNATFlows, s.Snapshots = status.Flows, c.NATFlows, p.turns
	s.Goroutines = runtime.NumGoroutine()
	s.Heap = liveHeap()
	s.FDs, err = openFiles()
	return s, err
}

// liveHeap returns how much of the heap the last collection found in use.
func liveHeap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// openFiles returns how many descriptors the process has, without the one that it
// takes to look.
func openFiles() (int, error) {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count descriptors: %w", err)
	}
	return len(fds) - 1, nil
}
