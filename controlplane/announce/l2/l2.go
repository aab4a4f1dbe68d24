// Package l2 makes one of several nodes answer for a VIP on a link, and tells the
// stations on the link which one.
//
// The problem it solves: an address on a link is wherever the last ARP or neighbour
// advertisement said it is, and nothing on the link stops two stations from both
// saying so, or all of them from keeping quiet. Between nodes it is settled by what
// they publish to each other (package cluster) and a pure election (package
// election): whoever has an address keeps it. Against everybody else on the link it
// is settled by asking before taking (RFC 5227, RFC 4862) and by giving way to
// somebody who insists and answers. And since switches and routers forget, and believe the last
// that spoke, the owner speaks first and again and again.
//
// Questions are answered by the data plane (package forward), for those addresses
// that Stances says. It also reports what other stations say about a VIP, see
// Announcer.Claim. A new owner is announced settle after Stances has said so, time
// for the data plane to begin to answer. Should it take longer nothing is lost:
// frames for a VIP are forwarded whether or not this node answers for it.
package l2

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weir/controlplane/announce"
	"weir/controlplane/cluster"
	"weir/dataplane/packet"
)

// Topic is what this package publishes to the cluster under.
const Topic = "l2"

const (
	// Interval is the longest time between two announcements of an address that has
	// not moved, below the 300 s after which most switches forget a station. It is up
	// to a half shorter, by chance.
	Interval = 60 * time.Second

	// burst and burstInterval: how often, and how far apart, a change is
	// announced, since frames get lost (RFC 5227 section 2.3 asks for 2 at 2 s,
	// RFC 4861 section 7.2.6 allows 3).
	burst         = 3
	burstInterval = time.Second

	// settle is the time from Stances saying that this node answers for an
	// address to the first announcement of it.
	settle = 20 * time.Millisecond

	// startTime bounds how long a node that has just started waits for others to
	// tell what they have.
	startTime = 2 * time.Second

	// handTime bounds how long Leave waits for others to take over, which takes 2 s
	// for a thousand addresses, and syncTime how long it waits then for those that
	// are slow to hear of it.
	handTime = 3 * time.Second
	syncTime = 500 * time.Millisecond

	// stepTime is the least time between two steps.
	stepTime = time.Millisecond

	// claimsKept bounds the claims that wait to be looked at.
	claimsKept = 4096
)

// Cluster is what the announcer needs to know of other nodes. *cluster.Cluster is
// one.
type Cluster interface {
	// Publish makes state what this node says to the others on a topic.
	Publish(topic string, state []byte)
	// Members returns all nodes, this one among them.
	Members() []cluster.Member
	// Subscribe returns a channel that signals that Members has changed.
	Subscribe() <-chan struct{}
	// Sync waits until all live nodes have been sent what was published.
	Sync(ctx context.Context) error
}

// Interface is a link that the workers serve VIPs on.
type Interface struct {
	Name     string
	MAC      packet.MAC
	Up       bool           // the link is
	Workers  bool           // they run, and are not stuck
	Prefixes []netip.Prefix // connected; each with this node's address in it
}

// Config is what pools say about this way of announcing.
type Config struct {
	Pools map[string]PoolConfig
}

// PoolConfig is what one pool says.
type PoolConfig struct {
	// Interfaces are where its addresses belong. Without any, they belong on
	// those whose prefixes contain them, and if there is none, on all.
	Interfaces []string

	// AllActive has the owner of an address spread new flows over all nodes that
	// are ready for it.
	AllActive bool
}

// Claim is what another station has said about a VIP or another address of weir's:
// that it has it, or with Probe, that it would like to.
type Claim struct {
	Address   netip.Addr
	MAC       packet.MAC
	Interface string
	Probe     bool
}

// Announcer announces VIPs on links. Its methods may be called from any goroutine.
type Announcer struct {
	node    string
	cluster Cluster
	joined  <-chan struct{} // signals that the cluster has changed; nil without one
	link    link
	log     *slog.Logger
	changes chan struct{}
	wake    chan struct{}
	handed  chan struct{} // closed when all has been left to others

	mu      sync.Mutex
	in      inputs
	running bool
	out     outputs
}

// inputs is what an Announcer has been told.
type inputs struct {
	version    uint64 // counts changes, but for claims
	ads        []announce.Advertisement
	own        []netip.Addr
	interfaces []Interface
	config     Config
	backends   func() map[packet.MAC]netip.Addr
	addresses  []netip.Addr
	claims     []Claim
	leaving    bool
}

// outputs is what an Announcer has to tell.
type outputs struct {
	status  []announce.Status
	stances map[netip.Addr]announce.Stance
	nodes   []netip.Addr
}

// New makes the announcer of a node; it starts nothing. Without a cluster (nil)
// the node is the only one there is.
func New(node string, c Cluster, log *slog.Logger) *Announcer {
	a := &Announcer{
		node: node, cluster: c, link: packetLink{}, log: log,
		changes: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		handed:  make(chan struct{}),
	}
	if c != nil {
		a.joined = c.Subscribe()
	}
	return a
}

// Name is part of announce.Announcer.
func (a *Announcer) Name() string { return "l2" }

// Set is part of announce.Announcer.
func (a *Announcer) Set(ads []announce.Advertisement) {
	a.tell(func(in *inputs) { in.ads = ads; in.version++ })
}

// SetOwn makes addrs the addresses that are this node's alone, such as those of
// SNAT: they are probed and announced, but not left to other nodes. It keeps the
// slice.
func (a *Announcer) SetOwn(addrs []netip.Addr) {
	a.tell(func(in *inputs) { in.own = addrs; in.version++ })
}

// SetInterfaces makes interfaces all that there are. It keeps the slice.
func (a *Announcer) SetInterfaces(interfaces []Interface) {
	a.tell(func(in *inputs) { in.interfaces = interfaces; in.version++ })
}

// SetBackends says which stations on the links are weir's own backends. One that
// claims a VIP lacks a setting, and has it on purpose: the VIP is not left to it.
// It is asked when a station claims something, which may be from another goroutine, and
// the map is only read.
func (a *Announcer) SetBackends(backends func() map[packet.MAC]netip.Addr) {
	a.tell(func(in *inputs) { in.backends = backends })
}

// SetAddresses says which addresses this node has, on whatever interface, so that
// other nodes know where its packets come from. It keeps the slice.
func (a *Announcer) SetAddresses(addrs []netip.Addr) {
	a.tell(func(in *inputs) { in.addresses = addrs })
}

// Nodes returns the addresses of the other nodes of the cluster, as far as they
// are known, sorted.
func (a *Announcer) Nodes() []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.out.nodes)
}

// Configure makes c the configuration from now on. It keeps c.
func (a *Announcer) Configure(c Config) {
	a.tell(func(in *inputs) { in.config = c; in.version++ })
}

// Claim reports what another station has said. It does not wait; in a flood of
// claims some are not looked at.
func (a *Announcer) Claim(c Claim) {
	a.tell(func(in *inputs) {
		if len(in.claims) < claimsKept {
			in.claims = append(in.claims, c)
		}
	})
}

func (a *Announcer) tell(what func(*inputs)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	what(&a.in)
	signal(a.wake)
}

// Status is part of announce.Announcer: one for each address and interface.
func (a *Announcer) Status() []announce.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.out.status)
}

// Stances returns how the workers are to behave for each address that is Set or
// the node's own.
func (a *Announcer) Stances() map[netip.Addr]announce.Stance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.out.stances)
}

// Changes is part of announce.Announcer. It signals changes of Stances too, and
// none that are only in the counters of Status.
func (a *Announcer) Changes() <-chan struct{} { return a.changes }

// Run is part of announce.Announcer.
func (a *Announcer) Run(ctx context.Context) error {
	a.mu.Lock()
	a.running = true
	a.mu.Unlock()
	m := newMachine(a.node, a.log, a.cluster != nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		begin := time.Now()
		a.step(m)
		// Each step looks at all addresses. So that a flood of claims does not make
		// it all that this machine does, it rests as long as it has worked, and a
		// little more.
		rest := stepTime + time.Since(begin)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rest):
		}
		timer.Reset(max(time.Until(m.next), 0))
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-a.joined:
		case <-timer.C:
		}
	}
}

// step has the machine look at everything once, and does what it says: publish,
// then let the workers know, then send.
func (a *Announcer) step(m *machine) {
	a.mu.Lock()
	in := a.in
	a.in.claims = nil
	a.mu.Unlock()
	var members []cluster.Member
	if a.cluster != nil {
		members = a.cluster.Members()
	}
	m.step(time.Now(), in, members)
	if state := m.publication(); a.cluster != nil && state != nil {
		a.cluster.Publish(Topic, state)
	}
	a.put(m.outputs(time.Now()))
	if m.handed {
		select {
		case <-a.handed:
		default:
			close(a.handed)
		}
	}
	frames := m.take()
	for _, name := range slices.Sorted(maps.Keys(frames)) {
		m.sent(name, frames[name], a.link.send(name, frames[name]), time.Now())
	}
	if len(frames) > 0 {
		a.put(m.outputs(time.Now()))
	}
}

// put stores outputs, and signals if they say something new.
func (a *Announcer) put(out outputs) {
	a.mu.Lock()
	defer a.mu.Unlock()
	same := slices.EqualFunc(a.out.status, out.status, func(x, y announce.Status) bool {
		x.Sent, x.Last, y.Sent, y.Last = 0, time.Time{}, 0, time.Time{}
		return x == y
	}) && maps.EqualFunc(a.out.stances, out.stances, func(x, y announce.Stance) bool {
		return x.Answers == y.Answers && slices.Equal(x.Members, y.Members)
	}) && slices.Equal(a.out.nodes, out.nodes)
	a.out = out
	if !same {
		signal(a.changes)
	}
}

// Leave is part of announce.Announcer. It waits until other nodes have taken over
// what they can, 3 s at most.
func (a *Announcer) Leave(ctx context.Context) error {
	a.tell(func(in *inputs) { in.leaving = true; in.version++ })
	a.mu.Lock()
	running := a.running
	a.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-a.handed:
	case <-ctx.Done():
		return fmt.Errorf("leave addresses to other nodes: %w", ctx.Err())
	}
	if a.cluster != nil {
		sync, cancel := context.WithTimeout(ctx, syncTime)
		defer cancel()
		if err := a.cluster.Sync(sync); err != nil {
			a.log.Warn("some node has not been told that this one has left", "error", err)
		}
	}
	return ctx.Err()
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
