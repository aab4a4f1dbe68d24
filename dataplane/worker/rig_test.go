package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/queue/queuetest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/worker"
)

// patience bounds every wait of a test. It is only spent by one that fails.
const patience = 20 * time.Second

// queueFrames is how many buffers each queue of a test has.
const queueFrames = 4096

// The two interfaces of every test, and the stations beside them.
func ifaceMAC(i int) packet.MAC  { return packet.MAC{2, 0, 0, 0, 1, byte(i)} }
func serverMAC(i int) packet.MAC { return packet.MAC{2, 0, 0, 0, 2, byte(i)} }
func clientMAC() packet.MAC      { return packet.MAC{2, 0, 0, 0, 3, 1} }

// vip returns the address whose only backend is behind interface egress.
func vip(egress int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + egress)}) }

// compile makes a snapshot of two services, one per egress interface, both on
// udp/53 and tcp/80. server says to which station each sends.
func compile(t testing.TB, generation uint64, server func(int) packet.MAC) *snapshot.Snapshot {
	t.Helper()
	spec := snapshot.Spec{Generation: generation}
	for i := range 2 {
		spec.Interfaces = append(spec.Interfaces, snapshot.Interface{Name: fmt.Sprint("eth", i), MAC: ifaceMAC(i)})
		rw, err := rewrite.DSR(rewrite.Link{Egress: uint16(i), Src: ifaceMAC(i), Dst: server(i), MTU: 1500}, false)
		if err != nil {
			t.Fatal(err)
		}
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: rw, State: snapshot.Active, Generation: 1, Service: uint32(i),
		})
		spec.Services = append(spec.Services, snapshot.Service{
			Table: []uint16{0}, Members: []uint32{uint32(i)}, Empty: stats.NoBackend,
		})
		for proto, port := range map[uint8]uint16{packet.ProtoTCP: 80, packet.ProtoUDP: 53} {
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{
				Addr: packet.Addr16(vip(i)), Proto: proto, Lo: port, Hi: port, Service: uint32(i),
			})
		}
	}
	snap, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

// datagram is what client number n sends to the VIP behind egress, received by
// interface ingress.
func datagram(ingress, egress, n int) []byte {
	return packettest.Frame(packettest.Spec{
		SrcMAC: clientMAC(), DstMAC: ifaceMAC(ingress), Proto: packet.ProtoUDP,
		Src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), 4000),
		Dst:     netip.AddrPortFrom(vip(egress), 53),
		Payload: []byte{byte(n >> 8), byte(n)},
	})
}

// forwarded is what becomes of a datagram: the same bytes between other MACs.
func forwarded(frame []byte, egress int, server func(int) packet.MAC) []byte {
	to, from := server(egress), ifaceMAC(egress)
	return append(append(to[:], from[:]...), frame[12:]...)
}

// station is a worker with its queue.
type station struct {
	*worker.Worker
	t      testing.TB
	queue  *queuetest.Queue
	snap   *atomic.Pointer[snapshot.Snapshot]
	cancel context.CancelFunc
	done   chan error
	claims chan worker.Claim
	ended  bool
}

// newStation makes a worker of interface i that does not run yet. Its queue has
// to have every frame back at the end of the test.
func newStation(t testing.TB, i int, snap *atomic.Pointer[snapshot.Snapshot]) *station {
	t.Helper()
	table, err := flow.New(1024, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	q := queuetest.New(queueFrames)
	return assemble(t, i, snap, q, sound{q}, table)
}

// sound is a queue that sleeps until it is woken and never just because of the
// time, so that a wake-up that does not come shows.
type sound struct{ *queuetest.Queue }

func (q sound) Wait(time.Duration) error { return q.Queue.Wait(-1) }

// assemble makes a worker of a flow table and a queue, which it sees as seen.
func assemble(t testing.TB, i int, snap *atomic.Pointer[snapshot.Snapshot], q *queuetest.Queue, seen queue.Queue, table *flow.Table) *station {
	t.Helper()
	s := &station{t: t, queue: q, snap: snap, done: make(chan error, 1), claims: make(chan worker.Claim, 2)}
	s.Worker = worker.New(worker.Config{
		Number: uint16(i), Interface: uint16(i), Index: i, CPU: -1, Queue: seen, Flows: table, Snapshot: snap,
		Claims: s.claims, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		s.stop()
		if n := s.queue.Held(); n != 0 {
			t.Errorf("interface %d: %d frames were never given back", i, n)
		}
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *station) start() *station {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.done <- s.Run(ctx) }()
	return s
}

// stop ends the worker, if it was started, and returns what Run did.
func (s *station) stop() error {
	if s.cancel == nil || s.ended {
		return nil
	}
	s.cancel()
	return s.wait()
}

func (s *station) wait() error {
	s.t.Helper()
	s.ended = true
	select {
	case err := <-s.done:
		s.cancel()
		return err
	case <-time.After(patience):
		s.t.Fatal("the worker does not end")
		return nil
	}
}

// one returns a running worker of interface 0, connected to nobody.
func one(t testing.TB) *station {
	t.Helper()
	return newStation(t, 0, pointer(compile(t, 1, serverMAC))).start()
}

// two returns the workers of interfaces 0 and 1, connected both ways.
func two(t testing.TB) [2]*station {
	t.Helper()
	snap := pointer(compile(t, 1, serverMAC))
	pair := [2]*station{
		newStation(t, 0, snap), newStation(t, 1, snap),
	}
	connect(pair[:]...)
	return pair
}

// connect makes the workers of interfaces 0, 1 and so on known to each other.
func connect(stations ...*station) {
	rings := make(map[[2]int]*handover.Ring)
	for from := range stations {
		for to := range stations {
			rings[[2]int{from, to}] = handover.NewRing()
		}
	}
	for self, s := range stations {
		peers := &worker.Peers{}
		for i, peer := range stations {
			peers.All = append(peers.All, worker.Peer{Ring: rings[[2]int{self, i}], To: peer.Worker})
			peers.Egress = append(peers.Egress, i)
			peers.Inbound = append(peers.Inbound, rings[[2]int{i, self}])
		}
		s.Connect(peers)
	}
}

func pointer(s *snapshot.Snapshot) *atomic.Pointer[snapshot.Snapshot] {
	p := new(atomic.Pointer[snapshot.Snapshot])
	p.Store(s)
	return p
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// idle waits until the worker has dealt with all it was given.
func (s *station) idle() {
	s.t.Helper()
	if err := s.queue.AwaitIdle(within(s.t)); err != nil {
		s.t.Fatal(err)
	}
}

// sent waits for n frames sent and returns them.
func (s *station) sent(n int) [][]byte {
	s.t.Helper()
	frames, err := s.queue.AwaitSent(within(s.t), n)
	if err != nil {
		s.t.Fatal(err)
	}
	return frames
}

func (s *station) status() worker.Status {
	s.t.Helper()
	st, err := s.Status(within(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// await asks for the status until it is as wanted.
func (s *station) await(what string, ok func(worker.Status) bool) worker.Status {
	s.t.Helper()
	for ctx := within(s.t); ; {
		st, err := s.Status(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatalf("never came: %s; last %+v", what, st)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if ok(st) {
			return st
		}
		time.Sleep(time.Millisecond)
	}
}

func sameFrames(t testing.TB, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames were sent, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d:\n got %x\nwant %x", i, got[i], want[i])
		}
	}
}
