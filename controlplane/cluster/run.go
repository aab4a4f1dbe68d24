package cluster

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// Listen opens the sockets, and takes calls from other nodes from then on. It is
// for those who want to know before Run whether that works.
func (c *Cluster) Listen() error {
	c.listen.Lock()
	defer c.listen.Unlock()
	if c.memberlist() != nil {
		return nil
	}
	conf := memberlist.DefaultLANConfig()
	timed(conf)
	conf.Name = c.cfg.Node
	conf.SecretKey = c.cfg.Key
	conf.EnableCompression = false
	conf.Logger = log.New(newLogWriter(c.log), "", 0)
	d := delegate{c}
	conf.Delegate, conf.Events, conf.Conflict = d, d, d

	transport, err := c.transport(conf.Logger)
	if err != nil {
		return err
	}
	conf.Transport = transport
	if c.wrap != nil {
		conf.Transport = c.wrap(transport)
	}
	conf.BindPort = transport.GetAutoBindPort()
	if a := c.advertise(uint16(conf.BindPort)); a.IsValid() {
		conf.AdvertiseAddr, conf.AdvertisePort = a.Addr().String(), int(a.Port())
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return fmt.Errorf("join cluster: %w", errors.Join(err, transport.Shutdown()))
	}
	address := addrOf(list.LocalNode())
	c.mu.Lock()
	c.list, c.address = list, address
	c.mu.Unlock()
	c.log.Info("listening for other nodes", "node", c.cfg.Node, "address", address)
	return nil
}

func (c *Cluster) memberlist() *memberlist.Memberlist {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list
}

// transport opens the sockets. A free TCP port may be taken for UDP, so that any
// port is looked for more than once.
func (c *Cluster) transport(l *log.Logger) (*memberlist.NetTransport, error) {
	bind := c.cfg.Bind.Addr()
	if !bind.IsValid() {
		bind = netip.IPv4Unspecified() // which net takes for both families
	}
	attempts := 1
	if c.cfg.Bind.Port() == 0 {
		attempts = 10
	}
	for {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.String()}, BindPort: int(c.cfg.Bind.Port()), Logger: l,
		})
		if attempts--; err != nil && attempts == 0 {
			return nil, fmt.Errorf("listen for other nodes at %s: %w (set cluster.bind to an address of this box and a free port)", c.cfg.Bind, err)
		}
		if err == nil {
			return t, nil
		}
	}
}

// advertise returns what to tell others; invalid to leave it to memberlist, which
// takes the address that is listened at, or any private one.
func (c *Cluster) advertise(port uint16) netip.AddrPort {
	if a := c.cfg.Advertise; a.IsValid() {
		if a.Port() == 0 {
			return netip.AddrPortFrom(a.Addr(), port)
		}
		return a
	}
	if a := c.cfg.Bind.Addr(); a.IsValid() && !a.IsUnspecified() {
		return netip.AddrPort{}
	}
	for _, p := range c.cfg.Peers {
		conn, err := net.Dial("udp", p) // sends nothing
		if err != nil {
			continue
		}
		local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		_ = conn.Close()
		if a := local.Addr().Unmap(); !a.IsLoopback() {
			return netip.AddrPortFrom(a, port)
		}
	}
	return netip.AddrPort{}
}

// Run speaks with other nodes until ctx ends, and closes the sockets then. To the
// others that looks like a failure; call Leave before to spare them the wait.
func (c *Cluster) Run(ctx context.Context) error {
	if err := c.Listen(); err != nil {
		return err
	}
	list := c.memberlist()
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		c.join(ctx, list.Join)
	}()
	tick := time.NewTicker(sendRetry)
	defer tick.Stop()
	for ctx.Err() == nil {
		c.send(list)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-tick.C:
			c.mu.Lock()
			c.forget(time.Now())
			c.mu.Unlock()
		}
	}
	<-joined
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("leave cluster: %w", err)
	}
	return nil
}

// send brings this node's state to every live member that has not got it, to each
// by a goroutine of its own, since one that hangs must not hold up the rest.
func (c *Cluster) send(list *memberlist.Memberlist) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, m := range c.live() {
		if m.sending || m.has >= c.own.Version || now.Before(m.retry) {
			continue
		}
		m.sending = true
		state, start := c.own, m.start
		to := &memberlist.Node{Name: m.Name, Addr: net.IP(m.Address.Addr().AsSlice()), Port: m.Address.Port()}
		go func() {
			err := list.SendReliable(to, encodeStates([]nodeState{state}))
			c.mu.Lock()
			defer c.mu.Unlock()
			m.sending = false
			switch {
			case err != nil:
				c.log.Debug("cannot send state", "node", m.Name, "error", err)
				m.retry = time.Now().Add(sendRetry)
			case m.start == start && m.Alive:
				m.has = state.Version
			}
			c.finish()
			c.poke()
		}()
	}
}

// finish wakes those who wait in Sync; c.mu is held.
func (c *Cluster) finish() {
	close(c.sent)
	c.sent = make(chan struct{})
}

// Sync waits until every live member has been sent what was published before.
func (c *Cluster) Sync(ctx context.Context) error {
	c.mu.Lock()
	version := c.own.Version
	c.mu.Unlock()
	for {
		c.mu.Lock()
		behind := slices.ContainsFunc(c.live(), func(m *member) bool { return m.has < version })
		sent := c.sent
		c.mu.Unlock()
		if !behind {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("send state to all nodes: %w", ctx.Err())
		case <-sent:
		}
	}
}

// Leave tells the others what was published last, and then that this node goes.
// It does its best within a second or until ctx ends, whichever comes first. Run
// goes on, but calls nobody any more.
func (c *Cluster) Leave(ctx context.Context) error {
	list := c.memberlist()
	if list == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	c.mu.Lock()
	if !c.leaving {
		c.leaving = true
		c.own.Left = true
		c.own.Version++
		c.poke()
	}
	c.mu.Unlock()
	err := c.Sync(ctx)
	deadline, _ := ctx.Deadline()
	left := max(time.Until(deadline), gossipInterval)
	if e := list.Leave(left); e != nil {
		err = errors.Join(err, fmt.Errorf("leave cluster: %w", e))
	}
	return err
}
