package forward_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// mtuSpec is the NAT world with another MTU of the clients' interface.
func mtuSpec(m *machine, mtu uint32) snapshot.Spec {
	spec := natSpec(m.space, snatPort, snatPort)
	spec.Interfaces[0].MTU = mtu
	return spec
}

// The clients' interface is gone: what was for them goes nowhere, and nobody is
// told of an MTU of nothing.
func TestInterfaceGone(t *testing.T) {
	for _, v := range natVariants() {
		m := newMachine(t, 1, 64, rand.New(rand.NewPCG(1, 1)))
		m.adopt(must(snapshot.New(mtuSpec(m, 1500))))
		m.put(0, 0, packettest.Frame(udpTo(v.vip)))
		if len(m.settle()) != 1 {
			t.Fatal(v.name)
		}
		spec := mtuSpec(m, 0)
		spec.Interfaces[0].MAC = packet.MAC{}
		m.adopt(must(snapshot.New(spec)))
		answer := answerTo(udpTo(v.vip))
		for i, frame := range [][]byte{
			packettest.Frame(answer), packettest.Frame(with(answer, whole)), packettest.Frame(sized(answer, 1400)),
			toBackendFailed(errorKinds()[0], udpTo(v.vip), 0),
		} {
			m.put(0, 1, frame)
			if sent := m.settle(); len(sent) != 0 || m.workers[0].counters.Drops[stats.NoEgress] != uint64(i+1) {
				t.Errorf("%s frame %d: %d frames sent; drops %v", v.name, i, len(sent), m.drops())
			}
		}
		m.over()
	}
}

// However little room there is, what is sent has it, and taking packets apart
// comes to an end.
func TestHardlyAnyRoom(t *testing.T) {
	cut := 0
	for _, v := range natVariants() {
		for mtu := uint32(1); mtu < 150; mtu++ {
			m := newMachine(t, 1, 64, rand.New(rand.NewPCG(1, 1)))
			m.adopt(must(snapshot.New(mtuSpec(m, 1500))))
			m.put(0, 0, packettest.Frame(udpTo(v.vip)))
			m.settle()
			m.adopt(must(snapshot.New(mtuSpec(m, mtu))))
			answer := answerTo(udpTo(v.vip))
			for _, s := range []packettest.Spec{answer, with(answer, whole), sized(answer, 300), with(answer, func(s *packettest.Spec) { s.IPOptions = 10 })} {
				m.put(0, 1, packettest.Frame(s))
				sent := m.settle()
				for _, f := range sent {
					if f.egress == 0 && uint32(len(f.frame)) > 14+mtu {
						t.Errorf("%s: %d bytes were sent where there is room for %d", v.name, len(f.frame)-14, mtu)
					}
				}
				if cut += len(sent) / 2; mtu <= 28 && len(sent) > 0 {
					t.Errorf("%s: %d frames where there is room for %d bytes", v.name, len(sent), mtu)
				}
			}
		}
	}
	if cut == 0 {
		t.Error("nothing was cut: the test tests nothing")
	}
}

// Answers to a flood of segments of unknown connections do not use up those that
// path MTU discovery needs.
func TestResetsLeavePathMTUAnswers(t *testing.T) {
	r := newRigIn(t, 64, natWorld)
	source := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 1)
	}
	now := flow.Tick(16)
	refused := forward.Verdict{}
	for n := range 2000 {
		_, refused = r.one(packettest.Frame(with(ack(to(vipNAT44), ""), func(s *packettest.Spec) { s.Src = source(n) })), now)
	}
	if refused.Reason != stats.NoFlow || r.counters.Rejects == 0 {
		t.Fatalf("%d resets, and then %+v: the test tests nothing", r.counters.Rejects, refused)
	}
	big := sized(with(udpTo(vip4in4), whole), 1500)
	if _, v := r.one(packettest.Frame(big), now); v.Action != forward.Send || r.counters.PathMTUAnswers != 1 {
		t.Errorf("verdict %+v (%v), %d path MTU answers", v, v.Reason, r.counters.PathMTUAnswers)
	}
}
