package nexthop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeKernel is a kernel in memory. Its tables may be changed between the
// steps of a test, with or without an event about it.
type fakeKernel struct {
	mu         sync.Mutex
	links      map[int]link
	neighbours map[neighKey]neighbour
	routes     map[netip.Prefix]route // no two overlap
	addresses  []ownAddress
	dumpErr    error

	dumps   int
	lookups []netip.Addr
	probes  []neighKey
	doubts  []neighKey

	notify chan notification
	closed chan struct{}
	once   sync.Once
}

func newFake() *fakeKernel {
	return &fakeKernel{
		links:      map[int]link{2: eth1, 3: eth2},
		neighbours: map[neighKey]neighbour{},
		routes: map[netip.Prefix]route{
			netip.MustParsePrefix("10.0.0.0/24"): {kind: unix.RTN_UNICAST, ifindex: 2, source: own},
			netip.MustParsePrefix("10.1.0.0/16"): {kind: unix.RTN_UNICAST, ifindex: 3, gateway: router},
		},
		notify: make(chan notification),
		closed: make(chan struct{}),
	}
}

func (k *fakeKernel) Links() ([]link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dumps++
	return slices.Collect(maps.Values(k.links)), k.dumpErr
}

func (k *fakeKernel) Neighbours() ([]neighbour, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.neighbours)), nil
}

func (k *fakeKernel) Addresses() ([]ownAddress, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.addresses), nil
}

func (k *fakeKernel) Route(addr netip.Addr) (route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lookups = append(k.lookups, addr)
	for p, r := range k.routes {
		if p.Contains(addr) {
			return r, nil
		}
	}
	return route{}, unix.ENETUNREACH
}

func (k *fakeKernel) Probe(key neighKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probes = append(k.probes, key)
	return nil
}

func (k *fakeKernel) Source(neighKey) (netip.Addr, error) { return own, nil }

func (k *fakeKernel) Verify(n neighbour) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.doubts = append(k.doubts, n.neighKey)
	return nil
}

func (k *fakeKernel) Receive() ([]event, error) {
	select {
	case n := <-k.notify:
		return n.events, n.err
	case <-k.closed:
		return nil, errors.New("closed")
	}
}

func (k *fakeKernel) Close() { k.once.Do(func() { close(k.closed) }) }

// learn enters a neighbour and reports it.
func (k *fakeKernel) learn(n neighbour) {
	k.mu.Lock()
	k.neighbours[n.neighKey] = n
	k.mu.Unlock()
	k.notify <- notification{events: []event{{kind: neighbourChanged, neighbour: n}}}
}

// taken returns what was asked since it was last called.
func (k *fakeKernel) taken() (lookups []netip.Addr, probes []neighKey, dumps int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	lookups, probes, dumps = k.lookups, k.probes, k.dumps
	k.lookups, k.probes, k.dumps = nil, nil, 0
	return
}

// simulate runs a tracker on fake kernels inside a bubble of virtual time, the
// later ones after an earlier one has failed.
func simulate(t *testing.T, kernels []*fakeKernel, wire *fakeWire, test func(*testing.T, *Tracker)) {
	synctest.Test(t, func(t *testing.T) {
		for _, k := range kernels { // channels of the bubble
			k.notify, k.closed = make(chan notification), make(chan struct{})
		}
		left := kernels
		tr := newTracker(slog.New(slog.DiscardHandler), func() (kernel, error) {
			if len(left) == 0 {
				return nil, errors.New("no more kernels")
			}
			k := left[0]
			left = left[1:]
			return k, nil
		}, wire)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tr.Run(ctx) }()
		test(t, tr)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if !wire.closed {
			t.Error("the sockets were left open")
		}
		for _, k := range kernels[:len(kernels)-len(left)] {
			select {
			case <-k.closed:
			default:
				t.Error("a kernel was left open")
			}
		}
	})
}

// asked is a question, and when it was asked.
type asked struct {
	question
	after time.Duration
}

// fakeWire is a link on which the owners in it answer at once.
type fakeWire struct {
	mu      sync.Mutex
	started time.Time
	owners  map[neighKey]MAC
	asked   []asked
	answers []answer
	closed  bool
}

func (a asked) String() string { return fmt.Sprintf("%v: %v at %v", a.after, a.addr, a.to) }

// begin returns when the first question was asked.
func (w *fakeWire) begin() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started.IsZero() {
		return time.Now()
	}
	return w.started
}

func (w *fakeWire) Ask(q question) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started.IsZero() {
		w.started = time.Now()
	}
	w.asked = append(w.asked, asked{q, time.Since(w.started)})
	if mac, ok := w.owners[q.neighKey]; ok && (q.to == mac || q.to == MAC{}) {
		w.answers = append(w.answers, answer{q.neighKey, mac})
	}
	return true
}

func (w *fakeWire) Heard(f func(answer)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.answers {
		f(a)
	}
	w.answers = nil
}

func (w *fakeWire) Tidy() {}

func (w *fakeWire) Close() { w.closed = true }

// pause lets bursts settle, and is shorter than a beat.
func pause() { time.Sleep(10 * settle); synctest.Wait() }

func changed(tr *Tracker) bool {
	select {
	case <-tr.Changes():
		return true
	default:
		return false
	}
}

func TestTrackerFollowsNeighbour(t *testing.T) {
	k := newFake()
	simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		tr.SetTargets([]netip.Addr{backend, netip.MustParseAddr("::ffff:10.0.0.9"), {}})
		pause()
		if got := tr.Hops(); len(got) != 1 || got[backend].State != Unresolved || !changed(tr) {
			t.Fatalf("at first: got %+v", got)
		}
		if _, probes, _ := k.taken(); !slices.Equal(probes, []neighKey{{2, backend}}) {
			t.Fatalf("probes at first: got %v", probes)
		}

		before := tr.Hops()
		k.learn(known(2, backend, serverMAC, fresh))
		pause()
		if got := tr.Hops()[backend]; got.State != Resolved || got.DstMAC != serverMAC || !changed(tr) {
			t.Fatalf("after an answer: got %+v", got)
		}
		if before[backend].State != Unresolved {
			t.Fatal("a snapshot was modified")
		}

		k.learn(known(2, backend, serverMAC, stale))
		pause()
		if changed(tr) {
			t.Error("stale: signalled a change though there is none")
		}
		k.learn(known(2, backend, routerMAC, stale))
		pause()
		if got := tr.Hops()[backend]; got.DstMAC != routerMAC || !changed(tr) {
			t.Fatalf("after a gratuitous ARP: got %+v", got)
		}
		k.learn(known(2, backend, MAC{}, failed))
		pause()
		if got := tr.Hops()[backend]; got.State != Unreachable || !changed(tr) {
			t.Fatalf("after silence: got %+v", got)
		}

		tr.SetTargets(nil)
		pause()
		if got := tr.Hops(); len(got) != 0 || !changed(tr) {
			t.Fatalf("without targets: got %+v", got)
		}
	})
}

func TestTrackerProbes(t *testing.T) {
	tests := []struct {
		name string
		fact fact
		want int // in 12 beats
	}{
		{"unknown", unknown, 12},
		{"fresh", fresh, 0},
		{"stale", stale, 4},
		{"failed", failed, 12},
		{"fixed", fixed, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newFake()
			if tt.fact != unknown {
				k.neighbours[neighKey{3, router}] = known(3, router, routerMAC, tt.fact)
			}
			simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
				// Many backends behind one gateway are one neighbour.
				tr.SetTargets([]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")})
				pause()
				_, first, _ := k.taken()
				if wantFirst := min(tt.want, 1); len(first) != wantFirst {
					t.Errorf("at once: got %d probes, want %d", len(first), wantFirst)
				}
				time.Sleep(12 * beat)
				synctest.Wait()
				if _, probes, _ := k.taken(); len(probes) != tt.want {
					t.Errorf("in 12 beats: got %d probes, want %d", len(probes), tt.want)
				}
			})
		})
	}
}

func TestTrackerAsksOnlyWhatMayHaveChanged(t *testing.T) {
	near, far := backend, netip.MustParseAddr("10.1.0.1")
	sixth := netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name  string
		event event
		want  []netip.Addr
	}{
		{"route to one", event{kind: routeChanged, prefix: netip.MustParsePrefix("10.1.0.0/16")}, []netip.Addr{far}},
		{"route to none", event{kind: routeChanged, prefix: netip.MustParsePrefix("192.0.2.0/24")}, nil},
		{"default route", event{kind: routeChanged, prefix: netip.MustParsePrefix("0.0.0.0/0")}, []netip.Addr{near, far}},
		{"IPv6 default route", event{kind: routeChanged, prefix: netip.MustParsePrefix("::/0")}, []netip.Addr{sixth}},
		{"address or rule", event{kind: anyRouteChanged}, []netip.Addr{near, far, sixth}},
		{"link went down", event{kind: linkChanged, link: down(eth1)}, []netip.Addr{near, far, sixth}},
		{"link reported as it was", event{kind: linkChanged, link: eth1}, nil},
		{"link gone", event{kind: linkGone, link: link{index: 3}}, []netip.Addr{near, far, sixth}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newFake()
			simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
				tr.SetTargets([]netip.Addr{sixth, far, near})
				pause()
				if lookups, _, _ := k.taken(); !slices.Equal(lookups, []netip.Addr{near, far, sixth}) {
					t.Fatalf("at first: got %v", lookups)
				}
				for range 100 { // a burst costs one pass
					k.notify <- notification{events: []event{tt.event}}
				}
				pause()
				if lookups, _, _ := k.taken(); !slices.Equal(lookups, tt.want) {
					t.Errorf("after the event: got %v, want %v", lookups, tt.want)
				}
			})
		})
	}
}

func TestTrackerFindsWhatWasNotNotified(t *testing.T) {
	k := newFake()
	simulate(t, []*fakeKernel{k}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		tr.SetTargets([]netip.Addr{backend})
		pause()
		k.mu.Lock()
		k.routes[netip.MustParsePrefix("10.0.0.0/24")] = route{kind: unix.RTN_UNICAST, ifindex: 3}
		k.neighbours[neighKey{3, backend}] = known(3, backend, serverMAC, fresh)
		k.mu.Unlock()
		time.Sleep(refreshBeats * beat)
		pause()
		if got := tr.Hops()[backend]; got.State != Resolved || got.Interface != "eth2" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestTrackerOpensAgain(t *testing.T) {
	lost := fmt.Errorf("receive notifications: %w", unix.ENOBUFS)
	first, torn, second := newFake(), newFake(), newFake()
	first.neighbours[neighKey{2, backend}] = known(2, backend, serverMAC, fresh)
	torn.dumpErr = lost
	second.routes[netip.MustParsePrefix("10.0.0.0/24")] = route{kind: unix.RTN_UNICAST, ifindex: 3}
	second.neighbours[neighKey{3, backend}] = known(3, backend, routerMAC, fresh)
	simulate(t, []*fakeKernel{first, torn, second}, &fakeWire{}, func(t *testing.T, tr *Tracker) {
		tr.SetTargets([]netip.Addr{backend})
		pause()
		first.notify <- notification{err: lost}
		synctest.Wait()
		if got := tr.Hops()[backend]; got.DstMAC != serverMAC {
			t.Errorf("while the sockets are closed: got %+v", got)
		}
		time.Sleep(beat) // before the refresh of any
		pause()
		if got := tr.Hops()[backend]; got.DstMAC != routerMAC || got.Interface != "eth2" {
			t.Errorf("after they were opened again: got %+v", got)
		}
	})
}

// A neighbour that is used is polled: its owner, and when that is silent,
// everybody; and only one that stays silent is brought to the kernel's notice.
func TestTrackerPolls(t *testing.T) {
	key := neighKey{3, router}
	owner := question{key, routerMAC, eth2.mac, own}
	everybody := owner
	everybody.to = MAC{}
	const round, patience = roundSlots * slot, patienceSlots * slot
	rounds := func(n int, questions ...asked) (all []asked) {
		for i := range n {
			for _, q := range questions {
				all = append(all, asked{q.question, q.after + time.Duration(i)*round})
			}
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		fact   fact
		owner  MAC // zero if nobody answers
		want   []asked
		doubts []neighKey
	}{
		{"answers", fresh, routerMAC, rounds(6, asked{owner, 0}), nil},
		{"answers, stale", stale, routerMAC, rounds(6, asked{owner, 0}), nil},
		{"another answers", fresh, serverMAC, rounds(6, asked{owner, 0}, asked{everybody, patience}), []neighKey{key}},
		{"silent", fresh, MAC{}, rounds(6, asked{owner, 0}, asked{everybody, patience}), []neighKey{key}},
		{"unknown", unknown, routerMAC, nil, nil},
		{"failed", failed, routerMAC, nil, nil},
		{"fixed", fixed, MAC{}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, w := newFake(), &fakeWire{owners: map[neighKey]MAC{}}
			k.neighbours[key] = known(3, router, routerMAC, tt.fact)
			if tt.owner != (MAC{}) {
				w.owners[key] = tt.owner
			}
			simulate(t, []*fakeKernel{k}, w, func(t *testing.T, tr *Tracker) {
				// Many backends behind one gateway are one neighbour.
				tr.SetTargets([]netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")})
				time.Sleep(2 * round) // so long the first question may take
				time.Sleep(6*round - slot - time.Since(w.begin()))
				synctest.Wait()
				if !slices.Equal(w.asked, tt.want) {
					t.Errorf("asked\n%v, want\n%v", w.asked, tt.want)
				}
				if !slices.Equal(k.doubts, tt.doubts) {
					t.Errorf("doubts of %v, want %v", k.doubts, tt.doubts)
				}
				tr.SetTargets(nil)
				pause()
				before := len(w.asked)
				time.Sleep(2 * round)
				synctest.Wait()
				if got := len(w.asked); got != before {
					t.Errorf("without targets: asked %d times more", got-before)
				}
			})
		})
	}
}

func TestRunReportsThatItCannotStart(t *testing.T) {
	cause := errors.New("no sockets")
	tr := newTracker(slog.New(slog.DiscardHandler), func() (kernel, error) { return nil, cause }, &fakeWire{})
	if err := tr.Run(t.Context()); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func TestTextForms(t *testing.T) {
	for want, got := range map[string]string{
		"unresolved": Unresolved.String(), "resolved": Resolved.String(), "unreachable": Unreachable.String(),
		"state(9)": State(9).String(), "02:00:00:00:01:09": serverMAC.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
