package forward_test

import (
	"bytes"
	"net/netip"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// An interface that has just come back has no address for a moment. It answers
// and forwards nothing, whatever the destination, its own zeros included.
func TestInterfaceWithoutMAC(t *testing.T) {
	world := worldSnapshot()
	world.Interfaces[0].MAC = packet.MAC{}
	for _, cases := range [][]goldenCase{
		dsrCases(), ipipCases(), arpCases(), ndpCases(), advertisementCases(), echoCases(),
	} {
		for _, c := range cases {
			for i, frame := range c.frames() {
				var p packet.Parsed
				if p.Decode(frame); p.Problem != packet.ProblemNone {
					continue
				}
				for _, in := range [][]byte{frame, toMAC(bytes.Clone(frame), packet.MAC{})} {
					r := newRig(t, 8, world)
					f, v := r.one(in, 0)
					if v.Action != forward.Drop || v.Reason != stats.ForeignMAC || !bytes.Equal(f.Bytes(), in) {
						t.Errorf("%s frame %d to %s: verdict %+v (%v)", c.name, i, packet.Ethernet(in).Dst(), v, v.Reason)
					}
				}
			}
		}
	}
}

// The zero address is nobody's, so a claim by it is not weir's own, even while
// another interface of weir's has none.
func TestClaimByZeroMAC(t *testing.T) {
	world := worldSnapshot()
	world.Interfaces[1].MAC = packet.MAC{}
	arp := packettest.ARPRequest(packettest.Spec{Src: netip.AddrPortFrom(vipDSR4, 0)}, vipDSR4)
	advert := fromMAC(advertised(vipDSR6).advertisement(flagOverride), packet.MAC{})
	for name, frame := range map[string][]byte{"ARP": arp, "advertisement": advert} {
		if _, v := newRig(t, 8, world).one(frame, 0); v.Reason != stats.AddressConflict {
			t.Errorf("%s: verdict %v, want %v", name, v.Reason, stats.AddressConflict)
		}
	}
}

// Two balancers have the same VIP in mode dsr, and each has the other for its
// only backend: a packet goes over once and no further.
func TestTwoBalancersDoNotLoop(t *testing.T) {
	for _, vip := range []netip.Addr{vipDSR4, vipDSR6} {
		balancer := func(mine, other packet.MAC) *rig {
			spec := snapshot.Spec{
				Interfaces: []snapshot.Interface{{Name: "eth0", MAC: mine}},
				Services:   []snapshot.Service{{Table: []uint16{0}, Members: []uint32{0}}},
				Backends: []snapshot.Backend{{
					Rewrite: must(rewrite.DSR(rewrite.Link{Src: mine, Dst: other, MTU: 1500}, vip.Is6())),
					State:   snapshot.Active, Generation: 1,
				}},
			}
			claim(&spec, vip, 0)
			return newRig(t, 8, must(snapshot.New(spec)))
		}
		a, b := balancer(eth0MAC, otherMAC), balancer(otherMAC, eth0MAC)
		f, v := a.one(packettest.Frame(udpTo(vip)), 0)
		if v.Action != forward.Send {
			t.Fatalf("%s: the first dropped the client's packet: %v", vip, v.Reason)
		}
		if _, v := b.one(f.Bytes(), 0); v.Action != forward.Drop || v.Reason != stats.Looped {
			t.Errorf("%s: the second's verdict is %+v (%v), want %v", vip, v, v.Reason, stats.Looped)
		}
	}
}
