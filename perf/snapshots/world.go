package snapshots

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/announce/l2"
	"weir/controlplane/changelog"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/controlplane/reconcile"
	"weir/controlplane/via"
	"weir/dataplane/affinity"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
)

// world plays everybody that a Reconciler reads from and writes to. What it costs to
// find out about health and next hops is not measured here.
type world struct {
	config *config.Config
	space  *nat.Space
	room   *affinity.Room                    // for the worker; nil in a process that others work in too
	snap   atomic.Pointer[snapshot.Snapshot] // as the workers' is
	ended  context.CancelFunc
	done   chan error

	mu       sync.Mutex // guards what follows
	hops     map[netip.Addr]nexthop.Hop
	results  map[string]health.Result
	moved    changelog.Log[netip.Addr]
	observed changelog.Log[string]

	read     time.Time          // when what has changed was last asked for
	applied  chan time.Duration // from then to the snapshot; capacity 1
	changed  chan struct{}
	never    chan struct{}
	pathMTUs chan engine.PathMTU
}

var node = packet.MAC{2, 0, 0, 0, 0, 1}

// newWorld has so many services with so many backends each, of its own, in mode dsr.
// All are checked, up, and each at a station of its own.
func newWorld(services, backends int) *world {
	w := &world{
		config: &config.Config{Node: "lb1", PathMTU: config.PathMTULearn, Interfaces: []config.Interface{{Name: "eth1"}}},
		space:  nat.NewSpace(), hops: make(map[netip.Addr]nexthop.Hop), results: make(map[string]health.Result),
		applied: make(chan time.Duration, 1), changed: make(chan struct{}, 1), never: make(chan struct{}), done: make(chan error, 1),
		pathMTUs: make(chan engine.PathMTU),
	}
	for i := range services {
		s := config.Service{
			Name: fmt.Sprint("web", i), Addresses: []netip.Addr{numbered(203<<24 + i)},
			Ports: []config.Port{{Proto: config.TCP, Lo: 80, Hi: 80}, {Proto: config.TCP, Lo: 443, Hi: 443}},
			Mode:  config.ModeDSR, TableSize: 65537, MinBackends: 1, Affinity: config.AffinityFlow, Ping: config.PingAlways,
			Health: &config.Health{
				Address: config.CheckBackend, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3, TCP: &config.TCPCheck{},
			},
		}
		for k := range backends {
			a := numbered(10<<24 + 1<<16 + i*backends + k)
			s.Backends = append(s.Backends, config.Backend{Address: a, Weight: 100, State: config.Active, CheckPort: 80})
			w.hops[a] = nexthop.Hop{
				Addr: a, State: nexthop.Resolved, Ifindex: 2, Interface: "eth1", SrcMAC: nexthop.MAC(node),
				DstMAC: nexthop.MAC(append([]byte{2, 1}, a.AsSlice()...)), Source: numbered(10<<24 + 2), MTU: 1500,
			}
			w.results[s.Name+" "+a.String()] = health.Result{State: health.Up, LastDuration: time.Millisecond}
		}
		w.config.Services = append(w.config.Services, s)
	}
	return w
}

func numbered(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(n))))
}

func (w *world) setHealth(check string, state health.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.results[check] = health.Result{State: state, LastDuration: time.Millisecond}
	w.observed.Add(check)
	w.changed <- struct{}{}
}

// setHop replaces the map as a Tracker does.
func (w *world) setHop(a netip.Addr, change func(*nexthop.Hop)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hop := w.hops[a]
	change(&hop)
	w.hops = maps.Clone(w.hops)
	w.hops[a] = hop
	w.moved.Add(a)
	w.changed <- struct{}{}
}

// first starts a Reconciler, and returns how long it took until the first snapshot.
func (w *world) first(ctx context.Context, rec *reconcile.Reconciler) (time.Duration, error) {
	ctx, w.ended = context.WithCancel(ctx)
	return w.await(ctx, func() {
		go func() { w.done <- rec.Run(ctx) }()
	})
}

func (w *world) end() {
	w.ended()
	<-w.done
}

// await makes a change and returns how long it took from when it was read.
func (w *world) await(ctx context.Context, change func()) (time.Duration, error) {
	change()
	select {
	case took := <-w.applied:
		return took, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("no snapshot after a minute")
	}
}

// parts are the roles of the world.
func (w *world) parts() reconcile.Parts {
	return reconcile.Parts{
		DataPlane: dataPlane{w}, NextHops: nextHops{w}, Health: healthOf{w}, Ways: ways{}, Links: links{},
	}
}

type (
	dataPlane struct{ *world }
	nextHops  struct{ *world }
	healthOf  struct{ *world }
	ways      struct{}
	links     struct{}
)

func (d dataPlane) Apply(snap *snapshot.Snapshot, _ steer.Set) error {
	d.snap.Store(snap)
	d.applied <- time.Since(d.read)
	return nil
}

func (d dataPlane) Interfaces() []engine.InterfaceStatus {
	return []engine.InterfaceStatus{{Name: "eth1", Ifindex: 2, MAC: node, MTU: 1500, Up: true, Workers: 1}}
}

func (d dataPlane) NATSpace() *nat.Space           { return d.space }
func (d dataPlane) PathMTU() <-chan engine.PathMTU { return d.pathMTUs }
func (d dataPlane) Changes() <-chan struct{}       { return d.never }

func (h nextHops) SetTargets([]netip.Addr) {}

// Moved is what a Reconciler reads first.
func (h nextHops) Moved(since uint64) ([]netip.Addr, uint64, bool) {
	h.world.read = time.Now()
	return h.moved.Since(since)
}

func (h nextHops) Hops() map[netip.Addr]nexthop.Hop {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hops
}

func (h nextHops) Addresses() []nexthop.Address {
	return []nexthop.Address{{Prefix: netip.MustParsePrefix("10.0.0.2/8"), Interface: "eth1"}}
}

func (h nextHops) Changes() <-chan struct{} { return h.changed }

func (h healthOf) SetChecks([]health.Check) {}

func (h healthOf) Results() map[string]health.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.results)
}

func (h healthOf) Result(check string) health.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.results[check]
}

func (h healthOf) Changed(since uint64) ([]string, uint64, bool) { return h.observed.Since(since) }
func (h healthOf) Changes() <-chan struct{}                      { return h.never }

func (ways) ChangeWays(map[string]via.Way, []string) {}

func (links) SetInterfaces([]l2.Interface)                 {}
func (links) SetOwn([]netip.Addr)                          {}
func (links) SetBackends(func() map[packet.MAC]netip.Addr) {}
func (links) SetAddresses([]netip.Addr)                    {}
func (links) Stances() map[netip.Addr]announce.Stance      { return nil }
func (links) Nodes() []netip.Addr                          { return nil }
func (links) Changes() <-chan struct{}                     { return nil }
