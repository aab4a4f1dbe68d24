package forward_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// fragments has one side of a connection of UDP send a datagram in pieces, each
// to any worker, in any order, while the others work.
func (m *natModel) fragments(conn *natConn, answer bool) {
	c := conn.client
	s, ingress := m.spec(c), c.ingress
	if answer {
		s, ingress = m.answerSpec(conn), 1
	}
	s.Payload = make([]byte, 300+m.rng.IntN(1000))
	for i := range s.Payload {
		s.Payload[i] = byte(m.rng.Uint32())
	}
	s.ID = uint16(m.rng.Uint32())
	frames := packettest.Fragments(s, 8*(8+m.rng.IntN(20)))
	m.rng.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	for _, f := range frames {
		m.put(m.any(), ingress, f)
		for range m.rng.IntN(3) {
			m.move()
		}
	}
	conn.trusted = conn.trusted || !answer
	sent := m.settle()
	if len(sent) != len(frames) {
		m.test.Fatalf("%v, answer %t: %d fragments became %d; drops %v", c, answer, len(frames), len(sent), m.drops())
	}
	got := join(m.test, sent)
	if string(got.payload) != string(s.Payload) {
		m.test.Fatalf("%v, answer %t: another datagram came out", c, answer)
	}
	for _, f := range sent {
		if answer {
			m.reached(c, f, got.wire)
		} else if got.wire != conn.toward || f.egress != 1 {
			m.test.Fatalf("%v: in fragments %+v by %d, else %+v", c, got.wire, f.egress, conn.toward)
		}
	}
}

// failed has a router report that a packet did not get through: one of the
// client's if behind, else one of the backend's.
func (m *natModel) failed(conn *natConn, behind bool) {
	c := conn.client
	about, ingress, mac := turned(m.spec(c)), c.ingress, interfaces()[c.ingress].MAC
	if behind {
		about, ingress, mac = turned(m.answerSpec(conn)), 1, eth1MAC
	}
	router := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(m.rng.IntN(200)), 1}), 0)
	if about.Src.Addr().Is6() {
		a := netip.MustParseAddr("2001:db8:ff::1").As16()
		a[7] = byte(m.rng.IntN(200))
		router = netip.AddrPortFrom(netip.AddrFrom16(a), 0)
	}
	k := errorKinds()[m.rng.IntN(3)]
	m.put(m.any(), ingress, errorAbout(k, about, router, mac, 0))
	f := m.only(m.settle(), "error %s about %v, behind %t", k.name, c, behind)
	from, to, quoted := readError(m.test, f.frame)
	vip := netip.AddrPortFrom(natPoolVIPs[c.service], 80)
	if behind {
		if from != vip.Addr() || to != c.addr.Addr() || quoted != (wire{c.addr, vip, c.proto}) {
			m.test.Fatalf("%v is told by %v to %v about %+v", c, from, to, quoted)
		}
		m.atStation(c, f)
		return
	}
	want := conn.toward.src.Addr()
	if c.service >= 2 {
		want = router.Addr()
	}
	if from != want || to != conn.toward.dst.Addr() || quoted != (wire{conn.toward.dst, conn.toward.src, c.proto}) ||
		f.egress != 1 || packet.MAC(f.frame) != backendMAC(uint32(conn.slot)) {
		m.test.Fatalf("%v's backend is told by %v to %v about %+v, want %+v", c, from, to, quoted, conn.toward)
	}
}

// strange sends what belongs to nothing: nothing is to come of it.
func (m *natModel) strange() {
	c := m.clients[m.rng.IntN(len(m.clients))]
	conn := m.conns[c]
	if conn == nil {
		return
	}
	s := m.answerSpec(conn)
	switch m.rng.IntN(3) {
	case 0:
		s.Src = netip.AddrPortFrom(s.Src.Addr(), s.Src.Port()+7)
	case 1:
		s.Dst = netip.AddrPortFrom(s.Dst.Addr(), uint16(m.rng.Uint32()))
	case 2:
		s.Proto = packet.ProtoTCP + packet.ProtoUDP - s.Proto
	}
	if m.known[wire{s.Dst, s.Src, s.Proto}] {
		return
	}
	m.put(m.any(), 1, packettest.Frame(s))
	if sent := m.settle(); len(sent) != 0 {
		m.test.Fatalf("an answer to nobody, like one to %v: %+v", c, sent)
	}
}

// step does one random thing.
func (m *natModel) step() {
	c := m.clients[m.rng.IntN(len(m.clients))]
	conn := m.conns[c]
	what := m.rng.IntN(100)
	switch {
	case conn == nil || what < 25:
		m.send(c)
	case what < 60:
		m.answer(conn)
	case what < 65:
		m.moves(c)
		m.send(c)
	case what < 75:
		m.failed(conn, what%2 == 0)
	case what < 90 && c.proto == packet.ProtoUDP:
		m.fragments(conn, what%2 == 0)
	case what < 94:
		m.strange()
	default:
		m.reset(conn)
	}
}

// Random packets of both sides, whole and in fragments, and errors about them:
// each comes out once, at the one that it is for, changed as the model says,
// whatever worker it was given to; no two flows look alike to a backend; what
// has lost its backend is heard of no more; and at the end nothing is left.
func TestNATAgreesWithModel(t *testing.T) {
	for _, workers := range []int{1, 2, 4} {
		for seed := range uint64(4) {
			rng := rand.New(rand.NewPCG(seed, uint64(workers)))
			m := newNATModel(t, workers, newNATPool(1024, 1024+64*12-1, "10.0.0.240", "fd00::f0"), rng)
			for step := range 5000 {
				m.step()
				if step%100 == 99 {
					m.change()
				}
				if step%500 == 499 {
					m.check(t)
					m.now += 16
				}
				if step%2000 == 1999 {
					m.end()
				}
			}
			m.end()
			if taken := m.takeover; taken != 0 {
				t.Errorf("%d flows were taken over although there are ports", taken)
			}
		}
	}
}

// The same with few ports: who can be given none is refused, and only then; and
// nobody who is in use loses his.
func TestNATWithFewPorts(t *testing.T) {
	refused, takeover := 0, 0
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 77))
		m := newNATModel(t, 1, newNATPool(2000, 2003, "10.0.0.240", "fd00::f0"), rng)
		m.scarce = true
		for step := range 4000 {
			m.step()
			if step%500 == 499 {
				m.check(t)
			}
			if step%2000 == 1999 {
				m.end()
			}
		}
		refused += m.refused
		takeover += m.takeover
		m.end()
	}
	if refused == 0 || takeover == 0 {
		t.Errorf("%d refused, %d taken over: the test tests nothing", refused, takeover)
	}
}
