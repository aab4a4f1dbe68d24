package forward_test

import (
	"math/rand/v2"
	"testing"

	"weir/dataplane/forward"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// natMachine is a machine in the NAT world, with a range of ports.
func natMachine(t *testing.T, workers int, seed uint64, lo, hi uint16) *machine {
	m := newMachine(t, workers, 64, rand.New(rand.NewPCG(seed, 9)))
	m.adopt(must(snapshot.New(natSpec(m.space, lo, hi))))
	return m
}

// A datagram in fragments may be the first of its flow. All of them take the same
// way, and so does the answer.
func TestFlowOpenedByFragments(t *testing.T) {
	for seed := range uint64(20) {
		for _, v := range natVariants() {
			m := natMachine(t, 4, seed, snatPort, snatPort+4*nat.BlockPorts-1)
			frames := packettest.Fragments(with(udpTo(v.vip), long), 16)
			m.rng.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
			for _, f := range frames {
				m.put(m.any(), 0, f)
				for range m.rng.IntN(3) {
					m.move()
				}
			}
			sent := m.settle()
			if len(sent) != len(frames) {
				t.Fatalf("%s seed %d: %d of %d fragments were sent; drops %v", v.name, seed, len(sent), len(frames), m.drops())
			}
			seen := join(t, sent).src
			if want := seenAs(udpTo(v.vip)); seen.Addr() != want.Addr() {
				t.Fatalf("%s seed %d: seen as %v, want %v", v.name, seed, seen, want)
			}
			answer := answerTo(udpTo(v.vip))
			answer.Dst = seen
			m.put(m.any(), 1, packettest.Frame(answer))
			if sent := m.settle(); len(sent) != 1 {
				t.Fatalf("%s seed %d: the answer became %d frames; drops %v", v.name, seed, len(sent), m.drops())
			}
			flows := 0
			for _, w := range m.workers {
				flows += w.table.Len()
			}
			if flows != 1 {
				t.Fatalf("%s seed %d: %d flows", v.name, seed, flows)
			}
			m.check(t)
			m.over()
		}
	}
}

// With DSR, fragments go where the other packets of their flow go, although
// Maglev would by now have them elsewhere.
func TestFragmentsFollowTheirFlow(t *testing.T) {
	for seed := range uint64(20) {
		p := newPool(5)
		m := newMachine(t, 4, 64, rand.New(rand.NewPCG(seed, 10)))
		m.adopt(p.snapshot())
		m.put(m.any(), 0, packettest.Frame(udpTo(vipDSR4)))
		was := packet.MAC(m.settle()[0].frame)
		setAll(p, snapshot.Keeps)
		p.backends = append(p.backends, newPool(5).backends...)
		m.adopt(p.snapshot())
		for _, f := range pieces(udpTo(vipDSR4)) {
			m.put(m.any(), 0, f)
		}
		sent := m.settle()
		if len(sent) != 3 {
			t.Fatalf("seed %d: 3 fragments became %d; drops %v", seed, len(sent), m.drops())
		}
		for _, f := range sent {
			if got := packet.MAC(f.frame); got != was {
				t.Fatalf("seed %d: the flow is at %v, a fragment went to %v", seed, was, got)
			}
		}
		m.put(m.any(), 0, toClientFailed(errorKinds()[0], udpTo(vipDSR4), 0))
		if sent := m.settle(); len(sent) != 1 || packet.MAC(sent[0].frame) != was {
			t.Fatalf("seed %d: the flow is at %v, an error went %+v", seed, was, sent)
		}
		m.check(t)
	}
}

// Who is asked for the flow of a fragment or an error takes nothing from a rate:
// as much gets through as with one worker.
func TestAskedWorkersDoNotCount(t *testing.T) {
	through := func(workers int) (fragments, errors int) {
		m := natMachine(t, workers, 1, snatPort, snatPort)
		for _, f := range packettest.Fragments(with(udpTo(vipPackets), long), 16) { // 3 packets at once
			m.put(0, 0, f)
			fragments += len(m.settle())
		}
		for range 400 {
			m.put(0, 0, toClientFailed(errorKinds()[0], to(vipDSR4), 0))
			errors += len(m.settle())
		}
		return fragments, errors
	}
	fragments, errors := through(1)
	if fragments != 3 || errors == 0 || errors == 400 {
		t.Fatalf("with one worker %d fragments and %d errors get through", fragments, errors)
	}
	if f, e := through(4); f != fragments || e != errors {
		t.Errorf("%d fragments and %d errors get through, with one worker it were %d and %d", f, e, fragments, errors)
	}
}

// The answers and errors of a worker that has gone go nowhere, and nobody is
// asked who is not there.
func TestWorkerGone(t *testing.T) {
	for _, v := range natVariants() {
		m := natMachine(t, 3, 1, snatPort, snatPort)
		m.put(0, 0, packettest.Frame(udpTo(v.vip)))
		m.settle()
		m.workers = m.workers[1:]
		for _, w := range m.workers {
			w.SetPeers([]uint16{12, 7})
		}
		m.put(m.any(), 1, packettest.Frame(answerTo(udpTo(v.vip))))
		m.put(m.any(), 1, toBackendFailed(errorKinds()[0], udpTo(v.vip), 0))
		m.put(m.any(), 0, toClientFailed(errorKinds()[0], udpTo(v.vip), 0))
		if n := len(m.settle()); n != 0 && natBackendOf(v.vip).mode == snapshot.NAT {
			t.Errorf("%s: %d frames of a flow that nobody has", v.name, n)
		}
	}
}

// What is left of a rate stays when the snapshot changes, whatever place in it
// the service has.
func TestRatesOutliveSnapshots(t *testing.T) {
	spec := func(first bool) snapshot.Spec {
		s := natSpec(nat.NewSpace(), snatPort, snatPort)
		if !first { // another service takes the place of the first, which goes last
			n := len(s.Services)
			s.Services = append(s.Services, s.Services[0])
			s.Services[0] = snapshot.Service{ID: 1000, Empty: stats.NoBackend}
			for i := range s.VIPs {
				if s.VIPs[i].Service == 0 {
					s.VIPs[i].Service = uint32(n)
				}
			}
			s.Backends[0].Service = uint32(n)
		}
		s.Services[s.Backends[0].Service].Limits.Packets = limit.Rate{PerSecond: 1, Burst: 3}
		return s
	}
	r := newRig(t, 64, must(snapshot.New(spec(true))))
	for n := range 6 {
		if n == 2 {
			r.Adopt(must(snapshot.New(spec(false))))
		}
		_, v := r.one(packettest.Frame(udpTo(vipDSR4)), 0)
		if want := n < 3; (v.Action == forward.Send) != want {
			t.Errorf("packet %d: verdict %+v (%v)", n, v, v.Reason)
		}
	}
}

// A rate for each source of all addresses together is one for a prefix of no
// bits.
func TestRateOfTheWholeInternet(t *testing.T) {
	spec := natSpec(nat.NewSpace(), snatPort, snatPort)
	spec.Services[0].Limits.SourcePackets = limit.Rate{PerSecond: 1, Burst: 3}
	r := newRig(t, 64, must(snapshot.New(spec)))
	for n := range 5 {
		frame := packettest.Frame(with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Src = clientAddr(n) }))
		if _, v := r.one(frame, 0); (v.Action == forward.Send) != (n < 3) {
			t.Errorf("packet %d: verdict %+v (%v)", n, v, v.Reason)
		}
	}
}
