package translate_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
	"weir/dataplane/translate"
)

// router returns who an error comes from before and after translation.
func router(v6, after bool) netip.AddrPort {
	switch {
	case v6 && after:
		return netip.MustParseAddrPort("[2001:db8:1::10]:0")
	case v6:
		return netip.MustParseAddrPort("[2001:db8:77::1]:0")
	case after:
		return netip.MustParseAddrPort("203.0.113.10:0")
	}
	return netip.MustParseAddrPort("198.51.100.7:0")
}

// failure is an error as it comes back to weir: about a packet that weir sent
// after translating it from a client's. It travels in the direction d, so that
// the client is of d's second family.
type failure struct {
	d         direction
	typ, code uint8
	rest      uint32
	sent      packettest.Spec // the packet at fault, as it left weir
	frame     func(packettest.Spec) []byte
	quoted    int    // bytes quoted; 0 is all
	extra     []byte // behind the quotation
}

// original returns the packet at fault as it left the client, if IPv4's
// identification and IPv6's flow label are forgotten.
func (e *failure) original() packettest.Spec {
	s := e.sent
	s.Src, s.Dst = ends(e.d.to6, false)
	if !e.d.cross() {
		return s
	}
	s.FlowLabel, s.IPOptions, s.Extensions, s.DontFragment = 0, 0, nil, false
	if !e.d.to6 {
		s.ID = 0
		s.DontFragment = len(ip(packettest.Frame(s))) > 1260
	}
	return s
}

// outer returns the header around an error.
func (e *failure) outer(after bool) packettest.Spec {
	s := packettest.Spec{TTL: 61, TOS: 0xc0, Src: router(e.d.from6, false), Padding: 3}
	s.Dst, _ = ends(e.d.from6, true)
	if after {
		s.TTL, s.Src, s.Padding = 60, router(e.d.to6, true), 0
		s.Dst, _ = ends(e.d.to6, false)
	}
	return s
}

func (e *failure) build(s packettest.Spec) []byte {
	if e.frame != nil {
		return ip(e.frame(s))
	}
	return ip(packettest.Frame(s))
}

// change returns what weir does to the error.
func (e *failure) change() translate.ErrorChange {
	src, dst := ends(e.d.to6, false)
	return translate.ErrorChange{
		Src: packet.Addr16(router(e.d.to6, true).Addr()), Dst: packet.Addr16(src.Addr()),
		Quoted: tuple(src, dst, e.sent.Proto),
	}
}

// came returns the error as it comes in.
func (e *failure) came() []byte {
	s := e.outer(false)
	s.Payload = e.build(e.sent)
	if e.quoted != 0 {
		s.Payload = s.Payload[:e.quoted]
	}
	s.Payload = append(bytes.Clone(s.Payload), e.extra...)
	return packettest.ICMP(s, e.typ, e.code, e.rest)
}

// wanted returns the error as it is to go out, with n bytes of transport header
// and payload in the quotation, all of the same extra bytes behind it.
func (e *failure) wanted(typ, code uint8, rest uint32, n int, extra []byte) []byte {
	s := e.outer(true)
	b := e.build(e.original())
	p := decodeAny(append(make([]byte, 12), append(map[bool][]byte{false: {8, 0}, true: {0x86, 0xdd}}[e.d.to6], b...)...))
	s.Payload = append(bytes.Clone(b[:int(p.L4)-14+n]), extra...)
	frame := packettest.ICMP(s, typ, code, rest)
	if e.d.cross() && !e.d.to6 {
		s.ID = sum(ip(frame)[20:], packet.ProtoICMPv4)
		frame = packettest.ICMP(s, typ, code, rest)
	}
	return frame
}

func (e *failure) apply(t *testing.T, mtu uint32) ([]byte, stats.Reason) {
	t.Helper()
	frame := e.came()
	p := decode(t, frame)
	var q packet.Quoted
	if !q.Decode(frame, &p) {
		t.Fatalf("%v type %d code %d: the quotation cannot be read: %x", e.d, e.typ, e.code, frame)
	}
	f := buffer(frame)
	c := e.change()
	l3, reason := c.Packet(&f, &p, &q, mtu)
	if reason != stats.ReasonNone {
		refused(t, f, frame)
		return nil, reason
	}
	got := emit(t, f, frame, l3)
	// Whoever gets it must find the same flow in it.
	p = decode(t, got)
	if !q.Decode(got, &p) || q.Tuple != c.Quoted {
		t.Fatalf("%v: quotes %v, want %v", e.d, q.Tuple, c.Quoted)
	}
	return got, reason
}

func sent(v6 bool, proto uint8, payload int) packettest.Spec {
	s := spec(v6, proto)
	s.Src, s.Dst = ends(v6, true)
	s.Payload = bytes.Repeat([]byte{7, 8}, payload/2)
	return s
}

// TestErrorEqualsRebuilt: whatever packet is quoted and how much of it, the
// translated error is what the oracle builds from the packet that the client
// sent.
func TestErrorEqualsRebuilt(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, d := range directions {
		for i := range 500 {
			proto := []uint8{packet.ProtoTCP, packet.ProtoUDP}[r.IntN(2)]
			e := failure{d: d, typ: 3, code: 3, sent: anySpec(r, d.from6, proto)}
			typ, code := uint8(3), uint8(3)
			if d.from6 {
				e.typ, e.code = 1, 4
			}
			if d.to6 {
				typ, code = 1, 4
			}
			e.sent.Src, e.sent.Dst = ends(d.from6, true)
			e.sent.VLAN, e.sent.Padding, e.sent.NoUDPChecksum = 0, 0, false
			if d.cross() && len(e.sent.Extensions) > 0 {
				e.sent.Extensions = []uint8{packet.ProtoHopByHop} // an atomic fragment's ID is tested apart
			}
			p := decodeAny(packettest.Frame(e.sent))
			headers := int(p.L4 - p.L3)
			e.quoted = min(int(p.End-p.L3), headers+8+r.IntN(470))
			n := e.quoted - headers
			if proto == packet.ProtoTCP && n == 17 {
				continue // half a checksum, which is left as it is
			}
			got, reason := e.apply(t, noLimit)
			if reason != stats.ReasonNone {
				t.Fatalf("%v: %v", d, reason)
			}
			same(t, fmt.Sprintf("%v proto %d error %d", d, proto, i), got, e.wanted(typ, code, 0, n, nil))
		}
	}
}

// TestErrorWithHalfASum: a TCP checksum of which one byte is quoted is left as it
// is.
func TestErrorWithHalfASum(t *testing.T) {
	for _, d := range directions {
		e := failure{d: d, typ: 3, code: 3, sent: sent(d.from6, packet.ProtoTCP, 100), quoted: d.header() + 17}
		if d.from6 {
			e.typ, e.code = 1, 4
		}
		got, reason := e.apply(t, noLimit)
		if before := e.came(); reason != stats.ReasonNone || got[len(got)-1] != before[len(before)-1-3] {
			t.Errorf("%v: %v", d, reason)
		}
	}
}

// TestErrorOfFirstFragment: it stays one in the other family.
func TestErrorOfFirstFragment(t *testing.T) {
	for _, d := range directions {
		e := failure{d: d, typ: 11, code: 1, sent: sent(d.from6, packet.ProtoUDP, 300)}
		e.frame = func(s packettest.Spec) []byte { return packettest.Fragments(s, 120)[0] }
		typ := uint8(11)
		if d.from6 {
			e.typ = 3
		}
		if d.to6 {
			typ = 3
		}
		want := e
		if d.cross() && !d.to6 {
			// The identification does cross here.
			want.frame = func(s packettest.Spec) []byte {
				s.ID = 0x4711
				s.DontFragment = false
				return packettest.Fragments(s, 120)[0]
			}
		}
		got, reason := e.apply(t, noLimit)
		if reason != stats.ReasonNone {
			t.Fatalf("%v: %v", d, reason)
		}
		same(t, d.String(), got, want.wanted(typ, 1, 0, 120, nil))
	}
}

// TestErrorExtensions: within a family RFC 4884's extensions stay, between
// families they and their padding go, and nobody is told of them any more.
func TestErrorExtensions(t *testing.T) {
	extension := []byte{0x20, 0, 0xd0, 0xf3, 0, 8, 2, 1, 1, 2, 3, 4}
	for _, d := range directions {
		for _, payload := range []int{20, 400} {
			e := failure{d: d, typ: 11, sent: sent(d.from6, packet.ProtoUDP, payload)}
			rest, typ := uint32(128/4)<<16, uint8(11)
			if d.from6 {
				e.typ, rest = 3, uint32(128/8)<<24
			}
			if d.to6 {
				typ = 3
			}
			e.rest = rest
			n := min(128-d.header(), 8+payload)
			e.quoted = d.header() + n
			e.extra = append(make([]byte, 128-e.quoted), extension...)
			want := e.wanted(typ, 0, 0, n, nil)
			if !d.cross() {
				want = e.wanted(typ, 0, rest, n, e.extra)
			}
			got, reason := e.apply(t, noLimit)
			if reason != stats.ReasonNone {
				t.Fatalf("%v: %v", d, reason)
			}
			same(t, d.String(), got, want)
		}
	}
}

// TestErrorLength: between families the result is cut to what every host takes.
func TestErrorLength(t *testing.T) {
	for _, tt := range []struct {
		d      direction
		mtu    uint32
		quoted int
		want   int
		reason stats.Reason
	}{
		{direction{false, true}, noLimit, 1400, 1280, stats.ReasonNone},
		{direction{false, true}, 1279, 1400, 1279, stats.ReasonNone},
		{direction{false, true}, noLimit, 528, 20 + 8 + 528 + 40, stats.ReasonNone},
		{direction{false, true}, 96, 528, 96, stats.ReasonNone},
		{direction{false, true}, 95, 528, 0, stats.TooBig},
		{direction{true, false}, noLimit, 1232, 576, stats.ReasonNone},
		{direction{true, false}, 300, 1232, 300, stats.ReasonNone},
		{direction{true, false}, noLimit, 100, 48 + 60, stats.ReasonNone},
		{direction{true, false}, 56, 1232, 56, stats.ReasonNone},
		{direction{true, false}, 55, 1232, 0, stats.TooBig},
		{direction{false, false}, 1428, 1400, 1428, stats.ReasonNone},
		{direction{false, false}, 1427, 1400, 0, stats.TooBig},
		{direction{true, true}, 1280, 1232, 1280, stats.ReasonNone},
		{direction{true, true}, 1279, 1232, 0, stats.TooBig},
	} {
		e := failure{d: tt.d, typ: 3, code: 1, sent: sent(tt.d.from6, packet.ProtoTCP, 1440), quoted: tt.quoted}
		if tt.d.from6 {
			e.typ = 1
		}
		got, reason := e.apply(t, tt.mtu)
		if reason != tt.reason || reason == stats.ReasonNone && len(ip(got)) != tt.want {
			t.Errorf("%v, %d bytes quoted, MTU %d: %v, want %v", tt.d, tt.quoted, tt.mtu, reason, tt.reason)
			continue
		}
		if reason == stats.ReasonNone {
			if err := packettest.CheckWellFormed(got); err != nil {
				t.Errorf("%v, %d bytes quoted, MTU %d: %v", tt.d, tt.quoted, tt.mtu, err)
			}
		}
	}
}
