package rewrite_test

import (
	"bytes"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

func relay(t *testing.T, r *rewrite.Rewrite, frame []byte) ([]byte, stats.Reason) {
	t.Helper()
	f := buffer(frame)
	var p packet.Parsed
	if p.Decode(f.Bytes()); p.Problem != packet.ProblemNone {
		t.Fatalf("the test's frame is bad: %v", p.Problem)
	}
	reason := r.Relay(&f, &p)
	return f.Bytes(), reason
}

// Nothing but the stations and the hops that are left is another, whatever the
// link's VLAN is.
func TestRelay(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for name, s := range variants(v6) {
			for _, vlan := range []uint16{0, 9} {
				r, err := rewrite.DSR(link(7), v6)
				if err != nil {
					t.Fatal(err)
				}
				s.VLAN, s.Priority = vlan, uint8(vlan%8)
				want := s
				want.SrcMAC, want.DstMAC = weirMAC, backendMAC
				if want.TTL == 0 {
					want.TTL = 64
				}
				want.TTL--
				got, reason := relay(t, &r, packettest.Frame(s))
				if reason != stats.ReasonNone || !bytes.Equal(got, packettest.Frame(want)) {
					t.Errorf("%s, IPv6 %t, VLAN %d: %v\n got %x\nwant %x", name, v6, vlan, reason, got, packettest.Frame(want))
				}
			}
		}
	}
}

func TestRelayTooBig(t *testing.T) {
	small := link(0)
	small.MTU = 100
	r, err := rewrite.DSR(small, false)
	if err != nil {
		t.Fatal(err)
	}
	if r.MTU() != 100 || r.Station() != backendMAC {
		t.Errorf("MTU %d, station %s", r.MTU(), r.Station())
	}
	for size, want := range map[int]stats.Reason{60: stats.ReasonNone, 61: stats.TooBig} {
		s := variants(false)["tcp"]
		s.Payload = make([]byte, size)
		frame := packettest.Frame(s)
		got, reason := relay(t, &r, frame)
		if reason != want || reason == stats.TooBig && !bytes.Equal(got, frame) {
			t.Errorf("%d bytes: %v, want %v; %x", size, reason, want, got)
		}
	}
}
