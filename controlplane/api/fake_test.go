package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/nic"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/worker"
)

// fake is an appliance that says the same every time. Only its workers live.
type fake struct {
	workers []engine.Worker
	status  []engine.WorkerStatus
	space   *nat.Space
	plan    func(name string, text []byte) (*reconcile.Plan, []string, error)
	refuse  error // what verbs return
	reloads atomic.Int32
	orders  []string // drains and undrains

	members []Member // in place of those that there are else
	doctor  func(ctx context.Context, service string) (Diagnosis, error)
}

func newFake() *fake {
	f := &fake{space: nat.NewSpace()}
	slots, err := f.space.Slots([][16]byte{packet.Addr16(netip.MustParseAddr("10.0.0.240"))})
	if err != nil {
		panic(err)
	}
	for worker := range uint16(3) {
		f.space.Claim(slots[0], worker, 2000, 3000, 0)
	}
	counters := stats.Counters{
		Received:    stats.Traffic{Packets: 100, Bytes: 10000},
		Transmitted: stats.Traffic{Packets: 80, Bytes: 8000},
		HandedOver:  stats.Traffic{Packets: 8, Bytes: 800},
		Spread:      stats.Traffic{Packets: 6, Bytes: 600},
		ARPReplies:  3, NDPReplies: 2, EchoReplies: 1,
		FlowsEvicted: 4, FlowsExpired: 5, Wakeups: 7, Pauses: 3, Longest: 2500 * time.Microsecond,
		FlowsUntrustedEvicted: 21, FlowsRefused: 22, FlowsUnrecorded: 23, NATFlows: 24, NATTakenOver: 25,
		PathMTUAnswers: 26, PathMTULearned: 27, Rejects: 28, ErrorsRelayed: 29, Fragmented: 30, FragmentsHeld: 31,
		Sent: []stats.Traffic{{Packets: 50, Bytes: 5000}, {Packets: 30, Bytes: 3000}, {Packets: 999, Bytes: 9999}},
		Backends: []stats.Backend{
			{Answers: stats.Traffic{Packets: 40, Bytes: 9000}, NewFlows: 20, Flows: 10, Generation: 1},
			{NewFlows: 9, Flows: 4, Generation: 2, Opened: 9, Established: 5, Retries: 7, Resets: 1},
			{NewFlows: 99, Flows: 99, Generation: 6}, // of who had slot 2 before
		},
	}
	counters.Drops[stats.NoBackend] = 11
	counters.Drops[stats.TransmitFull] = 1
	counters.Drops[stats.PortsExhausted] = 2
	other := counters
	other.Sent, other.Backends = counters.Sent[:1], counters.Backends[:1]
	f.status = []engine.WorkerStatus{
		{Interface: "eth1", Status: worker.Status{
			Index: 0, CPU: 2, Flows: 14, Capacity: 1024,
			Queue:    queue.Stats{ReceiveDropped: 12, ReceiveInvalid: 13, TransmitDropped: 1},
			Counters: counters,
		}},
		{Interface: "eth1", Status: worker.Status{Index: 1, CPU: -1, Flows: 10, Capacity: 1024, Counters: other}},
		{Interface: "eth2", Status: worker.Status{Index: 0, CPU: 3}, Err: errors.New("worker of queue 0 does not respond: context deadline exceeded")},
		{Interface: "eth2", Status: worker.Status{Index: 1, CPU: 3}, Err: worker.ErrStopped},
	}
	return f
}

func noon() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

func (f *fake) Info() Info {
	return Info{Version: "1.2.3", Node: "lb1", Config: "/etc/weir/weir.yaml", PID: 42, Started: noon(), Generation: 7}
}

func (f *fake) View() *reconcile.View {
	backend := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, last}) }
	return &reconcile.View{
		Generation: 7,
		Services: []reconcile.Service{
			{
				Service: &config.Service{
					Name: "web", Mode: config.ModeDSR, ClientAddress: config.ClientSNAT, Affinity: config.AffinityFlow, TableSize: 65537,
					Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")},
					Ports:     []config.Port{{Proto: config.TCP, Lo: 80, Hi: 80}, {Proto: config.UDP, Lo: 1000, Hi: 2000}},
					Ping:      config.PingAlways, Reject: config.RejectDrop, SlowStart: 30 * time.Second,
					Health:   &config.Health{HTTP: &config.HTTPCheck{Path: "/"}, Address: config.CheckVIP},
					Backends: []config.Backend{{Address: backend(11), CheckPort: 80}, {Address: backend(12), CheckPort: 8080}},
				},
				Backends: []reconcile.Backend{
					{
						Address: backend(11), Weight: 100, Admin: config.Active, Status: reconcile.StatusUp, Checks: []reconcile.Check{{ID: "web"}},
						Health: health.Result{State: health.Up, Since: noon(), LastDuration: 1500 * time.Microsecond},
						Hop: nexthop.Hop{
							State: nexthop.Resolved, Interface: "eth1", VLAN: 7, SrcMAC: nexthop.MAC{2, 0, 0, 0, 1, 1},
							DstMAC: nexthop.MAC{2, 0, 0, 0, 2, 11}, Gateway: backend(1), Source: backend(2), MTU: 1500,
						},
						Level: 3, Until: noon().Add(21 * time.Second), MTU: 1400, MTUSource: reconcile.MTULearned,
						Share: 0.75, Slots: []reconcile.SlotRef{{Number: 0, Generation: 1}},
					},
					{
						Address: backend(12), Weight: 50, Admin: config.Draining, Status: reconcile.StatusDown, Reason: "connection refused", Checks: []reconcile.Check{{ID: "web"}},
						Health: health.Result{State: health.Down, Since: noon(), LastError: "connection refused"},
						Share:  0.25, Slots: []reconcile.SlotRef{{Number: 1, Generation: 2}},
					},
				},
			},
			{
				Service: &config.Service{
					Name: "dns", Mode: config.ModeNAT, ClientAddress: config.ClientKeep, TableSize: 251,
					Affinity: config.AffinitySource, AffinityPrefix: 24, AffinityPrefix6: 56,
					Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.53")},
					Ports:     []config.Port{{Proto: config.UDP, Lo: 53, Hi: 53}},
					Ping:      config.PingHealthy, Reject: config.RejectICMP,
					Limits: config.Limits{NewFlows: 1000, PerSource: config.SourceLimits{Prefix: 24, Prefix6: 56, Packets: 10}},
					Health: &config.Health{ICMP: &config.ICMPCheck{}, Address: config.CheckBackend},
					ACL:    config.ACL{Deny: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
				},
				Backends: []reconcile.Backend{{
					Checks: []reconcile.Check{{ID: "dns"}}, Address: backend(53), Port: 5353, Weight: 1, Drained: true, Admin: config.Active, Status: reconcile.StatusResolving,
					Reason: "its next hop is not known yet", Slots: []reconcile.SlotRef{{Number: 2, Generation: 5}, {Number: 9, Generation: 1}},
				}},
			},
		},
		Slots: []reconcile.SlotUse{
			{Service: "web", Backend: backend(11), Generation: 1},
			{Service: "web", Backend: backend(12), Generation: 2},
			{Service: "dns", Backend: backend(53), Generation: 5},
		},
		Addresses: []reconcile.Address{
			{Address: netip.MustParseAddr("203.0.113.10"), Pool: "public", By: []config.Announce{config.AnnounceL2, config.AnnounceBGP}, Ready: true},
			{Address: netip.MustParseAddr("203.0.113.53"), By: []config.Announce{config.AnnounceL2}, Reason: "service dns has 0 usable backends, of 1 that it needs"},
			{Address: netip.MustParseAddr("203.0.113.54"), Reason: "nobody is told of it"},
		},
		SNAT: []reconcile.SNAT{
			{Address: netip.MustParseAddr("10.0.0.240"), Range: nat.Range{Slot: 0, Lo: 2000, Hi: 3000}},
			{Address: netip.MustParseAddr("2001:db8::f0"), Range: nat.Range{Slot: 1, Lo: 50000, Hi: 50063}, Shared: true},
		},
	}
}

func (f *fake) Interfaces() []engine.InterfaceStatus {
	return []engine.InterfaceStatus{
		{
			Name: "eth1", Ifindex: 2, MAC: packet.MAC{2, 0, 0, 0, 1, 1}, MTU: 1500, Up: true,
			Driver: nic.AFXDP, Mode: "copy", Reasons: []string{"afxdp zero-copy: operation not supported"}, Workers: 2,
		},
		{Name: "eth2", Err: queue.ErrGone},
	}
}

func (f *fake) Workers() []engine.Worker                     { return f.workers }
func (f *fake) Status(context.Context) []engine.WorkerStatus { return f.status }

func (f *fake) Reload() (Reloaded, error) {
	f.reloads.Add(1)
	if f.refuse != nil {
		return Reloaded{}, f.refuse
	}
	return Reloaded{Generation: 8, Warnings: []string{"weir.yaml:3: something"}}, nil
}

func (f *fake) NATSpace() *nat.Space { return f.space }

func (f *fake) Plan(name string, text []byte) (*reconcile.Plan, []string, error) {
	return f.plan(name, text)
}

func (f *fake) Drain(backend netip.Addr, service string, over time.Duration) ([]string, error) {
	f.orders = append(f.orders, fmt.Sprintf("drain %s %q over %s", backend, service, over))
	return []string{"web"}, f.refuse
}

func (f *fake) Undrain(backend netip.Addr, service string) ([]string, error) {
	f.orders = append(f.orders, fmt.Sprintf("undrain %s %q", backend, service))
	return []string{"dns"}, f.refuse
}

// addWorker gives the fake a worker with flows clients, alternating between
// slots 0 and 1, and one whose slot has changed hands since.
func (f *fake) addWorker(t *testing.T, name string, clients int) {
	t.Helper()
	mac := packet.MAC{2, 0, 0, 0, 1, 1}
	rw, err := rewrite.DSR(rewrite.Link{Dst: mac, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	spec := snapshot.Spec{Interfaces: []snapshot.Interface{{MAC: mac}}}
	for slot, generation := range []uint32{1, 2, 4} { // the view has 5 for the last
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: rw, State: snapshot.Active, Generation: generation, Service: uint32(slot),
		})
		spec.Services = append(spec.Services, snapshot.Service{Table: []uint16{0}, Members: []uint32{uint32(slot)}})
		port := uint16(1000 + slot)
		spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{
			Addr: packet.Addr16(netip.MustParseAddr("203.0.113.10")), Proto: packet.ProtoUDP, Lo: port, Hi: port, Service: uint32(slot),
		})
	}
	snap, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	ports := make([]uint16, clients+1)
	for n := range clients {
		ports[n] = uint16(1000 + n%2)
	}
	ports[clients] = 1002
	f.runWorker(t, name, snap, ports)
}

// runWorker gives the fake a worker that goes by a snapshot and has a flow, each
// of another client, to each of these ports of the VIP.
func (f *fake) runWorker(t *testing.T, name string, snap *snapshot.Snapshot, ports []uint16) {
	t.Helper()
	var current atomic.Pointer[snapshot.Snapshot]
	current.Store(snap)
	table, err := flow.New(1<<14, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(4096)
	w := worker.New(worker.Config{CPU: -1, Queue: q, Flows: table, Snapshot: &current, Log: slog.New(slog.DiscardHandler)})
	for n, port := range ports {
		q.Inject(packettest.Frame(packettest.Spec{
			DstMAC: packet.MAC{2, 0, 0, 0, 1, 1}, Proto: packet.ProtoUDP,
			Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), 4000),
			Dst: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.10"), port),
		}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = table.Close()
	})
	wait, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if _, err := q.AwaitSent(wait, len(ports)); err != nil {
		t.Fatal(err)
	}
	f.workers = append(f.workers, engine.Worker{Interface: name, Worker: w})
}
