package forward_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// natPool is a NAT world whose backends and SNAT addresses come and go.
type natPool struct {
	members []natMember // by slot
	snats   []netip.Addr
	lo, hi  uint16
}

type natMember struct {
	service    int
	addr       netip.AddrPort // as backends see themselves
	state      snapshot.BackendState
	generation uint32
}

// The services of a natPool. The first two have the same backends, of both
// families.
var natPoolVIPs = []netip.Addr{vipNAT44, vipNAT66, vipKeep4, vipKeep6}

func newNATPool(lo, hi uint16, snats ...string) *natPool {
	p := &natPool{lo: lo, hi: hi}
	for _, a := range snats {
		p.snats = append(p.snats, netip.MustParseAddr(a))
	}
	add := func(service int, addrs ...string) {
		for _, a := range addrs {
			p.members = append(p.members, natMember{service, netip.MustParseAddrPort(a), snapshot.Active, 1})
		}
	}
	for service := range 2 {
		add(service, "10.1.0.1:80", "10.1.0.2:8080", "[fd01::1]:80", "[fd01::2]:8080")
	}
	add(2, "10.1.0.3:80", "10.1.0.4:8080")
	add(3, "[fd01::3]:80", "[fd01::4]:8080")
	return p
}

func (p *natPool) snapshot(space *nat.Space) *snapshot.Snapshot {
	spec := snapshot.Spec{Interfaces: interfaces()}
	for service, vip := range natPoolVIPs {
		svc := snapshot.Service{Name: vip.String(), ID: uint32(service), Mode: snapshot.NAT, Empty: stats.NoBackend}
		if service >= 2 {
			svc.Mode = snapshot.NATKeep
		}
		for slot, m := range p.members {
			if m.service == service && m.state == snapshot.Active {
				svc.Members = append(svc.Members, uint32(slot))
			}
		}
		for i := range 7 * len(svc.Members) {
			svc.Table = append(svc.Table, uint16(i%len(svc.Members)))
		}
		spec.Services = append(spec.Services, svc)
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: vip.As16(), Proto: proto, Lo: 80, Hi: 80, Service: uint32(service)})
		}
	}
	for slot, m := range p.members {
		link := rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(uint32(slot)), MTU: 1500}
		b := snapshot.Backend{
			Rewrite: must(rewrite.NAT(link, m.addr.Addr().Is6())), State: m.state, Generation: m.generation,
			Service: uint32(m.service), Addr: m.addr.Addr().As16(),
		}
		if m.addr.Port() != 80 {
			b.Port = m.addr.Port()
		}
		spec.Backends = append(spec.Backends, b)
	}
	for _, a := range p.snats {
		spec.SNAT = append(spec.SNAT, snatOf(space, a, p.lo, p.hi))
	}
	return must(snapshot.New(spec))
}

// natClient is who opens connections: one tuple each.
type natClient struct {
	addr    netip.AddrPort
	service int
	proto   uint8
	worker  int // that its NIC's hash gives it to

	mac     packet.MAC
	vlan    uint16
	ingress uint16
}

func (c *natClient) String() string {
	return fmt.Sprintf("%v to %v protocol %d", c.addr, natPoolVIPs[c.service], c.proto)
}

// wire is what tells a flow's packets on one side.
type wire struct {
	src, dst netip.AddrPort
	proto    uint8
}

// natConn is what the model knows of a connection.
type natConn struct {
	client     *natClient
	toward     wire // what the backend sees
	slot       int
	generation uint32
	trusted    bool
}

// natModel is the naive truth about a machine: two maps.
type natModel struct {
	*machine
	test     *testing.T
	pool     *natPool
	clients  []*natClient
	conns    map[*natClient]*natConn
	byToward map[wire]*natConn
	known    map[wire]bool // that there have been since over was last called
	had      map[*natClient]bool
	number   int // of the payload
	scarce   bool
	refused  int
	takeover int
}

func newNATModel(t *testing.T, workers int, pool *natPool, rng *rand.Rand) *natModel {
	m := &natModel{
		machine: newMachine(t, workers, 1<<12, rng), test: t, pool: pool,
		conns: map[*natClient]*natConn{}, byToward: map[wire]*natConn{},
		known: map[wire]bool{}, had: map[*natClient]bool{},
	}
	m.adopt(pool.snapshot(m.space))
	for i := range 240 {
		c := &natClient{service: i % 4, proto: packet.ProtoTCP, worker: m.any()}
		if i/4%2 == 1 {
			c.proto = packet.ProtoUDP
		}
		ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(i / 16)})
		if c.service%2 == 1 {
			ip = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i/16+1))
		}
		c.addr = netip.AddrPortFrom(ip, uint16(30000+i/8))
		m.clients = append(m.clients, c)
		m.moves(c)
	}
	return m
}

// moves gives a client another way to weir.
func (m *natModel) moves(c *natClient) {
	c.mac = packet.MAC{2, 0, 0, 0, 5, byte(m.rng.IntN(9))}
	c.vlan = uint16(m.rng.IntN(3) * m.rng.IntN(9))
	c.ingress = uint16(m.rng.IntN(2))
}

func (m *natModel) spec(c *natClient) packettest.Spec {
	m.number++
	return packettest.Spec{
		SrcMAC: c.mac, DstMAC: interfaces()[c.ingress].MAC, VLAN: c.vlan,
		Src: c.addr, Dst: netip.AddrPortFrom(natPoolVIPs[c.service], 80), Proto: c.proto,
		Seq: 1000, ID: uint16(m.number), Payload: fmt.Appendf(nil, "packet %d", m.number),
	}
}

// answerSpec describes what the backend sends.
func (m *natModel) answerSpec(conn *natConn) packettest.Spec {
	s := m.spec(conn.client)
	s.SrcMAC, s.DstMAC, s.VLAN = backendMAC(uint32(conn.slot)), eth1MAC, 0
	s.Src, s.Dst, s.TCPFlags = conn.toward.dst, conn.toward.src, packet.TCPAck
	return s
}

// rss is the worker that a client's packet comes to.
func (m *natModel) rss(c *natClient) int {
	if c.service >= 2 {
		return m.any() // the answers do not say whose they are, so nor need this
	}
	return c.worker
}

// send has a client send a packet, the first of a connection if there is none.
func (m *natModel) send(c *natClient) {
	conn := m.conns[c]
	s := m.spec(c)
	s.TCPFlags = packet.TCPSyn
	if conn != nil {
		s.TCPFlags, s.Seq = packet.TCPAck, 1001
	}
	m.put(m.rss(c), c.ingress, packettest.Frame(s))
	sent := m.settle()
	if conn == nil && len(sent) == 0 && !m.served(c) {
		return
	}
	if conn == nil && len(sent) == 0 && m.scarce {
		m.exhausted(c)
		return
	}
	f := m.only(sent, "%v", c)
	got := read(m.test, f.frame)
	if string(got.payload) != string(s.Payload) || f.egress != 1 {
		m.test.Fatalf("%v: sent %+v by %d", c, got, f.egress)
	}
	if conn != nil {
		conn.trusted = true
		if got.wire != conn.toward {
			m.test.Fatalf("%v: was seen as %+v, now as %+v", c, conn.toward, got.wire)
		}
		return
	}
	m.opened(c, got, f)
}

// served tells whether a client's service has a backend for new connections.
func (m *natModel) served(c *natClient) bool {
	return slices.ContainsFunc(m.pool.members, func(b natMember) bool {
		return b.service == c.service && b.state == snapshot.Active
	})
}

// opened notes a new connection, and judges what it was given.
func (m *natModel) opened(c *natClient, got readFrame, f sentFrame) {
	slot := int(f.frame[4])<<8 | int(f.frame[5])
	member := m.pool.members[slot]
	// Who has been forgotten here may have his old flow again, if its backend is
	// back, though only for old flows.
	usable := member.state == snapshot.Active || m.had[c] && member.state == snapshot.Keeps
	if member.service != c.service || !usable || got.dst != member.addr {
		m.test.Fatalf("%v went to %v, slot %d: %+v", c, got.dst, slot, member)
	}
	if c.service >= 2 {
		if got.src != c.addr {
			m.test.Fatalf("%v is seen as %v", c, got.src)
		}
	} else if !m.mine(got.src) {
		m.test.Fatalf("%v is seen as %v, which is not weir's", c, got.src)
	}
	if other := m.byToward[got.wire]; other != nil {
		if !m.scarce || other.trusted {
			m.test.Fatalf("%v was given %+v, which is %v's", c, got.wire, other.client)
		}
		m.takeover++
		m.forget(other.client)
	}
	conn := &natConn{client: c, toward: got.wire, slot: slot, generation: member.generation}
	m.conns[c], m.byToward[got.wire] = conn, conn
	m.had[c], m.known[got.wire] = true, true
}

func (m *natModel) mine(a netip.AddrPort) bool {
	for _, s := range m.pool.snats {
		if s == a.Addr() && a.Port() >= m.pool.lo && a.Port() <= m.pool.hi {
			return true
		}
	}
	return false
}

// exhausted judges that a client was refused: nothing it could have been given
// belongs to anybody who may lose it.
func (m *natModel) exhausted(c *natClient) {
	m.refused++
	tuple := packet.Tuple{
		Src: c.addr.Addr().As16(), Dst: natPoolVIPs[c.service].As16(), SrcPort: c.addr.Port(), DstPort: 80, Proto: c.proto,
	}
	slot := m.pool.snapshot(m.space).Services[c.service].Pick(flow.HashStable(&tuple))
	backend, inUse, all := m.pool.members[slot].addr, 0, 0
	for _, a := range m.pool.snats {
		if a.Is4() == backend.Addr().Is4() {
			all += int(m.pool.hi-m.pool.lo) + 1
		}
	}
	for _, conn := range m.conns {
		if conn.trusted && conn.toward.dst == backend && conn.toward.proto == c.proto {
			inUse++
		}
	}
	if inUse != all {
		m.test.Fatalf("%v was refused, with %d of %d ports in use", c, inUse, all)
	}
}

// answer has a backend send a packet to its client.
func (m *natModel) answer(conn *natConn) {
	s := m.answerSpec(conn)
	m.put(m.any(), 1, packettest.Frame(s))
	f := m.only(m.settle(), "answer to %v", conn.client)
	got := read(m.test, f.frame)
	if string(got.payload) != string(s.Payload) {
		m.test.Fatalf("answer to %v: %+v", conn.client, got)
	}
	m.reached(conn.client, f, got.wire)
}

// reached judges that a frame goes to a client by the way that this one's latest
// packet came.
func (m *natModel) reached(c *natClient, f sentFrame, got wire) {
	want := wire{netip.AddrPortFrom(natPoolVIPs[c.service], 80), c.addr, c.proto}
	if got != want {
		m.test.Fatalf("%v: %+v, want %+v", c, got, want)
	}
	m.atStation(c, f)
}

func (m *natModel) atStation(c *natClient, f sentFrame) {
	mac, vlan := packet.MAC(f.frame), uint16(0)
	if f.frame[12] == 0x81 {
		vlan = uint16(f.frame[14])<<8 | uint16(f.frame[15])
	}
	if mac != c.mac || vlan != c.vlan || f.egress != c.ingress || packet.MAC(f.frame[6:]) != interfaces()[c.ingress].MAC {
		m.test.Fatalf("%v is at %v VLAN %d on %d; sent to %v VLAN %d on %d", c, c.mac, c.vlan, c.ingress, mac, vlan, f.egress)
	}
}

// reset has a client reset its connection.
func (m *natModel) reset(conn *natConn) {
	if conn.client.proto != packet.ProtoTCP {
		return
	}
	s := m.spec(conn.client)
	s.TCPFlags, s.Seq = packet.TCPRst, 1001
	m.put(m.rss(conn.client), conn.client.ingress, packettest.Frame(s))
	if got := read(m.test, m.only(m.settle(), "reset").frame); got.wire != conn.toward {
		m.test.Fatalf("%v: reset as %+v", conn.client, got.wire)
	}
	m.forget(conn.client)
}

func (m *natModel) forget(c *natClient) {
	if conn := m.conns[c]; conn != nil {
		delete(m.conns, c)
		delete(m.byToward, conn.toward)
	}
}

// end is the end of everything. A snapshot comes when all is over, and not swept
// yet.
func (m *natModel) end() {
	m.test.Helper()
	m.now += flow.TickAt(flow.DefaultTimeouts().TCPEstablished) + flow.Tick(m.rng.IntN(8*flow.TicksPerSecond))
	for i := range m.workers {
		m.put(i, 0, lldp())
	}
	m.adopt(m.pool.snapshot(m.space))
	m.over()
	clear(m.conns)
	clear(m.byToward)
	clear(m.known)
	clear(m.had)
}

func (m *natModel) only(sent []sentFrame, format string, args ...any) sentFrame {
	if len(sent) != 1 {
		m.test.Fatalf("%s: %d frames sent; drops %v", fmt.Sprintf(format, args...), len(sent), m.drops())
	}
	return sent[0]
}

// change does what an operator or a health check does to the pool.
func (m *natModel) change() {
	p := *m.pool
	p.members = append([]natMember(nil), p.members...)
	p.snats = append([]netip.Addr(nil), p.snats...)
	b := &p.members[m.rng.IntN(len(p.members))]
	switch m.rng.IntN(8) {
	case 0, 1, 2:
		b.state = snapshot.BackendState(m.rng.IntN(3))
	case 3, 4:
		b.state = snapshot.Active
	case 5: // the slot is another backend's
		b.generation++
		b.addr = netip.AddrPortFrom(b.addr.Addr(), 8000+uint16(m.rng.IntN(3)))
	case 6: // one SNAT address more or less
		if n := len(p.snats); n > 2 && m.rng.IntN(2) == 0 {
			p.snats = p.snats[:n-1]
		} else {
			extra := []string{"10.0.0.241", "fd00::f1"}[n%2]
			p.snats = append(p.snats, netip.MustParseAddr(extra))
			if n > 3 {
				p.snats = p.snats[:2]
			}
		}
	case 7: // the last slots are gone, and come back as others
		n := len(p.members)
		if n == 10 {
			p.members = append(p.members, natMember{0, netip.MustParseAddrPort("10.1.0.9:80"), snapshot.Active, uint32(m.number + 2)})
			p.members = append(p.members, natMember{3, netip.MustParseAddrPort("[fd01::9]:80"), snapshot.Active, uint32(m.number + 2)})
		} else {
			p.members = p.members[:10]
		}
	}
	m.pool = &p
	m.adopt(p.snapshot(m.space))
	for c, conn := range m.conns {
		gone := conn.slot >= len(p.members)
		if !gone {
			now := p.members[conn.slot]
			gone = now.state == snapshot.Removed || now.generation != conn.generation ||
				c.service < 2 && !m.mine(conn.toward.src)
		}
		if gone {
			m.dead(conn)
		}
	}
}

// dead judges a connection that has lost its backend or its SNAT address:
// nobody hears of it any more but the client, that it has gone.
func (m *natModel) dead(conn *natConn) {
	c := conn.client
	m.put(m.any(), 1, packettest.Frame(m.answerSpec(conn)))
	if sent := m.settle(); len(sent) != 0 {
		m.test.Fatalf("answer to %v, whose backend is gone: %+v", c, sent)
	}
	if c.proto == packet.ProtoTCP && m.rng.IntN(2) == 0 {
		s := m.spec(c)
		s.TCPFlags, s.Seq = packet.TCPAck, 1001
		m.put(m.rss(c), c.ingress, packettest.Frame(s))
		for _, f := range m.settle() { // there is a limit to how many are told
			m.reached(c, f, read(m.test, f.frame).wire)
		}
	}
	m.forget(c)
}
