package rewrite_test

import (
	"bytes"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// FuzzApply rewrites whatever Decode lets pass in every mode. What leaves must
// be well-formed if what came was, and the packet inside must be the one that
// came, but for its TTL.
func FuzzApply(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, s := range variants(v6) {
			f.Add(packettest.Frame(s), uint16(0))
			s.VLAN = 7
			f.Add(packettest.Frame(s), uint16(9))
			s.SrcMAC = backendMAC
			f.Add(packettest.Frame(s), uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, vlan uint16) {
		var p packet.Parsed
		p.Decode(frame)
		if p.Problem != packet.ProblemNone || p.Kind != packet.KindIPv4 && p.Kind != packet.KindIPv6 {
			return
		}
		l := link(vlan % 4095)
		for _, m := range modes() {
			r, err := m.make(l, p.Kind == packet.KindIPv6)
			if err != nil {
				t.Fatal(err)
			}
			fuzzOne(t, m, &r, l, frame, &p)
		}
	})
}

func fuzzOne(t *testing.T, m mode, r *rewrite.Rewrite, l rewrite.Link, frame []byte, p *packet.Parsed) {
	out := buffer(frame)
	before := buffer(frame)
	reason := r.Apply(&out, p)
	checkDirect(t, r, frame, out.Bytes(), reason)
	if reason != stats.ReasonNone {
		looped := m.tunnel == nil && bytes.Equal(frame[6:12], l.Dst[:])
		tooBig := int(p.End-p.L3)+m.overhead() > l.MTU && !looped
		spent := m.tunnel != nil && p.TTL <= 1
		if reason == stats.Looped != looped || reason == stats.TooBig != tooBig ||
			reason == stats.TTLExpired != (spent && !tooBig) {
			t.Fatalf("%s: reason %v for %d bytes with TTL %d", m.name, reason, p.End-p.L3, p.TTL)
		}
		if out.Start != before.Start || out.End != before.End || !bytes.Equal(out.Buf, before.Buf) {
			t.Fatalf("%s: the frame has changed although it was refused", m.name)
		}
		return
	}
	if m.tunnel == nil && bytes.Equal(out.Bytes()[:6], frame[6:12]) {
		t.Fatalf("%s: the frame goes back to where it came from: %x", m.name, out.Bytes())
	}
	if out.Start > out.End || int(out.End) > len(out.Buf) || out.Start < queue.Headroom-44 {
		t.Fatalf("%s: packet [%d:%d] of %d", m.name, out.Start, out.End, len(out.Buf))
	}
	tag := 0
	if l.VLAN != 0 {
		tag = 4
	}
	b := out.Bytes()
	inner := b[14+tag+m.overhead():]
	length := int(p.End - p.L3)
	want := bytes.Clone(frame[p.L3:])
	if m.tunnel != nil {
		if len(inner) != length {
			t.Fatalf("%s: inner packet of %d bytes, want %d", m.name, len(inner), length)
		}
		want = want[:length]
		takeHop(t, p, inner, want)
	}
	if !bytes.Equal(inner, want) {
		t.Fatalf("%s: inner packet\n%x, want\n%x", m.name, inner, want)
	}
	if err := packettest.CheckWellFormed(frame); err == nil {
		if err := packettest.CheckWellFormed(b); err != nil {
			t.Fatalf("%s: a well-formed frame became\n%x: %v", m.name, b, err)
		}
	}
}

// takeHop takes one hop off want, the slow way.
func takeHop(t *testing.T, p *packet.Parsed, got, want []byte) {
	if p.Kind == packet.KindIPv6 {
		want[7]--
		return
	}
	want[8]--
	// The checksum has two forms of zero; which one it is does not matter.
	if packet.Checksum(got[:packet.IPv4(want).HeaderLen()], 0) != 0 {
		t.Fatalf("inner header checksum is wrong: %x", got)
	}
	copy(want[10:12], got[10:12])
}
