package translate_test

import (
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// TestErrorReasons has the errors that are no matter of the tables.
func TestErrorReasons(t *testing.T) {
	routed := func(frame []byte) []byte { // puts a source route into an IPv4 header of 28 bytes
		h := packet.IPv4(ip(frame))
		copy(h[20:], []byte{1, 131, 7, 4, 9, 9, 9, 9})
		h.SetChecksum(h.ComputeChecksum())
		return frame
	}
	for _, d := range directions {
		typ := map[bool]uint8{false: 3, true: 1}[d.from6]
		e := failure{d: d, typ: typ, sent: sent(d.from6, packet.ProtoTCP, 100)}
		outer := e.outer(false)
		outer.Payload = e.build(e.sent)
		crossed := func(r stats.Reason) stats.Reason {
			if d.cross() {
				return r
			}
			return stats.ReasonNone
		}
		tunnel := outer
		inner := e.sent
		inner.Proto = packet.ProtoIPv4
		tunnel.Payload = ip(packettest.Frame(inner))
		spent := outer
		spent.TTL = 1
		optioned := outer
		optioned.IPOptions, optioned.Extensions = 2, []uint8{packet.ProtoHopByHop, packet.ProtoDestOptions, packet.ProtoFragment}
		behind := outer
		behind.IPOptions, behind.Extensions = 2, []uint8{packet.ProtoFragment, packet.ProtoDestOptions}
		fine := func(b []byte) []byte { return b }
		huge := outer
		huge.Payload = append([]byte(nil), outer.Payload...)
		if d.from6 {
			packet.IPv6(huge.Payload).SetPayloadLength(65516)
		}
		type test struct {
			name string
			s    packettest.Spec
			edit func([]byte) []byte
			want stats.Reason
		}
		tests := []test{
			{"fine", outer, fine, stats.ReasonNone},
			{"ttl 1", spent, fine, stats.TTLExpired},
			{"quotes a tunnel", tunnel, fine, stats.Untranslatable},
			{"options and extension headers", optioned, fine, stats.ReasonNone},
		}
		if d.from6 {
			tests = append(tests,
				test{"quotes a packet too long for IPv4", huge, fine, crossed(stats.Untranslatable)},
				test{"options behind a fragment header", behind, fine, crossed(stats.Untranslatable)})
		} else {
			tests = append(tests, test{"source route", optioned, routed, crossed(stats.Untranslatable)})
		}
		for _, tt := range tests {
			frame := tt.edit(packettest.ICMP(tt.s, typ, 0, 0))
			p := decode(t, frame)
			var q packet.Quoted
			if !q.Decode(frame, &p) {
				t.Fatalf("%v %s: the quotation cannot be read", d, tt.name)
			}
			f, c := buffer(frame), e.change()
			l3, reason := c.Packet(&f, &p, &q, noLimit)
			if reason != tt.want {
				t.Errorf("%v %s: %v, want %v", d, tt.name, reason, tt.want)
				continue
			}
			if reason != stats.ReasonNone {
				refused(t, f, frame)
				continue
			}
			got := emit(t, f, frame, l3)
			if err := packettest.CheckWellFormed(got); err != nil {
				t.Errorf("%v %s: %v", d, tt.name, err)
			}
			if p = decode(t, got); p.TTL != 60 || p.Src != c.Src || p.Dst != c.Dst {
				t.Errorf("%v %s: %v, TTL %d", d, tt.name, p.Tuple, p.TTL)
			}
		}
	}
}

// TestErrorKeepsNoUDPSum: a quoted datagram without checksum stays one. It is
// not sent any further, so RFC 7915 §4.5 does not matter.
func TestErrorKeepsNoUDPSum(t *testing.T) {
	for _, d := range []direction{{false, false}, {false, true}} {
		e := failure{d: d, typ: 3, code: 1, sent: sent(false, packet.ProtoUDP, 100)}
		e.sent.NoUDPChecksum = true
		got, reason := e.apply(t, noLimit)
		if reason != stats.ReasonNone {
			t.Fatal(reason)
		}
		code := uint8(1)
		typ := uint8(3)
		if d.to6 {
			typ, code = 1, 0
		}
		same(t, d.String(), got, e.wanted(typ, code, 0, 108, nil))
	}
}
