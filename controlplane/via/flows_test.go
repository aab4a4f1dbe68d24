package via

import (
	"net"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
)

// What is found for a port that has been given out again: the last packets of the
// one before come out of the device before the first of the one after.
func TestPortAgain(t *testing.T) {
	one, two := &Way{Interface: "one"}, &Way{Interface: "two"}
	at := endpoint{addr: packet.Mapped([4]byte{10, 0, 0, 2}), port: 40000, proto: packet.ProtoTCP}
	s := newFlows(func() {})
	s.start()
	first := s.begin(at, one)
	if s.find(at, true) != one || s.find(at, false) != one {
		t.Error("the first is not found")
	}
	s.end(first)
	ended := s.takeEnded()
	second := s.begin(at, two)
	if got := s.find(at, false); got != one {
		t.Errorf("a reset of the first: got %v", got)
	}
	if s.find(at, true) != two || s.find(at, false) != two {
		t.Error("from its SYN on, the second is not found")
	}
	s.forgetAll(ended)
	if s.find(at, false) != two {
		t.Error("the second was forgotten with the first")
	}
	s.end(second)
	s.forgetAll(s.takeEnded())
	if s.find(at, false) != nil || !s.isEmpty() {
		t.Error("something is left")
	}
}

// The flow before is forgotten with the device empty, though the one after has
// sent nothing yet.
func TestPortAgainForgets(t *testing.T) {
	at := endpoint{port: 40000, proto: packet.ProtoTCP}
	s := newFlows(func() {})
	s.start()
	s.end(s.begin(at, &Way{}))
	two := &Way{}
	s.begin(at, two)
	s.forgetAll(s.takeEnded())
	if s.find(at, false) != two {
		t.Error("the flow before is still found")
	}
}

// Before Run, and after it, nobody would wind anything up.
func TestEndsAtOnce(t *testing.T) {
	s := newFlows(func() {})
	s.end(s.begin(endpoint{port: 1}, &Way{}))
	if !s.isEmpty() {
		t.Error("before: a flow is left")
	}
	s.start()
	s.stop()
	s.finish()
	s.end(s.begin(endpoint{port: 1}, &Way{}))
	if !s.isEmpty() {
		t.Error("after: a flow is left")
	}
}

func TestChoose(t *testing.T) {
	a := func(addr, iface, parent string, loopback, temporary bool) address {
		return address{addr: netip.MustParseAddr(addr), iface: iface, parent: parent, loopback: loopback, temporary: temporary}
	}
	all := []address{
		a("192.0.2.7", "lo", "", true, false),
		a("10.0.0.2", "eth0", "", false, false), a("10.0.0.3", "eth0", "", false, true),
		a("10.1.0.2", "eth1", "", false, false), a("10.2.0.2", "eth1.5", "eth1", false, false),
		a("2001:db8::2", "eth0", "", false, false), a("fd00::2", "eth0", "", false, false),
		a("2001:db8::99", "eth0", "", false, true),
	}
	for _, test := range []struct{ iface, to, want string }{
		{"eth0", "10.0.0.200", "10.0.0.2"},
		{"eth0", "203.0.113.1", "10.0.0.2"},
		{"eth1", "10.1.0.200", "10.1.0.2"},
		{"eth1", "10.2.0.200", "10.2.0.2"}, // its VLAN
		{"eth0", "fd00::200", "fd00::2"},
		{"eth0", "2001:db8::200", "2001:db8::2"}, // not the temporary one, however alike
		{"eth9", "2001:db8::200", "2001:db8::2"},
		{"eth9", "192.0.2.7", "10.0.0.2"}, // of lo only if there is no other
	} {
		best, rank := "", -1
		for i := range all {
			to := netip.MustParseAddr(test.to)
			if r := all[i].rank(test.iface, to); all[i].addr.Is4() == to.Is4() && r > rank {
				best, rank = all[i].addr.String(), r
			}
		}
		if best != test.want {
			t.Errorf("by %s to %s: got %s, want %s", test.iface, test.to, best, test.want)
		}
	}
}

// closer is a connection that knows whether it was closed.
type closer struct {
	net.Conn
	closed bool
}

func (c *closer) Close() error {
	c.closed = true
	return nil
}

// A connection stays for a whole turn after its user has closed it, or what the
// server says meanwhile would be answered without a mark.
func TestLinger(t *testing.T) {
	s := newFlows(func() {})
	s.start()
	s.turn()
	c := &closer{}
	if err := s.close(c); err != nil || c.closed {
		t.Errorf("closed at once: %v", err)
	}
	if !s.turn() || c.closed {
		t.Error("closed in the middle of a turn")
	}
	if s.turn() || !c.closed {
		t.Error("not closed after a turn")
	}
	last := &closer{}
	_ = s.close(last)
	s.stop()
	s.finish()
	late := &closer{}
	_ = s.close(late)
	if !last.closed || !late.closed {
		t.Error("at the end, connections stay open")
	}
}

// Through the network, connections linger as well.
func TestConnectionsLinger(t *testing.T) {
	n := &Network{flows: newFlows(func() {})}
	n.flows.start()
	c := &closer{}
	if err := (&conn{Conn: c, network: n}).Close(); err != nil || c.closed {
		t.Errorf("closed at once: %v", err)
	}
}
