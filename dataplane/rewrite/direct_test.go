package rewrite_test

import (
	"bytes"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

// checkDirect holds what r is in short against what r has made of a frame.
func checkDirect(t *testing.T, r *rewrite.Rewrite, frame, want []byte, reason stats.Reason) {
	t.Helper()
	var p packet.Parsed
	out := buffer(frame)
	p.Decode(out.Bytes())
	_, tunnel := r.Outer()
	tagged := bytes.Equal(want[12:14], []byte{0x81, 0})
	d := r.Direct()
	switch applied := d.Apply(&out, &p); {
	case applied != (reason == stats.ReasonNone && !tunnel && !tagged && !p.Tagged):
		t.Fatalf("the short form applies: %t; tunnel %t, tags %t and %t, %v: %x", applied, tunnel, p.Tagged, tagged, reason, frame)
	case !applied:
		want = frame
	case !d.Applies() || d.Egress() != r.Egress:
		t.Fatalf("the short form applies: %t, and sends by interface %d, not %d", d.Applies(), d.Egress(), r.Egress)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Fatalf("the short form has made\n%x, want\n%x", out.Bytes(), want)
	}
}

// What needs no more than a Direct, has one.
func TestDirectApplies(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, vlan := range []uint16{0, 9} {
			for _, m := range modes() {
				r, err := m.make(link(vlan), v6)
				if err != nil {
					t.Fatal(err)
				}
				d := r.Direct()
				if want := m.tunnel == nil && vlan == 0; d.Applies() != want {
					t.Errorf("%s, VLAN %d, IPv6 %t: %t, want %t", m.name, vlan, v6, d.Applies(), want)
				}
			}
		}
	}
}
