package forward_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// All benchmarks report ns per packet: b.N counts packets, which go in batches
// of forward.BatchSize.
//
// Process rewrites frames, so each batch is put back before the next one: the
// headers alone are copied into the buffers again, and the flow's number is
// written into the source address and port. That is part of every result below;
// BenchmarkRestore says how much. Payloads are never touched, neither by this
// nor by Process. Buffers are few and stay in the cache, as with a NIC that
// writes into it.

// stream makes the packets of many flows out of one, round and round.
type stream struct {
	header []byte // of Ethernet, IP and TCP
	v6     bool
	flows  uint32
	vips   uint32 // flow n goes to VIP number n % vips
	next   uint32
}

func newStream(vip netip.Addr, flows, vips int) *stream {
	return &stream{
		header: packettest.Frame(with(to(vip), func(s *packettest.Spec) { s.TCPFlags = packet.TCPAck })),
		v6:     vip.Is6(), flows: uint32(flows), vips: uint32(vips),
	}
}

// fill puts the next packets into frames. In IPv4, the identification makes up
// for what the numbers do to the header checksum.
func (s *stream) fill(frames []queue.Frame) {
	for i := range frames {
		f := &frames[i]
		f.Start, f.End = queue.Headroom, queue.Headroom+uint32(len(s.header))
		b := f.Buf[f.Start:f.End]
		copy(b, s.header)
		client, vip := uint16(s.next>>16), uint16(s.next%s.vips)
		if s.v6 {
			binary.BigEndian.PutUint16(b[14+22:], client)
			binary.BigEndian.PutUint16(b[14+38:], vip)
			binary.BigEndian.PutUint16(b[14+40:], uint16(s.next))
		} else {
			binary.BigEndian.PutUint16(b[14+4:], ^packet.Fold(uint32(client)+uint32(vip)))
			binary.BigEndian.PutUint16(b[14+14:], client)
			binary.BigEndian.PutUint16(b[14+18:], vip)
			binary.BigEndian.PutUint16(b[14+20:], uint16(s.next))
		}
		if s.next++; s.next == s.flows {
			s.next = 0
		}
	}
}

// zeroSum makes the header checksum right for packets that fill makes.
func (s *stream) zeroSum() *stream {
	if !s.v6 {
		ip := packet.IPv4(s.header[14:])
		ip.SetID(0xffff)
		src, dst := ip.Src(), ip.Dst()
		ip.SetSrc([4]byte{src[0], src[1]})
		ip.SetDst([4]byte{dst[0], dst[1]})
		ip.SetChecksum(ip.ComputeChecksum())
	}
	return s
}

// benchVIP is VIP number n of benchWorld.
func benchVIP(v6 bool, n int) netip.Addr {
	if v6 {
		a := netip.MustParseAddr("2001:db8:1::").As16()
		binary.BigEndian.PutUint16(a[14:], uint16(n))
		return netip.AddrFrom16(a)
	}
	a := [4]byte{203, 0}
	binary.BigEndian.PutUint16(a[2:], uint16(n))
	return netip.AddrFrom4(a)
}

type benchMode struct {
	name string
	v6   bool
	make func(slot uint32) (rewrite.Rewrite, error)
}

func benchModes() []benchMode {
	link := func(slot uint32) rewrite.Link {
		return rewrite.Link{Src: eth0MAC, Dst: backendMAC(slot), MTU: 1500}
	}
	return []benchMode{
		{"dsr4", false, func(s uint32) (rewrite.Rewrite, error) { return rewrite.DSR(link(s), false) }},
		{"dsr6", true, func(s uint32) (rewrite.Rewrite, error) { return rewrite.DSR(link(s), true) }},
		{"ipip4in4", false, func(s uint32) (rewrite.Rewrite, error) {
			return rewrite.IPIP(link(s), false, tunnelTo(s, false))
		}},
		{"ipip6in6", true, func(s uint32) (rewrite.Rewrite, error) {
			return rewrite.IPIP(link(s), true, tunnelTo(s, true))
		}},
	}
}

// benchWorld has a number of VIPs, each with a service of four backends.
func benchWorld(m benchMode, vips int) *snapshot.Snapshot {
	return must(snapshot.New(benchSpec(m, vips)))
}

func benchSpec(m benchMode, vips int) snapshot.Spec {
	const backends = 4
	spec := snapshot.Spec{Interfaces: interfaces()}
	table := make([]uint16, tableSize)
	for i := range table {
		table[i] = uint16(i % backends)
	}
	for n := range vips {
		svc := snapshot.Service{ID: uint32(n), Table: table}
		for range backends {
			slot := uint32(len(spec.Backends))
			svc.Members = append(svc.Members, slot)
			spec.Backends = append(spec.Backends, snapshot.Backend{
				Rewrite: must(m.make(slot)), State: snapshot.Active, Generation: 1, Service: uint32(n),
			})
		}
		spec.Services = append(spec.Services, svc)
		claim(&spec, benchVIP(m.v6, n), uint32(n))
	}
	return spec
}

func benchFrames() ([]queue.Frame, []forward.Verdict) {
	return batch(make([][]byte, forward.BatchSize)...)
}

// run sends b.N packets through r and fails if one of them does not end with
// want.
func run(b *testing.B, r *rig, s *stream, want stats.Reason) {
	b.Helper()
	frames, verdicts := benchFrames()
	drops := r.counters.Drops[want]
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= len(frames) {
		n := min(left, len(frames))
		s.fill(frames[:n])
		r.Process(0, 0, frames[:n], verdicts)
	}
	b.StopTimer()
	if want != stats.ReasonNone {
		drops += uint64(b.N)
	}
	if got := r.counters.Drops[want]; got != drops {
		b.Fatalf("%d packets dropped as %v, want %d", got, want, drops)
	}
	if last := verdicts[0]; last.Reason != want {
		b.Fatalf("verdict %+v (%v), want %v", last, last.Reason, want)
	}
}

func BenchmarkRestore(b *testing.B) {
	for _, m := range benchModes()[:2] {
		b.Run(m.name, func(b *testing.B) {
			s := newStream(benchVIP(m.v6, 0), 1<<16, 1).zeroSum()
			frames, _ := benchFrames()
			for left := b.N; left > 0; left -= len(frames) {
				s.fill(frames)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, m := range benchModes()[:2] {
		b.Run(m.name, func(b *testing.B) {
			frames, _ := benchFrames()
			newStream(benchVIP(m.v6, 0), 1<<16, 1).zeroSum().fill(frames)
			var p packet.Parsed
			for n := range b.N {
				p.Decode(frames[n%len(frames)].Bytes())
			}
			if p.Problem != packet.ProblemNone {
				b.Fatal(p.Problem)
			}
		})
	}
}

func BenchmarkServiceLookup(b *testing.B) {
	for _, m := range benchModes()[:2] {
		for _, vips := range []int{1, 100, 10_000} {
			s := benchWorld(m, vips)
			addrs := make([][16]byte, 1<<14)
			for i := range addrs {
				addrs[i] = benchVIP(m.v6, i*7919%vips).As16()
			}
			b.Run(fmt.Sprintf("%s/services=%d", m.name, vips), func(b *testing.B) {
				var sum uint32
				for n := range b.N {
					sum += s.VIP(&addrs[n%len(addrs)]).Service(packet.ProtoTCP, 80)
				}
				if vips == 1 && sum != 0 {
					b.Fatal("wrong service")
				}
			})
		}
	}
}

// BenchmarkHit forwards packets of known flows, round and round, so that each
// packet is of another flow than the one before. The table has four places for
// each flow.
func BenchmarkHit(b *testing.B) {
	for _, flows := range []int{1, 1 << 10, 1 << 16, 1 << 20} {
		for _, m := range benchModes() {
			b.Run(fmt.Sprintf("%s/flows=%d", m.name, flows), func(b *testing.B) {
				r := newRig(b, 4*flows, benchWorld(m, 1))
				defer r.table.Close()
				s := newStream(benchVIP(m.v6, 0), flows, 1).zeroSum()
				frames, verdicts := benchFrames()
				for range 2 { // of two packets, the second makes a flow trusted
					for done := 0; done < flows; done += len(frames) {
						s.fill(frames)
						r.Process(0, 0, frames, verdicts)
					}
					s.next = 0
				}
				if n := r.counters.FlowsEvicted; n > uint64(flows/100) {
					b.Fatalf("%d of %d flows did not fit, so not all packets are hits", n, flows)
				}
				run(b, r, s, stats.ReasonNone)
			})
		}
	}
}

// BenchmarkServices is BenchmarkHit with more and more services; flow n is one
// of service n modulo their number.
func BenchmarkServices(b *testing.B) {
	for _, flows := range []int{1 << 10, 1 << 16, 1 << 20} {
		for _, vips := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("dsr4/flows=%d/services=%d", flows, vips), func(b *testing.B) {
				r := newRig(b, 4*flows, benchWorld(benchModes()[0], vips))
				s := newStream(benchVIP(false, 0), flows, vips).zeroSum()
				frames, verdicts := benchFrames()
				for range 3 * flows / len(frames) {
					s.fill(frames)
					r.Process(0, 0, frames, verdicts)
				}
				run(b, r, s, stats.ReasonNone)
			})
		}
	}
}

// BenchmarkMiss forwards packets of flows that are not in the table, which is
// full: each one pushes another flow out.
func BenchmarkMiss(b *testing.B) {
	for _, m := range benchModes() {
		r := newRig(b, 1<<16, benchWorld(m, 1))
		s := newStream(benchVIP(m.v6, 0), 1<<24, 1).zeroSum()
		b.Run(m.name, func(b *testing.B) { run(b, r, s, stats.ReasonNone) })
	}
}

// BenchmarkReset forwards packets that are in no table and make no flow.
func BenchmarkReset(b *testing.B) {
	m := benchModes()[0]
	r := newRig(b, 1<<16, benchWorld(m, 1))
	s := newStream(benchVIP(m.v6, 0), 1<<24, 1).zeroSum()
	s.header[14+20+13] = packet.TCPRst
	b.Run(m.name, func(b *testing.B) { run(b, r, s, stats.ReasonNone) })
}

func BenchmarkDrop(b *testing.B) {
	for _, m := range benchModes()[:2] {
		port := 14 + 20 + 2
		if m.v6 {
			port += 20
		}
		for name, d := range map[string]struct {
			change func(s *stream)
			reason stats.Reason
		}{
			"foreign MAC": {func(s *stream) { copy(s.header, otherMAC[:]) }, stats.ForeignMAC},
			"unknown VIP": {func(s *stream) { s.header[port-5]++ }, stats.UnknownVIP},
			"no service":  {func(s *stream) { s.header[port+1]++ }, stats.NoService},
		} {
			b.Run(m.name+"/"+name, func(b *testing.B) {
				r := newRig(b, 8, benchWorld(m, 1))
				s := newStream(benchVIP(m.v6, 0), 1<<16, 1)
				d.change(s)
				run(b, r, s.zeroSum(), d.reason)
			})
		}
	}
}
