package cluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// protocolVersion is that of what nodes say to each other on top of memberlist.
const protocolVersion = 1

// nodeState is all that a node has published, as it is sent: to everybody when it
// changes, and together with what is known of others at every push/pull.
type nodeState struct {
	Node    string            `json:"node"`
	Start   int64             `json:"start"`   // the incarnation of the node
	Version uint64            `json:"version"` // counts within an incarnation
	Topics  map[string][]byte `json:"topics,omitempty"`
	Left    bool              `json:"left,omitempty"` // it goes, and this is the last of it
}

// encodeStates writes states, of which the first is the sender's.
func encodeStates(states []nodeState) []byte {
	b, err := json.Marshal(states)
	if err != nil { // strings, numbers and bytes: it cannot fail
		panic(err)
	}
	return b
}

// decodeStates reads what encodeStates has written.
func decodeStates(b []byte) ([]nodeState, error) {
	var states []nodeState
	if err := json.Unmarshal(b, &states); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	for _, s := range states {
		if s.Node == "" {
			return nil, fmt.Errorf("decode state: it names no node")
		}
	}
	return states, nil
}

// metaLen is the length of a node's metadata: a version and its start.
const metaLen = 1 + 8

func encodeMeta(start int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{protocolVersion}, uint64(start))
}

// decodeMeta returns the version that a node speaks, and its start if that
// version is known.
func decodeMeta(b []byte) (version int, start int64, err error) {
	if len(b) == 0 {
		return 0, 0, fmt.Errorf("it is no weir: it has no metadata")
	}
	if b[0] != protocolVersion || len(b) != metaLen {
		return int(b[0]), 0, fmt.Errorf("it speaks version %d, this node %d: run the same weir on all nodes", b[0], protocolVersion)
	}
	return int(b[0]), int64(binary.BigEndian.Uint64(b[1:])), nil
}

// delegate is what memberlist calls. It may hold memberlist's locks while it
// does, so nothing here calls memberlist.
type delegate struct{ *Cluster }

// NodeMeta is part of memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte { return encodeMeta(d.start) }

// NotifyMsg is part of memberlist.Delegate: a node's state, sent by itself.
func (d delegate) NotifyMsg(b []byte) { d.merge(b) }

// GetBroadcasts is part of memberlist.Delegate: state goes by TCP, not by gossip.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is part of memberlist.Delegate: this node's state, and that of others
// that is current, so that it gets through where two nodes cannot speak to each
// other.
func (d delegate) LocalState(bool) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	states := []nodeState{d.own}
	for _, m := range d.members {
		if m.Current && m.version > 0 {
			states = append(states, nodeState{Node: m.Name, Start: m.start, Version: m.version, Topics: m.State, Left: m.left})
		}
	}
	return encodeStates(states)
}

// MergeRemoteState is part of memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) { d.merge(b) }

// NotifyJoin is part of memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.alive(n) }

// NotifyUpdate is part of memberlist.EventDelegate: with new metadata it is a new
// incarnation, which nobody saw die.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.alive(n) }

// NotifyLeave is part of memberlist.EventDelegate: n has died or left.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, known := d.members[n.Name]
	if !known {
		return
	}
	if m.left {
		d.log.Info("node has left the cluster", "node", n.Name)
		delete(d.members, n.Name)
	} else {
		d.log.Warn("node is dead", "node", n.Name, "address", m.Address)
		m.Alive, m.Current, m.Since, m.died = false, false, time.Now(), time.Now()
	}
	d.signal()
	d.finish()
}

// NotifyConflict is part of memberlist.ConflictDelegate: other has the name of
// existing, which keeps it.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	is := conflict{address: addrOf(other), at: time.Now()}
	before, was := d.conflicts[existing.Name]
	d.conflicts[existing.Name] = is
	if was && before.address == is.address && time.Since(before.at) < conflictMemory {
		return
	}
	d.log.Error("two nodes have the same name: give each its own (node in the configuration)",
		"node", existing.Name, "address", addrOf(existing), "other", is.address)
	d.signal()
}

// alive notes a node that is there, perhaps again.
func (c *Cluster) alive(n *memberlist.Node) {
	if n.Name == c.cfg.Node {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m, known := c.members[n.Name]
	if !known {
		m = &member{Member: Member{Name: n.Name}}
		c.members[n.Name] = m
	}
	version, start, err := decodeMeta(n.Meta)
	if start != m.start || err != nil {
		m.State, m.version, m.Current, m.left = nil, 0, false, false
	}
	m.Err = ""
	if err != nil {
		m.Err = err.Error()
	}
	if !m.Alive {
		m.Since = time.Now()
	}
	m.Address, m.Alive, m.Version, m.start = addrOf(n), true, version, start
	m.has, m.retry = 0, time.Time{}
	if s, heard := c.pending[n.Name]; heard && s.Start == start {
		c.accept(m, s)
	}
	delete(c.pending, n.Name)
	c.log.Info("node is in the cluster", "node", n.Name, "address", m.Address, "error", m.Err)
	c.signal()
	c.poke()
}

// merge takes in states that a node has sent, the first its own.
func (c *Cluster) merge(b []byte) {
	states, err := decodeStates(b)
	if err != nil {
		c.log.Warn("cannot read what another node says", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range states {
		if s.Node == c.cfg.Node {
			continue
		}
		m, known := c.members[s.Node]
		switch {
		case known && s.Start == m.start:
			if c.accept(m, s) {
				c.signal()
			}
		case i == 0:
			// It is heard of before memberlist has introduced it.
			if len(c.pending) >= pendingMax {
				clear(c.pending)
			}
			c.pending[s.Node] = s
		}
	}
}

// accept takes a state of a node if it says something new, be it only that it is
// still the same after the node was away.
func (c *Cluster) accept(m *member, s nodeState) (changed bool) {
	if s.Version < m.version || s.Version == m.version && m.Current {
		return false
	}
	m.State, m.version, m.left = s.Topics, s.Version, s.Left
	m.Current = m.Alive
	return true
}

// forget drops what is remembered of nodes that died long ago; c.mu is held.
func (c *Cluster) forget(now time.Time) {
	for name, m := range c.members {
		if !m.Alive && now.Sub(m.died) > deadMemory {
			delete(c.members, name)
			c.signal()
		}
	}
	for name, is := range c.conflicts {
		if now.Sub(is.at) > conflictMemory {
			delete(c.conflicts, name)
			c.signal()
		}
	}
}

// live returns the members that live, sorted by address; c.mu is held.
func (c *Cluster) live() []*member {
	var all []*member
	for _, m := range c.members {
		if m.Alive {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *member) int { return a.Address.Compare(b.Address) })
	return all
}
