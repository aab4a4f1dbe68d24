package forward_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// natBench is a family of VIPs and one of backends.
type natBench struct {
	name       string
	vip6, bck6 bool
	mode       snapshot.Mode
}

func natBenches() []natBench {
	return []natBench{
		{"nat44", false, false, snapshot.NAT}, {"nat66", true, true, snapshot.NAT},
		{"nat46", false, true, snapshot.NAT}, {"nat64", true, false, snapshot.NAT},
		{"keep4", false, false, snapshot.NATKeep}, {"keep6", true, true, snapshot.NATKeep},
	}
}

const (
	benchBackends = 8
	benchSNATs    = 16 // so that 1 Mi flows take an eighth of the ports
)

// benchAddr is an address of a backend or a SNAT address, by its last 16 bits.
func benchAddr(v6 bool, low uint16) netip.Addr {
	if v6 {
		a := netip.MustParseAddr("fd00::").As16()
		binary.BigEndian.PutUint16(a[14:], low)
		return netip.AddrFrom16(a)
	}
	a := [4]byte{10, 1}
	binary.BigEndian.PutUint16(a[2:], low)
	return netip.AddrFrom4(a)
}

// world has one service.
func (n natBench) world(space *nat.Space) *snapshot.Snapshot {
	return n.worldOf(space, benchBackends, benchSNATs)
}

func (n natBench) worldOf(space *nat.Space, backends uint32, snats int) *snapshot.Snapshot {
	spec := snapshot.Spec{Interfaces: interfaces(), Services: []snapshot.Service{{Mode: n.mode}}}
	svc := &spec.Services[0]
	for slot := range backends {
		link := rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(slot), MTU: 1500}
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: must(rewrite.NAT(link, n.bck6)), State: snapshot.Active, Generation: 1,
			Addr: benchAddr(n.bck6, uint16(slot+1)).As16(),
		})
		svc.Members = append(svc.Members, slot)
	}
	for i := range tableSize {
		svc.Table = append(svc.Table, uint16(i%int(backends)))
	}
	for i := range snats {
		spec.SNAT = append(spec.SNAT, snatOf(space, benchAddr(n.bck6, uint16(0x100+i)), 1024, 65535))
	}
	claim(&spec, benchVIP(n.vip6, 0), 0)
	return must(snapshot.New(spec))
}

// stream makes the clients' packets.
func (n natBench) stream(flows int) *stream {
	return newStream(benchVIP(n.vip6, 0), flows, 1).zeroSum()
}

// setFlags changes the TCP flags, and the sequence number to that of the first
// segment after the opening if it is none.
func (s *stream) setFlags(flags uint8) {
	tcp := packet.TCP(s.header[len(s.header)-packet.TCPMinLen:])
	tcp.SetFlags(flags)
	if tcp.SetSeq(1000); flags&packet.TCPSyn == 0 {
		tcp.SetSeq(1001)
	}
}

// answerKey is what tells a flow's answers: the last bits of both addresses, and
// the ports.
type answerKey struct{ src, dst, srcPort, dstPort uint16 }

// answerStream makes the answers of many flows out of one, round and round, as
// stream does.
type answerStream struct {
	header []byte
	v6     bool
	keys   []answerKey
	next   int
}

func (s *answerStream) fill(frames []queue.Frame) {
	for i := range frames {
		f := &frames[i]
		f.Start, f.End = queue.Headroom, queue.Headroom+uint32(len(s.header))
		b := f.Buf[f.Start:f.End]
		copy(b, s.header)
		k := &s.keys[s.next]
		l4 := 14 + 20
		if s.v6 {
			l4 = 14 + 40
			binary.BigEndian.PutUint16(b[14+22:], k.src)
			binary.BigEndian.PutUint16(b[14+38:], k.dst)
		} else {
			binary.BigEndian.PutUint16(b[14+4:], ^packet.Fold(uint32(k.src)+uint32(k.dst)))
			binary.BigEndian.PutUint16(b[14+14:], k.src)
			binary.BigEndian.PutUint16(b[14+18:], k.dst)
		}
		binary.BigEndian.PutUint16(b[l4:], k.srcPort)
		binary.BigEndian.PutUint16(b[l4+2:], k.dstPort)
		if s.next++; s.next == len(s.keys) {
			s.next = 0
		}
	}
}

// open opens all flows of a stream, makes them trusted, and returns what makes
// their answers. A few flows in a thousand may find their bucket full.
func (n natBench) open(b *testing.B, r *rig, s *stream) *answerStream {
	b.Helper()
	src, dst := benchAddr(n.bck6, 1), benchAddr(n.bck6, 2)
	if n.mode == snapshot.NATKeep {
		dst = client4.Addr()
		if n.bck6 {
			dst = client6.Addr()
		}
	}
	answers := &answerStream{v6: n.bck6, header: packettest.Frame(packettest.Spec{
		SrcMAC: otherMAC, DstMAC: eth1MAC, Src: netip.AddrPortFrom(src, 80), Dst: netip.AddrPortFrom(dst, 80),
		Proto: packet.ProtoTCP, TCPFlags: packet.TCPAck,
	})}
	l3 := packet.IPv4(answers.header[14:])
	if !n.bck6 {
		// As zeroSum: the identification makes up for the low bits.
		src, dst := l3.Src(), l3.Dst()
		l3.SetSrc([4]byte{src[0], src[1]})
		l3.SetDst([4]byte{dst[0], dst[1]})
		l3.SetID(0xffff)
		l3.SetChecksum(l3.ComputeChecksum())
	}
	frames, verdicts := benchFrames()
	for _, flags := range []uint8{packet.TCPSyn, packet.TCPAck} {
		s.setFlags(flags)
		s.next = 0
		for left := int(s.flows); left > 0; left -= len(frames) {
			batch := frames[:min(left, len(frames))]
			s.fill(batch)
			r.Process(0, 0, batch, verdicts)
			for i := range batch {
				if verdicts[i].Action == forward.Send && verdicts[i].Egress == 1 && flags == packet.TCPAck {
					answers.keys = append(answers.keys, keyOfAnswer(batch[i].Bytes(), n.bck6))
				}
			}
		}
	}
	s.next = 0
	if n := int(s.flows) - len(answers.keys); n > int(s.flows/100) {
		b.Fatalf("%d of %d flows did not fit, so not all packets are hits", n, s.flows)
	}
	return answers
}

// keyOfAnswer returns how the answer to a frame that a backend was sent looks.
func keyOfAnswer(f []byte, v6 bool) answerKey {
	src, dst, l4 := 14+14, 14+18, 14+20
	if v6 {
		src, dst, l4 = 14+22, 14+38, 14+40
	}
	word := func(at int) uint16 { return binary.BigEndian.Uint16(f[at:]) }
	return answerKey{src: word(dst), dst: word(src), srcPort: word(l4 + 2), dstPort: word(l4)}
}

// BenchmarkNAT translates packets of known flows, towards the backends and
// back, round and round, as BenchmarkHit forwards them.
func BenchmarkNAT(b *testing.B) {
	for _, flows := range []int{1, 1 << 10, 1 << 16, 1 << 20} {
		for _, n := range natBenches() {
			var r *rig
			var s *stream
			var answers *answerStream
			prepared := func(sub *testing.B) {
				sub.Helper()
				if r == nil {
					r = newRigIn(b, 4*flows, n.world) // lasts for both
					s = n.stream(flows)
					answers = n.open(sub, r, s)
				}
				if answers == nil {
					sub.Skip("the flows could not be opened")
				}
			}
			b.Run(fmt.Sprintf("%s/flows=%d", n.name, flows), func(b *testing.B) { prepared(b); runAll(b, r, s, 0) })
			b.Run(fmt.Sprintf("%s-answer/flows=%d", n.name, flows), func(b *testing.B) { prepared(b); runAll(b, r, answers, 1) })
			if r != nil {
				_ = r.table.Close()
			}
		}
	}
}

// BenchmarkBackendsAsClients is BenchmarkHit for clients that are backends of mode keep
// as well, so that each packet could be an answer.
func BenchmarkBackendsAsClients(b *testing.B) {
	for _, flows := range []int{1 << 10, 1 << 16, 1 << 20} {
		b.Run(fmt.Sprintf("dsr4/flows=%d", flows), func(b *testing.B) {
			spec := benchSpec(benchModes()[0], 1)
			s := newStream(benchVIP(false, 0), flows, 1).zeroSum()
			service := snapshot.Service{ID: 1, Mode: snapshot.NATKeep, Table: []uint16{0}}
			rw := must(rewrite.NAT(rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(9), MTU: 1500}, false))
			client := packet.IPv4(s.header[14:]).Src()
			for n := range 1 + flows>>16 {
				binary.BigEndian.PutUint16(client[2:], uint16(n))
				service.Members = append(service.Members, uint32(len(spec.Backends)))
				spec.Backends = append(spec.Backends, snapshot.Backend{
					Rewrite: rw, State: snapshot.Active, Generation: 1, Service: 1, Addr: packet.Mapped(client),
				})
			}
			spec.Services = append(spec.Services, service)
			claim(&spec, vipKeep4, 1)
			r := newRig(b, 4*flows, must(snapshot.New(spec)))
			defer r.table.Close()
			for range 2 {
				fillTable(r, s, flows)
				s.next = 0
			}
			runAll(b, r, s, 0)
		})
	}
}

// filler makes packets.
type filler interface{ fill([]queue.Frame) }

// runAll is run for packets that come in on any interface; one in 100 may be
// dropped, as of flows that did not fit.
func runAll(b *testing.B, r *rig, s filler, ingress uint16) {
	b.Helper()
	frames, verdicts := benchFrames()
	sum := func() (n uint64) {
		for _, d := range r.counters.Drops {
			n += d
		}
		return n
	}
	drops := sum()
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(frames) {
		n := min(left, len(frames))
		s.fill(frames[:n])
		r.Process(ingress, 0, frames[:n], verdicts)
		if r.quiet != nil {
			r.quiet.decide(r, 0, verdicts)
		}
	}
	b.StopTimer()
	if n := sum() - drops; n > uint64(b.N)/100 {
		b.Fatalf("%d of %d packets dropped: %v", n, b.N, r.counters.Drops)
	}
}

// BenchmarkNATMiss opens a flow by each packet, in a table that is full: another
// flow has to go, and its port with it. The client's address is another one with
// every packet, too.
func BenchmarkNATMiss(b *testing.B) {
	for _, n := range natBenches() {
		if n.mode == snapshot.NATKeep {
			continue // the index may have no room, and there is no other port
		}
		r := newRigIn(b, 1<<16, n.world)
		s := n.stream(1 << 24)
		s.setFlags(packet.TCPSyn)
		fillTable(r, s, 1<<18)
		b.Run(n.name, func(b *testing.B) { runAll(b, r, s, 0) })
		_ = r.table.Close()
	}
}

// BenchmarkNATExhausted opens a flow by each packet where every port is in use:
// by a flood, so that one is taken over, or by flows in use, so that the new one
// is refused.
func BenchmarkNATExhausted(b *testing.B) {
	for _, c := range []struct {
		name      string
		addresses int
		trusted   bool
		fill      int // packets
	}{{"flood/addresses=1", 1, false, 3 << 16}, {"flood/addresses=4", 4, false, 12 << 16}, {"in-use/addresses=1", 1, true, 5 << 14}} {
		n := natBenches()[0]
		r := newRigIn(b, 1<<17*c.addresses, func(s *nat.Space) *snapshot.Snapshot { return n.worldOf(s, 1, c.addresses) })
		s := n.stream(1 << 24)
		frames, verdicts := benchFrames()
		now := flow.Tick(0)
		turn := func(flags uint8) {
			s.setFlags(flags)
			s.fill(frames)
			r.Process(0, now, frames, verdicts)
		}
		for at := 0; at < c.fill; at += len(frames) {
			if turn(packet.TCPSyn); c.trusted {
				s.next -= uint32(len(frames))
				turn(packet.TCPAck)
			}
			now = flow.Tick(at >> 12)
		}
		s.setFlags(packet.TCPSyn)
		before := r.counters.NATTakenOver + r.counters.Drops[stats.PortsExhausted]
		total := uint64(0)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for left := b.N; left > 0; left -= len(frames) {
				n := min(left, len(frames))
				s.fill(frames[:n])
				r.Process(0, now, frames[:n], verdicts)
				if total += uint64(n); total&(1<<12-1) == 0 { // 16 ticks a second, 65536 packets
					now++
				}
			}
		})
		if n := r.counters.NATTakenOver + r.counters.Drops[stats.PortsExhausted] - before; n < total*9/10 {
			b.Errorf("%s: of %d flows only %d found no free port", c.name, total, n)
		}
		_ = r.table.Close()
	}
}

func fillTable(r *rig, s *stream, packets int) {
	frames, verdicts := benchFrames()
	for left := packets; left > 0; left -= len(frames) {
		s.fill(frames)
		r.Process(0, 0, frames, verdicts)
	}
}

// BenchmarkFlood takes openings of flows that are never seen again: into a table
// full of such, into one full of flows in use, and with a limit on new flows.
func BenchmarkFlood(b *testing.B) {
	for _, m := range benchModes() {
		for _, c := range []struct {
			name    string
			trusted bool
			limit   limit.Rate
		}{
			{"untrusted", false, limit.Rate{}}, {"trusted", true, limit.Rate{}}, {"limited", true, limit.Rate{PerSecond: 1}},
		} {
			spec := benchSpec(m, 1)
			r := newRig(b, 1<<16, must(snapshot.New(spec)))
			s := newStream(benchVIP(m.v6, 0), 1<<24, 1).zeroSum()
			if c.trusted {
				// In small parts: between opening and second packet, few
				// others may push a flow out.
				for at := uint32(0); at < 1<<18; at += 64 {
					for _, flags := range []uint8{packet.TCPSyn, packet.TCPAck} {
						s.setFlags(flags)
						s.next = at
						fillTable(r, s, 64)
					}
				}
			}
			spec.NewFlows = c.limit
			r.Adopt(must(snapshot.New(spec)))
			s.setFlags(packet.TCPSyn)
			fillTable(r, s, 1<<18)
			b.Run(m.name+"/"+c.name, func(b *testing.B) { run(b, r, s, stats.ReasonNone) })
			_ = r.table.Close()
		}
	}
}

// fragmentStream makes datagrams of two fragments, one after the other.
type fragmentStream struct {
	frames [2][]byte
	sums   [2]uint32 // of the IPv4 headers without their identification
	v6     bool
	next   uint32
}

func newFragmentStream(vip netip.Addr, reversed bool) *fragmentStream {
	all := packettest.Fragments(with(udpTo(vip), func(s *packettest.Spec) { s.Payload, s.ID = make([]byte, 56), 0 }), 32)
	s := &fragmentStream{v6: vip.Is6()}
	for i := range s.frames {
		f := all[i]
		if reversed {
			f = all[1-i]
		}
		s.frames[i] = f
		s.sums[i] = uint32(^binary.BigEndian.Uint16(f[14+10:]))
	}
	return s
}

func (s *fragmentStream) fill(frames []queue.Frame) {
	for i := range frames {
		f := &frames[i]
		which, id := s.next%2, s.next/2
		frame := s.frames[which]
		f.Start, f.End = queue.Headroom, queue.Headroom+uint32(len(frame))
		b := f.Buf[f.Start:f.End]
		copy(b, frame)
		if s.v6 {
			binary.BigEndian.PutUint32(b[14+40+4:], id)
		} else {
			binary.BigEndian.PutUint16(b[14+4:], uint16(id))
			binary.BigEndian.PutUint16(b[14+10:], ^packet.Fold(s.sums[which]+id&0xffff))
		}
		s.next++
	}
}

// BenchmarkFragments forwards fragments of datagrams that have two, of one flow.
func BenchmarkFragments(b *testing.B) {
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{{"dsr4", vipDSR4}, {"dsr6", vipDSR6}, {"nat44", vipNAT44}, {"nat66", vipNAT66}, {"nat46", vipNAT46}, {"nat64", vipNAT64}} {
		for name, reversed := range map[string]bool{"in order": false, "reversed": true} {
			b.Run(v.name+"/"+name, func(b *testing.B) {
				r := newRigIn(b, 64, natWorld)
				r.quiet = newQuiet()
				runAll(b, r, newFragmentStream(v.vip, reversed), 0)
			})
		}
	}
}

// BenchmarkSweepNAT lets flows go, with all that NAT keeps of them: per flow.
func BenchmarkSweepNAT(b *testing.B) {
	n := natBenches()[0]
	const flows = 1 << 16
	r := newRigIn(b, 4*flows, n.world)
	s := n.stream(flows)
	now := flow.Tick(0)
	frames, verdicts := benchFrames()
	s.setFlags(packet.TCPSyn)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += flows {
		b.StopTimer()
		for range flows / len(frames) {
			s.fill(frames)
			r.Process(0, now, frames, verdicts)
		}
		b.StartTimer()
		now += later()
		r.Sweep(now, r.table.Sets())
	}
	b.StopTimer()
	if r.table.Len() != 0 {
		b.Fatalf("%d flows are left", r.table.Len())
	}
}
