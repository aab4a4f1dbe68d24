package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/handover"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
)

// The packets of a client that come another way from now on, and so to a worker
// that knows nothing of them, are of the connection that they were of, and its
// answers go that way.
func TestClientComesToAnotherWorker(t *testing.T) {
	for seed := range uint64(20) {
		for _, v := range natVariants() {
			m := natMachine(t, 4, seed, 1024, 65535)
			m.put(m.any(), 0, packettest.Frame(to(v.vip)))
			opened := m.settle()
			if len(opened) != 1 {
				t.Fatalf("%s seed %d: the SYN became %d frames", v.name, seed, len(opened))
			}
			toward := read(t, opened[0].frame).wire
			m.put(m.any(), 1, packettest.Frame(with(ack(to(v.vip), "data"), func(s *packettest.Spec) { s.SrcMAC, s.DstMAC = otherMAC, eth1MAC })))
			if sent := m.settle(); len(sent) != 1 || read(t, sent[0].frame).wire != toward {
				t.Fatalf("%s seed %d: the next segment became %+v, want one %+v; drops %v", v.name, seed, sent, toward, m.drops())
			}
			m.put(m.any(), 1, packettest.Frame(with(answerTo(to(v.vip)), func(s *packettest.Spec) { s.Dst = toward.src })))
			if sent := m.settle(); len(sent) != 1 || sent[0].egress != 1 || packet.MAC(sent[0].frame) != otherMAC {
				t.Fatalf("%s seed %d: the answer became %+v; drops %v", v.name, seed, sent, m.drops())
			}
			m.check(t)
			m.over()
		}
	}
}

// A connection that no worker knows is reset once.
func TestUnknownConnectionIsResetOnce(t *testing.T) {
	for _, v := range natVariants() {
		m := natMachine(t, 4, 1, snatPort, snatPort)
		m.put(m.any(), 0, packettest.Frame(ack(to(v.vip), "data")))
		sent := m.settle()
		rejects := uint64(0)
		for _, w := range m.workers {
			rejects += w.counters.Rejects
		}
		if len(sent) != 1 || rejects != 1 || read(t, sent[0].frame).dst != to(v.vip).Src {
			t.Errorf("%s: %d frames and %d resets", v.name, len(sent), rejects)
		}
	}
}

// A flood of what nobody knows does not become one of questions from worker to
// worker. What there is no question about goes where Maglev says, or, as somebody
// may have its flow, nowhere and without an answer. Who is asked goes on asking.
func TestQuestionsHaveARate(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame func(src netip.AddrPort) []byte
		want  forward.Action // of what there are too many of
	}{
		{"fragments", func(src netip.AddrPort) []byte {
			return pieces(with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Src = src }))[0]
		}, forward.Send},
		{"segments", func(src netip.AddrPort) []byte {
			return packettest.Frame(with(ack(to(vipNAT44), "data"), func(s *packettest.Spec) { s.Src = src }))
		}, forward.Drop},
	} {
		m := natMachine(t, 2, 1, snatPort, snatPort)
		w := m.workers[0]
		last := forward.Taken
		flood := func() (asked int) {
			for n := range 14000 {
				_, v := w.one(test.frame(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 1)), m.now)
				toHome := false
				for _, p := range w.passed {
					asked += int(p.meta.Asked)
					toHome = p.meta.Asked == 0
				}
				w.passed = nil
				if !toHome {
					last = v.Action
				}
			}
			return asked
		}
		const atOnce = 5000
		if asked := flood(); asked != atOnce || last != test.want || w.counters.Rejects != 0 {
			t.Errorf("%s: %d questions, then action %v; %d resets", test.name, asked, last, w.counters.Rejects)
		}
		frames, verdicts := batch(test.frame(client4))
		w.Decide([]handover.Meta{{Asked: 1, HasFlow: true, Proto: packet.ProtoUDP, SrcPort: 1234, DstPort: 53}}, m.now, frames, verdicts)
		if len(w.passed) != 1 || w.passed[0].meta.Asked != 2 {
			t.Errorf("%s: a question of the other worker: verdict %+v", test.name, verdicts[0])
		}
		w.passed = nil
		m.now++
		if asked := flood(); asked != 20000/flow.TicksPerSecond {
			t.Errorf("%s: %d questions a tick later", test.name, asked)
		}
	}
}

// Where the client's address is left, everybody knows whose its flows are: there
// is nobody to ask.
func TestKeptClientsAreNotAskedFor(t *testing.T) {
	for _, v := range natVariants() {
		if natBackendOf(v.vip).mode != snapshot.NATKeep {
			continue
		}
		m := natMachine(t, 4, 1, snatPort, snatPort)
		for _, f := range pieces(udpTo(v.vip)) {
			m.put(m.any(), 0, f)
			for more := true; more; more = m.move() {
				for ring, frames := range m.rings {
					if len(frames) > 0 && frames[0].meta.Asked != 0 {
						t.Fatalf("%s: worker %d asks worker %d", v.name, ring[0], ring[1])
					}
				}
			}
		}
		if sent := m.settle(); len(sent) != 3 {
			t.Errorf("%s: 3 fragments became %d", v.name, len(sent))
		}
	}
}
