package translate_test

import (
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// rig translates one frame again and again.
type rig struct {
	frame []byte
	f     queue.Frame
	p     packet.Parsed
	q     packet.Quoted
}

func newRig(frame []byte) *rig {
	r := &rig{frame: frame, f: buffer(frame)}
	r.p.Decode(frame)
	r.q.Decode(frame, &r.p)
	return r
}

func (r *rig) restore() {
	copy(r.f.Buf[r.f.Start:], r.frame)
	r.f.End = r.f.Start + uint32(len(r.frame))
}

func TestNothingIsAllocated(t *testing.T) {
	for _, d := range directions {
		for name, frame := range map[string][]byte{
			"tcp":      segment(d.from6, packet.TCPSyn, []byte{2, 4, 5, 0xb4}),
			"udp":      packettest.Frame(large(d.from6, 100)),
			"fragment": packettest.Fragments(large(d.from6, 100), 48)[1],
		} {
			r := newRig(frame)
			from := r.p.Tuple
			src, dst := ends(d.to6, true)
			to := tuple(src, dst, from.Proto)
			if n := testing.AllocsPerRun(100, func() {
				r.restore()
				c := between(&from, &to, 1400)
				if _, reason := c.Packet(&r.f, &r.p, noLimit); reason != stats.ReasonNone {
					t.Fatal(reason)
				}
			}); n != 0 {
				t.Errorf("%v %s: %v allocations", d, name, n)
			}
		}
		e := newFailure(d)
		r, c := newRig(e.came()), e.change()
		if n := testing.AllocsPerRun(100, func() {
			r.restore()
			if _, reason := c.Packet(&r.f, &r.p, &r.q, noLimit); reason != stats.ReasonNone {
				t.Fatal(reason)
			}
		}); n != 0 {
			t.Errorf("%v error: %v allocations", d, n)
		}
	}
}

// newFailure returns an error about a first fragment, which takes the most
// work.
func newFailure(d direction) failure {
	e := failure{d: d, typ: 11, code: 1, sent: sent(d.from6, packet.ProtoUDP, 500)}
	if d.from6 {
		e.typ = 3
	}
	e.frame = func(s packettest.Spec) []byte { return packettest.Fragments(s, 480)[0] }
	return e
}

// BenchmarkPacket measures Set and Packet, as they come for each packet of a flow that
// is not known yet. Included is putting the frame back.
func BenchmarkPacket(b *testing.B) {
	for _, d := range directions {
		for _, proto := range []struct {
			name   string
			number uint8
		}{{"tcp", packet.ProtoTCP}, {"udp", packet.ProtoUDP}} {
			b.Run(d.String()+"/"+proto.name, func(b *testing.B) {
				r := newRig(packettest.Frame(spec(d.from6, proto.number)))
				from := r.p.Tuple
				src, dst := ends(d.to6, true)
				to := tuple(src, dst, from.Proto)
				b.ReportAllocs()
				for b.Loop() {
					r.restore()
					var c translate.Change
					c.Set(&from, &to, 1400)
					if _, reason := c.Packet(&r.f, &r.p, noLimit); reason != stats.ReasonNone {
						b.Fatal(reason)
					}
				}
			})
		}
	}
}

func BenchmarkSet(b *testing.B) {
	for _, d := range directions {
		b.Run(d.String(), func(b *testing.B) {
			src, dst := ends(d.from6, false)
			from := tuple(src, dst, packet.ProtoTCP)
			src, dst = ends(d.to6, true)
			to := tuple(src, dst, packet.ProtoTCP)
			b.ReportAllocs()
			var c translate.Change
			for b.Loop() {
				c.Set(&from, &to, 1400)
			}
			if c.DstPort == 0 {
				b.Fatal("no change")
			}
		})
	}
}

func BenchmarkError(b *testing.B) {
	for _, d := range directions {
		b.Run(d.String(), func(b *testing.B) {
			e := newFailure(d)
			r, c := newRig(e.came()), e.change()
			b.ReportAllocs()
			for b.Loop() {
				r.restore()
				if _, reason := c.Packet(&r.f, &r.p, &r.q, noLimit); reason != stats.ReasonNone {
					b.Fatal(reason)
				}
			}
		})
	}
}
