package forward_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

var (
	clientMAC = packet.MAC{0x02, 0, 0, 0, 0, 0x01}
	eth0MAC   = packet.MAC{0x02, 0, 0, 0, 1, 0x00}
	eth1MAC   = packet.MAC{0x02, 0, 0, 0, 1, 0x01}
	otherMAC  = packet.MAC{0x02, 0, 0, 0, 9, 0x09}

	client4 = netip.MustParseAddrPort("192.0.2.1:1234")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:1234")
)

// backendMAC names a backend slot on the link.
func backendMAC(slot uint32) packet.MAC {
	return packet.MAC{0x02, 0, 0, 2, byte(slot >> 8), byte(slot)}
}

// The VIPs of the fixed world that goldens, fuzzing and allocation tests share.
// Each one is served on tcp/80 and udp/53, by one backend, in the way that its
// name says.
var (
	vipDSR4     = netip.MustParseAddr("203.0.113.10")
	vip4in4     = netip.MustParseAddr("203.0.113.11")
	vip4in6     = netip.MustParseAddr("203.0.113.12")
	vipTagged   = netip.MustParseAddr("203.0.113.13") // DSR, on VLAN 7
	vipEth1     = netip.MustParseAddr("203.0.113.14") // DSR, by eth1
	vipSpread4  = netip.MustParseAddr("203.0.113.15") // as vip4in4, with a spread source
	vipEmpty    = netip.MustParseAddr("203.0.113.20") // no backend is up
	vipNoHop    = netip.MustParseAddr("203.0.113.21") // no next hop is resolved
	vipDSR6     = netip.MustParseAddr("2001:db8:1::10")
	vip6in6     = netip.MustParseAddr("2001:db8:1::11")
	vip6in4     = netip.MustParseAddr("2001:db8:1::12")
	vipSpread6  = netip.MustParseAddr("2001:db8:1::15") // as vip6in6, with a spread source
	vipTagged6  = netip.MustParseAddr("2001:db8:1::13") // 6in6, on VLAN 7
	notVIP4     = netip.MustParseAddr("203.0.113.99")
	notVIP6     = netip.MustParseAddr("2001:db8:1::99")
	mappedDSR4  = netip.MustParseAddr("::ffff:203.0.113.10")
	weirTunnel4 = netip.MustParseAddr("10.0.0.2")
	weirTunnel6 = netip.MustParseAddr("fd00::2")
)

// tunnelTo returns a tunnel to a backend slot.
func tunnelTo(slot uint32, ipv6 bool) rewrite.Tunnel {
	if ipv6 {
		dst := netip.MustParseAddr("fd00::1:0").As16()
		dst[15] = byte(slot)
		return rewrite.Tunnel{Source: weirTunnel6, Destination: netip.AddrFrom16(dst)}
	}
	return rewrite.Tunnel{Source: weirTunnel4, Destination: netip.AddrFrom4([4]byte{10, 0, 1, byte(slot)})}
}

func interfaces() []snapshot.Interface {
	return []snapshot.Interface{{Name: "eth0", MAC: eth0MAC, MTU: 1500}, {Name: "eth1", MAC: eth1MAC, MTU: 1500}}
}

// must is for fixtures: an error there is a mistake in the test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Addresses of a node of weir, which checks backends from there.
var (
	node4 = netip.MustParseAddr("10.0.0.3")
	node6 = netip.MustParseAddr("2001:db8::3")
)

// worldSnapshot is the fixed world.
func worldSnapshot() *snapshot.Snapshot { return must(snapshot.New(worldSpec())) }

// worldSpec is what the fixed world is made of.
func worldSpec() snapshot.Spec {
	spec := snapshot.Spec{Generation: 1, Interfaces: interfaces(), Nodes: [][16]byte{node4.As16(), node6.As16()}}
	add := func(vip netip.Addr, make func(slot uint32) (rewrite.Rewrite, error)) {
		service, slot := uint32(len(spec.Services)), uint32(len(spec.Backends))
		spec.Services = append(spec.Services, snapshot.Service{
			Name: vip.String(), ID: service, Table: []uint16{0}, Members: []uint32{slot},
		})
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: must(make(slot)), State: snapshot.Active, Generation: 1, Service: service,
		})
		claim(&spec, vip, service)
	}
	link := func(slot uint32) rewrite.Link {
		return rewrite.Link{Src: eth0MAC, Dst: backendMAC(slot), MTU: 1500}
	}
	tagged := func(slot uint32) rewrite.Link {
		l := link(slot)
		l.VLAN = 7
		return l
	}
	spread := func(t rewrite.Tunnel) rewrite.Tunnel {
		t.Spread = true
		return t
	}
	add(vipDSR4, func(s uint32) (rewrite.Rewrite, error) { return rewrite.DSR(link(s), false) })
	add(vipDSR6, func(s uint32) (rewrite.Rewrite, error) { return rewrite.DSR(link(s), true) })
	add(vip4in4, func(s uint32) (rewrite.Rewrite, error) { return rewrite.IPIP(link(s), false, tunnelTo(s, false)) })
	add(vip4in6, func(s uint32) (rewrite.Rewrite, error) { return rewrite.IPIP(link(s), false, tunnelTo(s, true)) })
	add(vip6in6, func(s uint32) (rewrite.Rewrite, error) { return rewrite.IPIP(link(s), true, tunnelTo(s, true)) })
	add(vip6in4, func(s uint32) (rewrite.Rewrite, error) { return rewrite.IPIP(link(s), true, tunnelTo(s, false)) })
	add(vipTagged, func(s uint32) (rewrite.Rewrite, error) { return rewrite.DSR(tagged(s), false) })
	add(vipTagged6, func(s uint32) (rewrite.Rewrite, error) {
		return rewrite.IPIP(tagged(s), true, tunnelTo(s, true))
	})
	add(vipEth1, func(s uint32) (rewrite.Rewrite, error) {
		return rewrite.DSR(rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(s), MTU: 9000}, false)
	})
	add(vipSpread4, func(s uint32) (rewrite.Rewrite, error) {
		return rewrite.IPIP(link(s), false, spread(tunnelTo(s, false)))
	})
	add(vipSpread6, func(s uint32) (rewrite.Rewrite, error) {
		return rewrite.IPIP(link(s), true, spread(tunnelTo(s, true)))
	})
	for vip, why := range map[netip.Addr]stats.Reason{vipEmpty: stats.NoBackend, vipNoHop: stats.Unresolved} {
		service := uint32(len(spec.Services))
		claim(&spec, vip, service)
		spec.Services = append(spec.Services, snapshot.Service{Name: vip.String(), ID: service, Empty: why})
	}
	return spec
}

// claim gives tcp/80 and udp/53 of a VIP to a service.
func claim(spec *snapshot.Spec, vip netip.Addr, service uint32) {
	spec.VIPs = append(spec.VIPs,
		snapshot.VIPSpec{Addr: vip.As16(), Proto: packet.ProtoTCP, Lo: 80, Hi: 80, Service: service},
		snapshot.VIPSpec{Addr: vip.As16(), Proto: packet.ProtoUDP, Lo: 53, Hi: 53, Service: service})
}

// pool is a service whose backends come and go. Its backend number i has slot
// i; its name is stable, so that Maglev sees the same backend again.
type pool struct {
	affinity snapshot.Affinity
	backends []member
	service  uint32 // index the pool's service has; others before it are empty
	owner    uint32 // index of the service that the VIP belongs to, usually service
	nodes    []int  // other nodes that have a share of the flows
}

type member struct {
	state      snapshot.BackendState
	weight     uint32
	generation uint32
}

// newPool returns a pool of n active backends.
func newPool(n int) *pool {
	p := &pool{}
	for range n {
		p.backends = append(p.backends, member{snapshot.Active, 100, 1})
	}
	return p
}

// tableSize is a small prime: the tests have few backends.
const tableSize = 1021

// snapshot compiles the pool, as the control plane does.
func (p *pool) snapshot() *snapshot.Snapshot {
	spec := snapshot.Spec{Interfaces: interfaces()}
	for i := range max(p.service, p.owner) + 1 {
		spec.Services = append(spec.Services, snapshot.Service{ID: i, Empty: stats.NoBackend})
	}
	svc := &spec.Services[p.service]
	svc.Affinity, svc.AffinityBits = p.affinity, 32
	var candidates []maglev.Backend
	for i, m := range p.backends {
		slot := uint32(i)
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: must(rewrite.DSR(rewrite.Link{Src: eth0MAC, Dst: backendMAC(slot), MTU: 1500}, false)),
			State:   m.state, Generation: m.generation, Service: p.service,
		})
		if m.state == snapshot.Active {
			svc.Members = append(svc.Members, slot)
			candidates = append(candidates, maglev.Backend{Name: fmt.Sprint("backend ", i), Weight: m.weight})
		}
	}
	svc.Table = must(maglev.Build(tableSize, candidates))
	claim(&spec, vipDSR4, p.owner)
	if len(p.nodes) > 0 {
		spec.Spreads = []snapshot.Spread{spreadOver(vipDSR4, 0, p.nodes)}
	}
	return must(snapshot.New(spec))
}

// spreadOver shares a VIP out to this node, which is number self, and others.
func spreadOver(vip netip.Addr, self int, others []int) snapshot.Spread {
	spread := snapshot.Spread{Addr: vip.As16()}
	var names []maglev.Backend
	for _, n := range append([]int{self}, others...) {
		m := snapshot.SpreadMember{Self: n == self}
		if !m.Self {
			m.Rewrite = must(rewrite.DSR(rewrite.Link{Src: eth0MAC, Dst: nodeMAC(n), MTU: 1500}, vip.Is6()))
		}
		spread.Members = append(spread.Members, m)
		names = append(names, maglev.Backend{Name: fmt.Sprint("node ", n), Weight: 1})
	}
	spread.Table = must(maglev.Build(tableSize, names))
	return spread
}

// rig is a Forwarder with its counters and table in the test's hands.
type rig struct {
	*forward.Forwarder
	counters stats.Counters
	table    *flow.Table
	passed   []passedFrame
	quiet    *quiet // nil: what is passed goes to passed
	learned  []learnedMTU
	claimed  []toldClaim
}

// report returns all counters, as a worker's Status has them.
func (b *rig) report() *stats.Counters {
	c := b.counters
	c.Sent = make([]stats.Traffic, len(c.Backends))
	b.Sent(0, c.Sent)
	return &c
}

// toldClaim is what the control plane is told that another station has said.
type toldClaim struct {
	addr  netip.Addr
	by    packet.MAC
	probe bool
}

// passedFrame is a frame that went to a worker, this one perhaps.
type passedFrame struct {
	peer  int
	frame []byte
	meta  handover.Meta
}

// sentFrame is a frame that leaves.
type sentFrame struct {
	egress uint16
	frame  []byte
}

type learnedMTU struct {
	backend netip.Addr
	mtu     int
}

// Pass implements forward.Outbox.
func (b *rig) Pass(peer int, frame []byte, meta handover.Meta) {
	if b.quiet != nil {
		b.quiet.push(frame, meta)
		return
	}
	b.passed = append(b.passed, passedFrame{peer, bytes.Clone(frame), meta})
}

// Learn implements forward.Outbox.
func (b *rig) Learn(backend [16]byte, mtu int) {
	if b.quiet != nil {
		return
	}
	b.learned = append(b.learned, learnedMTU{packet.NetipAddr(backend), mtu})
}

// Claim implements forward.Outbox.
func (b *rig) Claim(addr [16]byte, by packet.MAC, probe bool) {
	if b.quiet != nil {
		return
	}
	b.claimed = append(b.claimed, toldClaim{packet.NetipAddr(addr), by, probe})
}

func newRig(tb testing.TB, entries int, s *snapshot.Snapshot) *rig {
	return newRigIn(tb, entries, func(*nat.Space) *snapshot.Snapshot { return s })
}

// newRigIn is newRig for a world with SNAT addresses.
func newRigIn(tb testing.TB, entries int, world func(*nat.Space) *snapshot.Snapshot) *rig {
	space := nat.NewSpace()
	b := newWorker(tb, entries, 0, space)
	b.Adopt(world(space))
	return b
}

// newWorker makes a Forwarder that may be one of several.
func newWorker(tb testing.TB, entries int, number uint16, space *nat.Space) *rig {
	b := &rig{}
	var err error
	if b.table, err = flow.New(entries, flow.DefaultTimeouts()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.table.Close() })
	b.Forwarder = forward.New(forward.Config{
		Worker: number, Flows: b.table, Space: space, Counters: &b.counters, Outbox: b,
	})
	return b
}

// all processes a single frame, and in turn those that the Forwarder passes to
// itself because of it. It returns what is sent, and the verdict on the frame.
func (b *rig) all(ingress uint16, frame []byte, now flow.Tick) ([]sentFrame, forward.Verdict) {
	var sent []sentFrame
	note := func(frame queue.Frame, v forward.Verdict) {
		if v.Action == forward.Send {
			sent = append(sent, sentFrame{v.Egress, bytes.Clone(frame.Bytes())})
		}
	}
	frames, verdicts := batch(frame)
	b.Process(ingress, now, frames, verdicts)
	first := verdicts[0]
	note(frames[0], first)
	for len(b.passed) > 0 {
		next := b.passed[0]
		b.passed = b.passed[1:]
		frames, verdicts = batch(next.frame)
		b.Decide([]handover.Meta{next.meta}, now, frames, verdicts)
		note(frames[0], verdicts[0])
	}
	return sent, first
}

// one processes a single frame that came in on eth0.
func (b *rig) one(frame []byte, now flow.Tick) (queue.Frame, forward.Verdict) {
	frames := []queue.Frame{buffer(frame)}
	verdicts := make([]forward.Verdict, 1)
	b.Process(0, now, frames, verdicts)
	return frames[0], verdicts[0]
}

// slot processes a single frame and returns the backend slot it was sent to,
// snapshot.None if it was dropped, and otherNode and its number for another node.
func (b *rig) slot(frame []byte, now flow.Tick) uint32 {
	f, v := b.one(frame, now)
	if v.Action != forward.Send {
		return snapshot.None
	}
	mac := packet.MAC(f.Bytes())
	return uint32(mac[3]-2)*otherNode | uint32(mac[4])<<8 | uint32(mac[5])
}

// otherNode marks what rig.slot returns for a node.
const otherNode = 1 << 16

// buffer puts a frame into a buffer, as a driver does.
func buffer(frame []byte) queue.Frame {
	buf := bytes.Repeat([]byte{0xee}, max(2048, queue.Headroom+len(frame)))
	n := copy(buf[queue.Headroom:], frame)
	return queue.Frame{Buf: buf, Start: queue.Headroom, End: uint32(queue.Headroom + n)}
}

// to describes a TCP packet, SYN, from the client to port 80 of an address. Of
// the address's family is the client.
func to(dst netip.Addr) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: clientMAC, DstMAC: eth0MAC, Src: client4, Dst: netip.AddrPortFrom(dst, 80),
		Proto: packet.ProtoTCP, TCPFlags: packet.TCPSyn, ID: 0x4711,
	}
	if dst.Is6() {
		s.Src = client6
	}
	return s
}

// udpTo describes a UDP packet to port 53.
func udpTo(dst netip.Addr) packettest.Spec {
	s := to(dst)
	s.Proto, s.Dst, s.Payload = packet.ProtoUDP, netip.AddrPortFrom(dst, 53), []byte("question")
	return s
}

// with changes a description.
func with(s packettest.Spec, change func(*packettest.Spec)) packettest.Spec {
	change(&s)
	return s
}

// client4b is another flow of the same client.
func client4b() netip.AddrPort { return netip.AddrPortFrom(client4.Addr(), 4321) }

type worldTunnel struct {
	name     string
	vip      netip.Addr
	slot     uint32 // of its backend
	overhead int
}

// worldTunnels returns the VIP for each pair of families.
func worldTunnels() []worldTunnel {
	return []worldTunnel{
		{"4in4", vip4in4, 2, 20}, {"4in6", vip4in6, 3, 40}, {"6in6", vip6in6, 4, 40}, {"6in4", vip6in4, 5, 20},
	}
}

// batch puts frames into buffers, with room for their verdicts.
func batch(in ...[]byte) ([]queue.Frame, []forward.Verdict) {
	frames := make([]queue.Frame, len(in))
	for i := range in {
		frames[i] = buffer(in[i])
	}
	return frames, make([]forward.Verdict, len(in))
}
