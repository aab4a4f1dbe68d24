package forward_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"weir/dataplane/acl"
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
)

// knownModel is a Forwarder that knows flows, and one that is made to forget that
// it does before every batch: whatever comes, they have to do the same.
type knownModel struct {
	t         *testing.T
	rng       *rand.Rand
	quick     *rig
	slow      *rig
	spaces    [2]*nat.Space
	now       flow.Tick
	sent      [][]byte // latest, for their answers
	generated uint32   // generations of backends
	shared    bool     // SNAT addresses are the box's own as well, which may be a client
}

func newKnownModel(t *testing.T, seed uint64) *knownModel {
	m := &knownModel{shared: seed%3 == 0, t: t, rng: rand.New(rand.NewPCG(seed, 7)), spaces: [2]*nat.Space{nat.NewSpace(), nat.NewSpace()}, generated: 1}
	m.quick, m.slow = newWorker(t, 1<<12, 0, m.spaces[0]), newWorker(t, 1<<12, 0, m.spaces[1])
	if seed%2 == 0 {
		m.quick.ReadBackendsAhead()
	}
	m.adopt(func(*snapshot.Spec) {})
	return m
}

// adopt has both adopt the NAT world after a change. It is one snapshot, since the
// world is not the same twice; each space has given out the same slots.
func (m *knownModel) adopt(change func(*snapshot.Spec)) {
	spec := natSpec(m.spaces[0], snatPort, snatPort)
	natSpec(m.spaces[1], snatPort, snatPort)
	for i := range spec.SNAT {
		spec.SNAT[i].Shared = m.shared
	}
	change(&spec)
	snap := must(snapshot.New(spec))
	m.quick.Adopt(snap)
	m.slow.Adopt(snap)
}

// change makes any part of the world another one.
func (m *knownModel) change() {
	m.generated++
	rng := m.rng
	m.adopt(func(spec *snapshot.Spec) {
		if rng.IntN(2) == 0 { // other neighbours, and the slots are still the same backends'
			one, other := backendOf(spec, vipDSR4), backendOf(spec, vipEth1)
			one.Rewrite, other.Rewrite = other.Rewrite, one.Rewrite
		}
		for i := range spec.Backends {
			switch b := &spec.Backends[i]; rng.IntN(12) {
			case 0:
				b.Generation = m.generated
			case 1:
				b.State = snapshot.Keeps
			case 2:
				b.State = snapshot.Removed
			}
		}
		for i := range spec.Services {
			switch s := &spec.Services[i]; rng.IntN(12) {
			case 0:
				s.ACL = acl.New(nil, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")})
			case 1:
				s.Limits.Packets = limit.Rate{PerSecond: 5, Burst: 5}
			}
		}
		for i := range spec.VIPs {
			// A Rewrite is made for packets of one family.
			vip, other := &spec.VIPs[i], &spec.VIPs[rng.IntN(len(spec.VIPs))]
			if rng.IntN(20) == 0 && packet.IsMapped(vip.Addr) == packet.IsMapped(other.Addr) {
				vip.Service = other.Service
			}
		}
		if rng.IntN(6) == 0 { // what was a client's address
			claim(spec, client4.Addr(), 0)
		}
		if rng.IntN(4) == 0 {
			spec.Interfaces[1].MTU = 600
		}
		if rng.IntN(8) == 0 {
			spec.Interfaces[0].MAC = otherMAC
		}
	})
}

// backendOf returns the first backend of a VIP's first service.
func backendOf(spec *snapshot.Spec, vip netip.Addr) *snapshot.Backend {
	i := slices.IndexFunc(spec.VIPs, func(v snapshot.VIPSpec) bool { return v.Addr == packet.Addr16(vip) })
	return &spec.Backends[spec.Services[spec.VIPs[i].Service].Members[0]]
}

// once tells whether what happens one time in n does.
func (m *knownModel) once(n int) bool { return m.rng.IntN(n) == 0 }

func (m *knownModel) payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

// request is a frame to one of the VIPs, of one of a few flows, seldom in order.
func (m *knownModel) request(ingress uint16) []byte {
	vips := []netip.Addr{
		vipDSR4, vipDSR6, vip4in4, vip6in4, vipNAT44, vipNAT46, vipNAT66, vipNAT64, vipKeep4, vipKeep6, vipPort44, vipSmall44,
		vipTag44, vipAll4, vipACL, vipPackets,
	}
	s := to(vips[m.rng.IntN(len(vips))])
	if m.once(3) {
		s = udpTo(s.Dst.Addr())
		s.NoUDPChecksum = s.Dst.Addr().Is4() && m.once(3)
	}
	const ack = packet.TCPAck
	client := s.Src.Addr()
	if m.once(4) { // a backend of mode keep is a client as well, or weir's box is
		client = [][]netip.Addr{
			{natBackendOf(vipKeep4).addr, snat4}, {natBackendOf(vipKeep6).addr, snat6},
		}[len(client.AsSlice())/16][m.rng.IntN(2)]
	}
	s.Src = netip.AddrPortFrom(client, uint16(2000+m.rng.IntN(3)))
	s.TCPFlags = []uint8{packet.TCPSyn, ack, ack, ack, ack, ack, ack | packet.TCPFin, packet.TCPRst}[m.rng.IntN(8)]
	if s.TCPFlags != packet.TCPSyn {
		s.Seq = 1
	}
	s.Payload, s.TCPOptions = m.payload(m.rng.IntN(30)), m.once(4)
	if m.once(20) {
		s.Payload = m.payload(1300 + m.rng.IntN(170))
	}
	if m.once(20) {
		s.TTL = uint8(1 + m.rng.IntN(2))
	}
	if m.once(15) {
		s.VLAN = 7
	}
	if m.once(15) {
		s.Padding = m.rng.IntN(20)
	}
	switch {
	case m.once(20):
		s.DstMAC = otherMAC
	case ingress == 1:
		s.DstMAC = eth1MAC
	}
	if m.once(20) {
		s.SrcMAC = backendMAC(uint32(m.rng.IntN(30)))
	}
	if m.once(20) && s.Dst.Addr().Is4() {
		s.IPOptions = 2
	} else if m.once(20) && s.Dst.Addr().Is6() {
		s.Extensions = []uint8{packet.ProtoHopByHop}
	}
	f := packettest.Frame(s)
	if m.once(20) && len(s.Payload) > 24 {
		f = packettest.Fragments(s, 24)[0]
	}
	if m.once(30) {
		f[12+m.rng.IntN(len(f)-12)] ^= 1 << m.rng.IntN(8)
	}
	return f
}

// answer is one to a frame that was sent, or nil.
func (m *knownModel) answer() []byte {
	if len(m.sent) == 0 {
		return nil
	}
	f := m.sent[m.rng.IntN(len(m.sent))]
	var p packet.Parsed
	if p.Decode(f); !p.Flow {
		return nil
	}
	const ack = packet.TCPAck
	back := p.Tuple.Reverse()
	s := packettest.Spec{
		SrcMAC: packet.Ethernet(f).Dst(), DstMAC: packet.Ethernet(f).Src(), VLAN: p.VLAN, Proto: back.Proto,
		Src:      netip.AddrPortFrom(packet.NetipAddr(back.Src), back.SrcPort),
		Dst:      netip.AddrPortFrom(packet.NetipAddr(back.Dst), back.DstPort),
		TCPFlags: []uint8{ack, ack, ack, ack, ack, packet.TCPSyn | ack, packet.TCPFin | ack, packet.TCPRst}[m.rng.IntN(8)],
		Payload:  m.payload(m.rng.IntN(20)),
	}
	if m.once(15) {
		s.Payload = m.payload(500 + m.rng.IntN(900))
	}
	if s.Proto == packet.ProtoUDP && s.Src.Addr().Is4() {
		s.NoUDPChecksum = m.once(3)
	}
	if m.once(20) {
		s.TTL = uint8(1 + m.rng.IntN(2))
	}
	if m.once(15) && s.Src.Addr().Is4() {
		s.IPOptions = 2
	}
	if m.once(15) {
		s.Padding = m.rng.IntN(20)
	}
	return packettest.Frame(s)
}

// decide has both decide about frames, by f, and about what they pass to
// themselves because of it.
func (m *knownModel) decide(in [][]byte, f func(*rig, []queue.Frame, []forward.Verdict)) {
	m.t.Helper()
	quick, got := batch(in...)
	slow, want := batch(in...)
	m.slow.SetPeers([]uint16{0})
	f(m.quick, quick, got)
	f(m.slow, slow, want)
	for i := range in {
		if got[i] != want[i] {
			m.t.Fatalf("%+v (%v), want %+v (%v): %x", got[i], got[i].Reason, want[i], want[i].Reason, in[i])
		}
		if got[i].Action != forward.Send {
			continue
		}
		if !bytes.Equal(quick[i].Bytes(), slow[i].Bytes()) {
			m.t.Fatalf("%x, want\n%x of\n%x", quick[i].Bytes(), slow[i].Bytes(), in[i])
		}
		if m.sent = append(m.sent, bytes.Clone(quick[i].Bytes())); len(m.sent) > 200 {
			m.sent = m.sent[100:]
		}
	}
	passed, also := m.quick.passed, m.slow.passed
	m.quick.passed, m.slow.passed = nil, nil
	if !reflect.DeepEqual(passed, also) {
		m.t.Fatalf("passed %d frames, want %d", len(passed), len(also))
	}
	for _, p := range passed {
		m.decide([][]byte{p.frame}, func(r *rig, frames []queue.Frame, verdicts []forward.Verdict) {
			r.Decide([]handover.Meta{p.meta}, m.now, frames, verdicts)
		})
	}
	if quick, slow := m.quick.report(), m.slow.report(); !reflect.DeepEqual(quick, slow) {
		m.t.Fatalf("counters\n%+v, want\n%+v", quick, slow)
	}
	if m.quick.NATUse() != m.slow.NATUse() || m.quick.table.Len() != m.slow.table.Len() {
		m.t.Fatalf("%+v and %d flows, want %+v and %d", m.quick.NATUse(), m.quick.table.Len(), m.slow.NATUse(), m.slow.table.Len())
	}
}

// Whether a flow is known makes no difference but to the time that it takes.
func TestKnownFlowsAreTreatedLikeOthers(t *testing.T) {
	knew := 0 // flows in the end
	for seed := range uint64(12) {
		m := newKnownModel(t, seed)
		var known []packet.Tuple
		for range 300 {
			if m.once(25) {
				m.change()
			}
			m.now += flow.Tick(m.rng.IntN(4))
			if m.once(100) {
				m.now += flow.Tick(m.rng.IntN(6000))
			}
			ingress := uint16(m.rng.IntN(2))
			var in [][]byte
			for range 1 + m.rng.IntN(forward.BatchSize) {
				var f []byte
				if m.once(3) {
					f = m.answer()
				}
				if f == nil {
					f = m.request(ingress)
				}
				in = append(in, f)
			}
			m.decide(in, func(r *rig, frames []queue.Frame, verdicts []forward.Verdict) {
				r.Process(ingress, m.now, frames, verdicts)
			})
		}
		m.quick.table.Range(0, m.quick.table.Sets(), m.now, func(e *flow.Entry, _ flow.State, _ time.Duration) {
			known = append(known, e.Tuple)
		})
		for _, tuple := range known {
			if m.quick.Knows(tuple) {
				knew++
			}
		}
	}
	if knew < 100 {
		t.Errorf("%d flows were known in the end: not all is tested", knew)
	}
}
