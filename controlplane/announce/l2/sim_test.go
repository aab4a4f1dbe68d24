package l2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/cluster"
	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
)

// world is some nodes on one link, and the cluster they form, both of which can be
// cut, in a test's bubble of virtual time.
type world struct {
	t     *testing.T
	start time.Time

	mu       sync.Mutex
	nodes    map[string]*weir
	mute     map[[2]string]bool            // pairs of nodes that cannot gossip
	cut      map[[2]string]bool            // pairs of nodes whose frames do not reach each other
	foreign  map[netip.Addr]packet.MAC     // stations that answer for an address and are no nodes
	believed map[netip.Addr]packet.MAC     // what a host on the link has in its ARP table
	diary    []string                      // of frames
	holdings []string                      // of who began and ceased to answer
	moves    map[netip.Addr]int            // how often somebody began to answer
	early    []string                      // announcements before the workers answered
	failing  map[string]error              // what sending fails with, by interface
	sent     map[netip.Addr]map[string]int // announcements by address and node
	rate     limit.Rate                    // at which workers tell of claims, and of probes
}

// How long things take in this world.
const (
	wireTime   = time.Millisecond
	gossipTime = 2 * time.Millisecond
	deathTime  = time.Second          // from silence to "dead"
	applyTime  = 5 * time.Millisecond // from Changes until the workers have it
)

func newWorld(t *testing.T) *world {
	return &world{
		t: t, start: time.Now(),
		nodes: make(map[string]*weir), mute: make(map[[2]string]bool), cut: make(map[[2]string]bool),
		foreign: make(map[netip.Addr]packet.MAC), believed: make(map[netip.Addr]packet.MAC),
		moves: make(map[netip.Addr]int), failing: make(map[string]error),
		sent: make(map[netip.Addr]map[string]int),
	}
}

// weir is one node: an announcer, workers that do what its stances say, and its
// part of the cluster.
type weir struct {
	*Announcer
	world   *world
	name    string
	mac     packet.MAC
	stop    func()
	log     *bytes.Buffer
	running bool
	answers map[netip.Addr]bool // what the workers do
	claims  [2]limit.Bucket     // that they tell of; and probes
	view    map[string]*cluster.Member
	state   map[string][]byte
	wake    chan struct{} // for Subscribe
	applied chan struct{} // Changes, once the workers know
}

func macOf(name string) packet.MAC {
	return packet.MAC{2, 0, 0, 0, 0, name[len(name)-1] - '0'}
}

// addrOf is where a node is.
func addrOf(name string) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, 0, name[len(name)-1] - '0'})
}

func eth1(name string, up bool) []Interface {
	return []Interface{{
		Name: "eth1", MAC: macOf(name), Up: up, Workers: true,
		Prefixes: []netip.Prefix{netip.PrefixFrom(addrOf(name), 24)},
	}}
}

func advertise(addrs ...netip.Addr) []announce.Advertisement {
	var all []announce.Advertisement
	for _, a := range addrs {
		all = append(all, announce.Advertisement{Address: a, Pool: "public"})
	}
	return all
}

// make makes a node that does not run yet. Nodes are called lb1 to lb9.
func (w *world) make(name string, clustered bool) *weir {
	n := &weir{
		world: w, name: name, mac: macOf(name), log: new(bytes.Buffer),
		answers: make(map[netip.Addr]bool), view: make(map[string]*cluster.Member),
		state: make(map[string][]byte), wake: make(chan struct{}, 1), applied: make(chan struct{}, 1),
	}
	logger := slog.New(slog.NewTextHandler(n, nil))
	if clustered {
		n.Announcer = New(name, gossip{n}, logger)
	} else {
		n.Announcer = New(name, nil, logger)
	}
	n.Announcer.link = wire{n}
	n.SetInterfaces(eth1(name, true))
	return n
}

// Write is where the node logs to.
func (n *weir) Write(b []byte) (int, error) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return n.log.Write(b)
}

func (n *weir) logged(what string) int {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	return strings.Count(n.log.String(), what)
}

// run starts a node that make has made.
func (n *weir) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.runUntil(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.world.t.Errorf("%s: Run returned %v", n.name, err)
		}
	})
	n.world.t.Cleanup(n.stop)
	synctest.Wait()
}

// runUntil is the node's life: announcer, workers, and the cluster.
func (n *weir) runUntil(ctx context.Context) error {
	w := n.world
	w.mu.Lock()
	w.nodes[n.name] = n
	n.running = true
	w.mu.Unlock()
	time.AfterFunc(2*gossipTime, w.gossip)
	var wg sync.WaitGroup
	wg.Go(func() { n.work(ctx) })
	err := n.Announcer.Run(ctx)
	wg.Wait()
	w.mu.Lock()
	n.running = false
	w.apply(n, nil)
	w.mu.Unlock()
	w.silence()
	return err
}

// work is the workers.
func (n *weir) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.Changes():
		}
		time.Sleep(applyTime)
		stances := n.Stances()
		n.world.mu.Lock()
		n.world.apply(n, stances)
		n.world.mu.Unlock()
		signal(n.applied)
	}
}

// apply makes the workers do what stances say; w.mu is held.
func (w *world) apply(n *weir, stances map[netip.Addr]announce.Stance) {
	for a := range n.answers {
		if !stances[a].Answers {
			delete(n.answers, a)
			w.holdings = append(w.holdings, fmt.Sprintf("%v -%s %v", w.now(), n.name, a))
		}
	}
	for a, s := range stances {
		if s.Answers && !n.answers[a] {
			n.answers[a] = true
			w.moves[a]++
			w.holdings = append(w.holdings, fmt.Sprintf("%v +%s %v", w.now(), n.name, a))
		}
	}
}

func (w *world) now() time.Duration { return time.Since(w.start) }

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// wire is a node's link.
type wire struct{ n *weir }

func (l wire) send(name string, frames []message) error {
	w := l.n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.failing[name]; err != nil {
		return err
	}
	for _, f := range frames {
		kind := "announces"
		if f.probe {
			kind = "probes"
		}
		w.diary = append(w.diary, fmt.Sprintf("%v %s %s %v on %s", w.now(), l.n.name, kind, f.addr, name))
		if !bytes.Equal(f.frame, Frame(f.addr, l.n.mac)) && !bytes.Equal(f.frame, Probe(f.addr, l.n.mac)) {
			w.t.Errorf("%s sends % x", l.n.name, f.frame)
		}
		if !f.probe {
			w.believed[f.addr] = l.n.mac
			if w.sent[f.addr] == nil {
				w.sent[f.addr] = make(map[string]int)
			}
			w.sent[f.addr][l.n.name]++
			if !l.n.answers[f.addr] {
				w.early = append(w.early, w.diary[len(w.diary)-1])
			}
		}
		time.AfterFunc(wireTime, func() { w.deliver(l.n, name, f) })
	}
	return nil
}

// hear is what the workers make of a claim; w.mu is held.
func (n *weir) hear(c Claim) {
	b := &n.claims[0]
	if c.Probe {
		b = &n.claims[1]
	}
	if b.Allow(n.world.rate, flow.TickAt(n.world.now())) {
		n.Claim(c)
	}
}

// deliver brings a frame to everybody else, and answers to who asked.
func (w *world) deliver(from *weir, link string, f message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answer := func(mac packet.MAC) {
		time.AfterFunc(wireTime, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			from.hear(Claim{Address: f.addr, MAC: mac, Interface: link})
		})
	}
	for _, n := range w.nodes {
		if n == from || !n.running || w.cut[pair(n.name, from.name)] {
			continue
		}
		n.hear(Claim{Address: f.addr, MAC: from.mac, Interface: link, Probe: f.probe})
		if f.probe && n.answers[f.addr] {
			answer(n.mac)
		}
	}
	if mac, is := w.foreign[f.addr]; is && f.probe {
		answer(mac)
	}
}

// say has a foreign station claim an address.
func (w *world) say(a netip.Addr, mac packet.MAC, probe bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !probe {
		w.believed[a] = mac
	}
	for _, n := range w.nodes {
		if n.running {
			n.hear(Claim{Address: a, MAC: mac, Interface: "eth1", Probe: probe})
		}
	}
}

// occupy has a foreign station answer for an address; with a zero MAC it ends.
func (w *world) occupy(a netip.Addr, mac packet.MAC) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign[a] = mac
	if mac.IsZero() {
		delete(w.foreign, a)
	}
}

// gossip is a node's cluster.
type gossip struct{ n *weir }

func (g gossip) Publish(topic string, state []byte) {
	w := g.n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	g.n.state = maps.Clone(g.n.state)
	g.n.state[topic] = state
	time.AfterFunc(gossipTime, w.gossip)
}

func (g gossip) Subscribe() <-chan struct{} { return g.n.wake }

func (g gossip) Sync(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(gossipTime):
		return nil
	}
}

func (g gossip) Members() []cluster.Member {
	w := g.n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []cluster.Member{{Name: g.n.name, Self: true, Alive: true, Current: true, State: g.n.state, Address: netip.AddrPortFrom(addrOf(g.n.name), 7946)}}
	for _, m := range g.n.view {
		all = append(all, *m)
	}
	return all
}

// gossip brings everybody who can hear up to date: who is new is seen first, and
// what it has to say a little later.
func (w *world) gossip() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		for _, other := range w.nodes {
			if n == other || !n.running || !other.running || w.mute[pair(n.name, other.name)] {
				continue
			}
			m := n.view[other.name]
			switch {
			case m == nil || !m.Alive:
				var last map[string][]byte // what it said before it was away
				if m != nil {
					last = m.State
				}
				n.view[other.name] = &cluster.Member{Name: other.name, Alive: true, Address: netip.AddrPortFrom(addrOf(other.name), 7946), State: last}
				time.AfterFunc(gossipTime, w.gossip)
			case m.Current && maps.EqualFunc(m.State, other.state, bytes.Equal):
				continue
			default:
				n.view[other.name] = &cluster.Member{Name: other.name, Alive: true, Current: true, State: other.state, Address: m.Address}
			}
			signal(n.wake)
		}
	}
}

// silence has those who cannot hear each other take each other for dead, in a
// while.
func (w *world) silence() {
	time.AfterFunc(deathTime, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, n := range w.nodes {
			for name, m := range n.view {
				if m.Alive && (w.mute[pair(n.name, name)] || !w.nodes[name].running) {
					n.view[name] = &cluster.Member{Name: name, State: m.State, Address: m.Address}
					signal(n.wake)
				}
			}
		}
	})
}

// part cuts pairs of nodes off from each other, in the cluster, on the link, or both.
func (w *world) part(gossip, link bool, pairs ...[2]string) {
	w.mu.Lock()
	for _, p := range pairs {
		w.mute[p], w.cut[p] = gossip, link
	}
	w.mu.Unlock()
	w.silence()
	time.AfterFunc(10*gossipTime, w.gossip)
}

// fail has sending on an interface fail; nil ends that.
func (w *world) fail(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failing[name] = err
}

var errNoBuffers = errors.New("no buffer space")

// holders returns who answers for an address.
func (w *world) holders(a netip.Addr) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for name, n := range w.nodes {
		if n.running && n.answers[a] {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// owner returns the one node that answers for an address, and which neighbours
// believe to.
func (w *world) owner(a netip.Addr) string {
	w.t.Helper()
	all := w.holders(a)
	if len(all) != 1 {
		w.t.Fatalf("%v: %v is held by %v\n%s", w.now(), a, all, w.story())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.believed[a] != macOf(all[0]) {
		w.t.Fatalf("%v: %v is held by %v, and neighbours believe it at %v", w.now(), a, all, w.believed[a])
	}
	return all[0]
}

func (w *world) count(a netip.Addr) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moves[a]
}

// announced returns how often a node has announced an address.
func (w *world) announced(a netip.Addr, name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[a][name]
}

func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.holdings, "\n") + "\n" + strings.Join(w.diary[max(0, len(w.diary)-40):], "\n")
}

// check looks for what must never be.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.early) > 0 {
		w.t.Errorf("announced before the workers answered: %v", w.early)
	}
}

// states returns a node's status of an address, one word for each link.
func (n *weir) states(a netip.Addr) string {
	var all []string
	for _, s := range n.Status() {
		if s.Address.Addr() == a {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s", s.State, s.Owner)))
		}
	}
	return strings.Join(all, ", ")
}
