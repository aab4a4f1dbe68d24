package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// Nodes are real ones on loopback addresses, in real time: memberlist's own
// goroutines and sockets are what is relied on.

func key(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// node is one that runs.
type node struct {
	*Cluster
	log  *logBook
	stop func()
}

// logBook is where a node logs to.
type logBook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fabric is a network between nodes that can be cut.
type fabric struct {
	mu  sync.Mutex
	cut map[[2]netip.Addr]bool
}

func (f *fabric) set(cut bool, a, b *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut == nil {
		f.cut = make(map[[2]netip.Addr]bool)
	}
	x, y := a.Addr().Addr(), b.Addr().Addr()
	f.cut[[2]netip.Addr{x, y}], f.cut[[2]netip.Addr{y, x}] = cut, cut
}

// cable is a transport on that network.
type cable struct {
	memberlist.NodeAwareTransport
	fabric *fabric
	from   netip.Addr
}

func (c cable) lost(to string) bool {
	a, err := netip.ParseAddrPort(to)
	c.fabric.mu.Lock()
	defer c.fabric.mu.Unlock()
	return err == nil && c.fabric.cut[[2]netip.Addr{c.from, a.Addr()}]
}

func (c cable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if c.lost(a.Addr) {
		return time.Now(), nil
	}
	return c.NodeAwareTransport.WriteToAddress(b, a)
}

func (c cable) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if c.lost(a.Addr) {
		return nil, errors.New("no route to host")
	}
	return c.NodeAwareTransport.DialAddressTimeout(a, d)
}

type option func(*Config, *Cluster)

func peers(nodes ...*node) option {
	return func(cfg *Config, _ *Cluster) {
		for _, n := range nodes {
			cfg.Peers = append(cfg.Peers, n.Addr().String())
		}
	}
}

func within(f *fabric, ip string) option {
	return func(_ *Config, c *Cluster) {
		if c != nil {
			c.wrap = func(t memberlist.NodeAwareTransport) memberlist.Transport {
				return cable{t, f, netip.MustParseAddr(ip)}
			}
		}
	}
}

// start starts a node at an address with or without a port.
func start(t *testing.T, name, at string, options ...option) *node {
	t.Helper()
	if !strings.Contains(at, ":") {
		at += ":0"
	}
	cfg := Config{Node: name, Bind: netip.MustParseAddrPort(at), Key: key(1)}
	for _, o := range options {
		o(&cfg, nil)
	}
	n := &node{log: new(logBook)}
	c, err := New(cfg, slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		o(&cfg, c)
	}
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	n.Cluster = c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: Run returned %v", name, err)
		}
	})
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, n.log)
		}
	})
	return n
}

// until waits for something and returns how long it took.
func until(t *testing.T, what string, is func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !is() {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not in 20 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begin)
}

// sees describes what a node knows: name, alive or dead, the state of topic "t".
func (n *node) sees() string {
	var all []string
	for _, m := range n.Members() {
		s := m.Name
		if !m.Alive {
			s += " dead"
		}
		if v, has := m.State["t"]; has {
			s += "=" + string(v)
			if !m.Current {
				s += "?"
			}
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func (n *node) untilSees(t *testing.T, want string) time.Duration {
	t.Helper()
	return until(t, fmt.Sprintf("%s sees %q, not %q", n.cfg.Node, want, n.sees()), func() bool { return n.sees() == want })
}

func TestNodesShareState(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.0.1")
	changes := a.Subscribe()
	a.Publish("t", []byte("1"))
	b := start(t, "b", "127.0.0.2", peers(a))
	c := start(t, "c", "127.0.0.3", peers(a))
	for _, n := range []*node{a, b, c} {
		n.untilSees(t, "a=1, b, c")
	}
	c.Publish("t", []byte("3"))
	b.Publish("t", []byte("2"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(b.Sync(ctx), c.Sync(ctx)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b, c} {
		n.untilSees(t, "a=1, b=2, c=3")
	}
	select {
	case <-changes:
	default:
		t.Error("a subscriber was not told")
	}
	a.Publish("other", []byte("x"))
	until(t, "both topics are there", func() bool {
		i := slices.IndexFunc(b.Members(), func(m Member) bool { return m.Name == "a" })
		m := b.Members()[i]
		return string(m.State["other"]) == "x" && string(m.State["t"]) == "1" && m.Address == a.Addr() && m.Version == 1
	})
	self := b.Members()[1]
	if !self.Self || !self.Alive || !self.Current || self.Address != b.Addr() || self.Since.IsZero() {
		t.Errorf("self: %+v", self)
	}
}

func TestKilledNodeIsDeadAndComesBack(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.1.1")
	b := start(t, "b", "127.0.1.2", peers(a))
	c := start(t, "c", "127.0.1.3", peers(a))
	c.Publish("t", []byte("3"))
	a.untilSees(t, "a, b, c=3")
	b.untilSees(t, "a, b, c=3")
	at := c.Addr().String()
	c.stop()
	took := max(a.untilSees(t, "a, b, c dead=3?"), b.untilSees(t, "a, b, c dead=3?"))
	t.Logf("dead after %v", took)
	// A new incarnation has nothing to do with what the old one said.
	c = start(t, "c", at, peers(b))
	a.untilSees(t, "a, b, c")
	c.Publish("t", []byte("4"))
	a.untilSees(t, "a, b, c=4")
}

func TestRestartThatNobodyNoticed(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.2.1")
	b := start(t, "b", "127.0.2.2", peers(a))
	b.Publish("t", []byte("before"))
	a.untilSees(t, "a, b=before")
	at := b.Addr().String()
	b.stop()
	b = start(t, "b", at, peers(a))
	a.untilSees(t, "a, b")
	b.Publish("t", []byte("after"))
	a.untilSees(t, "a, b=after")
}

// memberlist calls back with its locks held, so nothing may be asked of it with ours:
// whoever asks for the members while nodes come and go must not stop for ever.
func TestAskingWhileNodesComeAndGo(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.0.1")
	done := make(chan struct{})
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Microsecond):
					a.Members()
					a.Addr()
				}
			}
		})
	}
	for i := range 2 {
		b := start(t, "b", "127.0.0.1", peers(a))
		lives := func() bool {
			return slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Name == "b" && m.Alive })
		}
		until(t, fmt.Sprintf("b comes, %d", i), lives)
		b.stop()
		until(t, fmt.Sprintf("b is dead, %d", i), func() bool { return !lives() })
	}
	close(done)
	asking.Wait()
}

func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.3.1")
	b := start(t, "b", "127.0.3.2", peers(a))
	a.untilSees(t, "a, b")
	b.Publish("t", []byte("last words"))
	changes := a.Subscribe()
	if err := b.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	a.untilSees(t, "a")
	select {
	case <-changes:
	default:
		t.Error("a subscriber was not told")
	}
	b.stop()
	start(t, "b", "127.0.3.3", peers(a)) // from another address: its name is free at once
	a.untilSees(t, "a, b")
}

func TestPeerThatComesLater(t *testing.T) {
	t.Parallel()
	b := start(t, "b", "127.0.4.2")
	at := b.Addr()
	b.stop()
	a := start(t, "a", "127.0.4.1", func(cfg *Config, _ *Cluster) { cfg.Peers = []string{at.String()} })
	until(t, "a has tried", func() bool { return strings.Contains(a.log.String(), "peer is not there") })
	start(t, "b", at.String())
	a.untilSees(t, "a, b")
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	f := new(fabric)
	a := start(t, "a", "127.0.5.1", within(f, "127.0.5.1"))
	b := start(t, "b", "127.0.5.2", within(f, "127.0.5.2"), peers(a))
	c := start(t, "c", "127.0.5.3", within(f, "127.0.5.3"), peers(a, b))
	a.Publish("t", []byte("1"))
	c.Publish("t", []byte("3"))
	b.untilSees(t, "a=1, b, c=3")
	f.set(true, a, c)
	f.set(true, b, c)
	a.untilSees(t, "a=1, b, c dead=3?")
	c.untilSees(t, "a dead=1?, b dead, c=3")
	a.Publish("t", []byte("10"))
	b.untilSees(t, "a=10, b, c dead=3?")
	f.set(false, a, c)
	f.set(false, b, c)
	for _, n := range []*node{a, b, c} {
		n.untilSees(t, "a=10, b, c=3")
	}
}

// Where two nodes cannot speak to each other and both can to a third, they live,
// and what they publish comes by way of that one.
func TestStateGoesRoundABrokenPath(t *testing.T) {
	t.Parallel()
	f := new(fabric)
	a := start(t, "a", "127.0.6.1", within(f, "127.0.6.1"))
	b := start(t, "b", "127.0.6.2", within(f, "127.0.6.2"), peers(a))
	c := start(t, "c", "127.0.6.3", within(f, "127.0.6.3"), peers(a))
	a.Publish("t", []byte("1"))
	b.untilSees(t, "a=1, b, c")
	c.untilSees(t, "a=1, b, c")
	f.set(true, a, b)
	a.Publish("t", []byte("2"))
	b.untilSees(t, "a=2, b, c")
}

func TestWrongKeyIsRefused(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.7.1")
	b := start(t, "b", "127.0.7.2", peers(a), func(cfg *Config, _ *Cluster) { cfg.Key = key(2) })
	for _, n := range []*node{a, b} {
		until(t, "the log says why", func() bool {
			return strings.Contains(n.log.String(), "set the same cluster.key on all nodes")
		})
	}
	if a.sees() != "a" || b.sees() != "b" {
		t.Errorf("a sees %q, b sees %q", a.sees(), b.sees())
	}
}

func TestNameOfTwoNodes(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.8.1")
	b := start(t, "b", "127.0.8.2", peers(a))
	a.untilSees(t, "a, b")
	other := start(t, "b", "127.0.8.3", peers(a))
	// The first to have it goes on and hears nothing of it.
	for n, not := range map[*node]netip.AddrPort{a: other.Addr(), other: b.Addr()} {
		until(t, "it complains", func() bool { return strings.Contains(n.log.String(), "two nodes have the same name") })
		i := slices.IndexFunc(n.Members(), func(m Member) bool { return m.Name == "b" })
		if m := n.Members()[i]; !strings.Contains(m.Err, not.String()) || m.Address == not || !m.Alive {
			t.Errorf("%s knows %+v", n.cfg.Node, m)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no name", Config{Key: key(1)}, "set node"},
		{"short key", Config{Node: "a", Key: []byte("secret")}, "openssl rand -base64 32"},
		{"peer without port", Config{Node: "a", Key: key(1), Peers: []string{"10.0.0.1"}}, `"10.0.0.1" is not host:port`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := New(tc.cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestListenNamesTheFix(t *testing.T) {
	t.Parallel()
	a := start(t, "a", "127.0.9.1")
	c, err := New(Config{Node: "b", Key: key(1), Bind: a.Addr()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{c.Listen, func() error { return c.Run(t.Context()) }} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "set cluster.bind") {
			t.Errorf("error %v", err)
		}
	}
	if c.Addr().IsValid() {
		t.Errorf("address %v", c.Addr())
	}
	if err := c.Leave(t.Context()); err != nil {
		t.Errorf("leave what was never joined: %v", err)
	}
}
