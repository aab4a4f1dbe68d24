package api

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weir/controlplane/announce/l2"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/dataplane/engine"
	"weir/dataplane/flow"
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
	reload  error
	reloads atomic.Int32
}

func newFake() *fake {
	f := &fake{}
	counters := stats.Counters{
		Received:    stats.Traffic{Packets: 100, Bytes: 10000},
		Transmitted: stats.Traffic{Packets: 80, Bytes: 8000},
		HandedOver:  stats.Traffic{Packets: 8, Bytes: 800},
		ARPReplies:  3, NDPReplies: 2, EchoReplies: 1,
		FlowsEvicted: 4, FlowsExpired: 5, Wakeups: 7,
		Backends: []stats.Backend{
			{Traffic: stats.Traffic{Packets: 50, Bytes: 5000}, NewFlows: 20, Flows: 10, Generation: 1},
			{Traffic: stats.Traffic{Packets: 30, Bytes: 3000}, NewFlows: 9, Flows: 4, Generation: 2},
			{Traffic: stats.Traffic{Packets: 999, Bytes: 9999}, NewFlows: 99, Flows: 99, Generation: 6}, // of who had slot 2 before
		},
	}
	counters.Drops[stats.NoBackend] = 11
	counters.Drops[stats.TransmitFull] = 1
	other := counters
	other.Backends = counters.Backends[:1]
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
				Name: "web", Mode: config.ModeDSR, Affinity: config.AffinityFlow, TableSize: 65537,
				Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")},
				Ports:     []config.Port{{Proto: config.TCP, Lo: 80, Hi: 80}, {Proto: config.UDP, Lo: 1000, Hi: 2000}},
				Backends: []reconcile.Backend{
					{
						Address: backend(11), Weight: 100, Admin: config.Active, Status: reconcile.StatusUp, Check: "web",
						Health: health.Result{State: health.Up, Since: noon(), LastDuration: 1500 * time.Microsecond},
						Hop: nexthop.Hop{
							State: nexthop.Resolved, Interface: "eth1", VLAN: 7, SrcMAC: nexthop.MAC{2, 0, 0, 0, 1, 1},
							DstMAC: nexthop.MAC{2, 0, 0, 0, 2, 11}, Gateway: backend(1), Source: backend(2), MTU: 1500,
						},
						Share: 0.75, Slots: []reconcile.SlotRef{{Number: 0, Generation: 1}},
					},
					{
						Address: backend(12), Weight: 50, Admin: config.Draining, Status: reconcile.StatusDown, Reason: "connection refused", Check: "web",
						Health: health.Result{State: health.Down, Since: noon(), LastError: "connection refused"},
						Share:  0.25, Slots: []reconcile.SlotRef{{Number: 1, Generation: 2}},
					},
				},
			},
			{
				Name: "dns", Mode: config.ModeIPIP, Affinity: config.AffinitySource, TableSize: 251,
				Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.53")},
				Ports:     []config.Port{{Proto: config.UDP, Lo: 53, Hi: 53}},
				Backends: []reconcile.Backend{{
					Address: backend(53), Weight: 1, Admin: config.Active, Status: reconcile.StatusResolving,
					Reason: "its next hop is not known yet", Slots: []reconcile.SlotRef{{Number: 2, Generation: 5}, {Number: 9, Generation: 1}},
				}},
			},
		},
		Slots: []reconcile.SlotUse{
			{Service: "web", Backend: backend(11), Generation: 1},
			{Service: "web", Backend: backend(12), Generation: 2},
			{Service: "dns", Backend: backend(53), Generation: 5},
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

func (f *fake) Announcements() map[l2.Key]l2.Status {
	four, six := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:1::10")
	return map[l2.Key]l2.Status{
		{Address: six, Interface: "eth1"}:  {Sent: 2, Last: noon()},
		{Address: four, Interface: "eth2"}: {Err: "look up interface: no such network interface"},
		{Address: four, Interface: "eth1"}: {Sent: 3, Last: noon()},
	}
}

func (f *fake) Reload() (Reloaded, error) {
	f.reloads.Add(1)
	if f.reload != nil {
		return Reloaded{}, f.reload
	}
	return Reloaded{Generation: 8, Warnings: []string{"weir.yaml:3: something"}}, nil
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
	var current atomic.Pointer[snapshot.Snapshot]
	current.Store(snap)
	table, err := flow.New(1<<14, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(4096)
	w := worker.New(worker.Config{CPU: -1, Queue: q, Flows: table, Snapshot: &current, Log: slog.New(slog.DiscardHandler)})
	for n := range clients + 1 {
		port := uint16(1000 + n%2)
		if n == clients {
			port = 1002
		}
		q.Inject(packettest.Frame(packettest.Spec{
			DstMAC: mac, Proto: packet.ProtoUDP,
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
	if _, err := q.AwaitSent(wait, clients+1); err != nil {
		t.Fatal(err)
	}
	f.workers = append(f.workers, engine.Worker{Interface: name, Worker: w})
}
