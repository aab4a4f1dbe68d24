// Package cluster knows which other weirs there are, whether they live, and what
// each of them has to say to the rest.
//
// The problem it solves: several nodes share one configuration, and for each VIP
// one of them has to answer on the link. Who that is can be decided by every node
// for itself, without votes and without a store, if all know the same about each
// other. So a node publishes small pieces of state, one per topic, that only their
// owners understand (package l2, package ipam); everybody gets them as soon as
// they change, together with who is there. Failures are found by gossip
// (hashicorp/memberlist), encrypted by a key that all nodes have.
//
// What is promised: a node that lives gets the latest state of another that it can
// reach within milliseconds, or after a loss within a few seconds. What is not: an
// order between nodes, or agreement. After a partition both halves go on, and each
// sees the other as dead; nodes that were dead are called again for ever.
package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// DefaultPort is the port that nodes speak on, TCP and UDP, if none is given.
const DefaultPort = 7946

// Config says who this node is and where the others are.
type Config struct {
	Node      string         // its name, unique in the cluster
	Bind      netip.AddrPort // to listen on; the zero Addr is all addresses, port 0 any port
	Advertise netip.AddrPort // at which others reach it; invalid: where it listens, or the source address towards the first peer
	Peers     []string       // host:port of other nodes; this one may be among them
	Key       []byte         // 16, 24 or 32 bytes, the same on all nodes
}

// Member is a node of the cluster.
type Member struct {
	Name    string
	Address netip.AddrPort
	Self    bool
	Alive   bool
	Since   time.Time // when Alive became what it is
	Version int       // of what it speaks

	// State is what the node published last, by topic. It stays for a while when
	// the node has died, and is gone when it has left. Shared: not to be changed.
	State map[string][]byte

	// Current says that State has been heard since the node came alive. One that
	// was away for a while is alive some milliseconds before its state is current.
	Current bool

	Err string // what is wrong with it, for instance a name that two nodes have; empty if nothing is
}

// Cluster is this node's part of it. Its methods may be called from any goroutine.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	start int64 // names this incarnation of the node: Unix time in ns

	// wrap is put around the transport; tests cut it there.
	wrap func(memberlist.NodeAwareTransport) memberlist.Transport

	listen sync.Mutex // one Listen at a time

	mu          sync.Mutex
	list        *memberlist.Memberlist // nil until Listen; never called with mu held: it calls the delegate with locks of its own
	address     netip.AddrPort         // of this node; invalid until Listen
	leaving     bool
	own         nodeState
	members     map[string]*member
	pending     map[string]nodeState // heard of nodes that are not known yet
	conflicts   map[string]conflict
	subscribers []chan struct{}
	wake        chan struct{} // for Run: there may be something to send
	sent        chan struct{} // closed and replaced whenever a send has ended
}

// member is what is known of another node.
type member struct {
	Member
	start   int64  // of the incarnation that lives
	version uint64 // of State
	left    bool   // it has said that it goes
	died    time.Time
	has     uint64 // version of this node's state that it was sent
	sending bool
	retry   time.Time // no sending before
}

// conflict is a second node with a name.
type conflict struct {
	address netip.AddrPort
	at      time.Time
}

// New checks the configuration. It opens nothing and starts nothing: Listen opens
// the sockets, and Run does if Listen has not been called.
func New(cfg Config, log *slog.Logger) (*Cluster, error) {
	var errs []error
	if cfg.Node == "" {
		errs = append(errs, errors.New("the node has no name: set node"))
	}
	if n := len(cfg.Key); n != 16 && n != 24 && n != 32 {
		errs = append(errs, fmt.Errorf("cluster.key has %d bytes, not 16, 24 or 32: make one by `openssl rand -base64 32`", n))
	}
	for _, p := range cfg.Peers {
		if _, _, err := net.SplitHostPort(p); err != nil {
			errs = append(errs, fmt.Errorf("peer %q is not host:port: %w", p, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("set up cluster: %w", err)
	}
	now := time.Now()
	return &Cluster{
		cfg: cfg, log: log, start: now.UnixNano(),
		own:       nodeState{Node: cfg.Node, Start: now.UnixNano()},
		members:   make(map[string]*member),
		pending:   make(map[string]nodeState),
		conflicts: make(map[string]conflict),
		wake:      make(chan struct{}, 1),
		sent:      make(chan struct{}),
	}, nil
}

// Publish makes state what this node has to say on a topic, and has it sent to all
// others. It keeps the slice and waits for nobody. It may be called before Run.
func (c *Cluster) Publish(topic string, state []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	topics := maps.Clone(c.own.Topics)
	if topics == nil {
		topics = make(map[string][]byte)
	}
	topics[topic] = state
	c.own.Topics = topics
	c.own.Version++
	c.signal()
	c.poke()
}

// Members returns all known nodes, sorted by name, this one among them.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	self := Member{
		Name: c.cfg.Node, Address: c.address, Self: true, Alive: true, Since: time.Unix(0, c.start),
		Version: protocolVersion, State: c.own.Topics, Current: true,
		Err: c.trouble(c.cfg.Node),
	}
	all := []Member{self}
	for _, m := range c.members {
		is := m.Member
		if is.Err == "" {
			is.Err = c.trouble(m.Name)
		}
		all = append(all, is)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// trouble says whether another node has the name, or had it a short time ago.
func (c *Cluster) trouble(name string) string {
	other, is := c.conflicts[name]
	if !is || time.Since(other.at) > conflictMemory {
		return ""
	}
	return fmt.Sprintf("the node at %s has the same name", other.address)
}

// Subscribe returns a channel of its own that signals that Members differs from
// before. It has a capacity of one.
func (c *Cluster) Subscribe() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{}, 1)
	c.subscribers = append(c.subscribers, ch)
	return ch
}

// Addr returns the address that others reach this node at; invalid before Listen.
func (c *Cluster) Addr() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.address
}

// signal tells subscribers; c.mu is held.
func (c *Cluster) signal() {
	for _, ch := range c.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// poke wakes Run.
func (c *Cluster) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}
