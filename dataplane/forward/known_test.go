package forward_test

import (
	"net/netip"
	"testing"

	"weir/dataplane/acl"
	"weir/dataplane/forward"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// ackOf is the client's segment that follows what a description opens.
func ackOf(s packettest.Spec) packettest.Spec {
	s.TCPFlags, s.Seq, s.Payload = packet.TCPAck, s.Seq+1, []byte("data")
	return s
}

// makeKnown opens a connection and goes on until its packets need no look at
// their service any more.
func makeKnown(t *testing.T, r *rig, s packettest.Spec) {
	t.Helper()
	tuple := packet.Tuple{
		Src: s.Src.Addr().As16(), Dst: s.Dst.Addr().As16(), SrcPort: s.Src.Port(), DstPort: s.Dst.Port(), Proto: s.Proto,
	}
	for i, frame := range [][]byte{packettest.Frame(s), packettest.Frame(ackOf(s))} {
		if r.Knows(tuple) {
			t.Fatalf("known after %d packets", i)
		}
		if _, v := r.one(frame, 0); v.Action != forward.Send {
			t.Fatalf("packet %d: %+v (%v)", i, v, v.Reason)
		}
	}
	if !r.Knows(tuple) {
		t.Fatal("not known after two packets in sequence")
	}
}

// What a flow was found to be right by may change: its packets are then treated as
// those of any other.
func TestKnownFlowFollowsSnapshots(t *testing.T) {
	nobody := acl.New(nil, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
	twice := limit.Rate{PerSecond: 1, Burst: 2}
	service := func(s *snapshot.Spec, vip netip.Addr) *snapshot.Service {
		for _, v := range s.VIPs {
			if v.Addr == vip.As16() {
				return &s.Services[v.Service]
			}
		}
		panic("no such VIP")
	}
	backend := func(s *snapshot.Spec, vip netip.Addr) *snapshot.Backend {
		return &s.Backends[service(s, vip).Members[0]]
	}
	for name, test := range map[string]struct {
		change func(s *snapshot.Spec, vip netip.Addr)
		want   [3]stats.Reason // of the next packets
	}{
		"nothing": {func(*snapshot.Spec, netip.Addr) {}, [3]stats.Reason{}},
		"drains": {func(s *snapshot.Spec, vip netip.Addr) {
			backend(s, vip).State = snapshot.Keeps
			service(s, vip).Table, service(s, vip).Empty = nil, stats.NoBackend
		}, [3]stats.Reason{}},
		"VIP is gone": {func(s *snapshot.Spec, vip netip.Addr) {
			for i := range s.VIPs {
				if s.VIPs[i].Addr == vip.As16() {
					s.VIPs[i].Addr = netip.MustParseAddr("203.0.113.200").As16()
					s.VIPs[i].Lo += uint16(i) // there are two
					s.VIPs[i].Hi += uint16(i)
				}
			}
		}, [3]stats.Reason{stats.UnknownVIP, stats.UnknownVIP, stats.UnknownVIP}},
		"access is denied": {func(s *snapshot.Spec, vip netip.Addr) { service(s, vip).ACL = nobody },
			[3]stats.Reason{stats.Denied, stats.Denied, stats.Denied}},
		"packets are limited": {func(s *snapshot.Spec, vip netip.Addr) { service(s, vip).Limits.Packets = twice },
			[3]stats.Reason{stats.ReasonNone, stats.ReasonNone, stats.ServiceLimit}},
		"interface has another address": {func(s *snapshot.Spec, _ netip.Addr) { s.Interfaces[0].MAC = otherMAC },
			[3]stats.Reason{stats.ForeignMAC, stats.ForeignMAC, stats.ForeignMAC}},
		"interface has no address": {func(s *snapshot.Spec, _ netip.Addr) { s.Interfaces[0].MAC = packet.MAC{} },
			[3]stats.Reason{stats.ForeignMAC, stats.ForeignMAC, stats.ForeignMAC}},
	} {
		for _, vip := range []netip.Addr{vipDSR4, vipDSR6, vip4in4, vip6in4, vipNAT44, vipNAT46, vipNAT66, vipNAT64, vipKeep4} {
			t.Run(name+"/"+vip.String(), func(t *testing.T) {
				space := nat.NewSpace()
				r := newWorker(t, 1<<10, 0, space)
				r.Adopt(must(snapshot.New(natSpec(space, snatPort, snatPort))))
				makeKnown(t, r, to(vip))
				spec := natSpec(space, snatPort, snatPort)
				test.change(&spec, vip)
				r.Adopt(must(snapshot.New(spec)))
				for i, want := range test.want {
					_, v := r.one(packettest.Frame(ackOf(to(vip))), 0)
					if v.Reason != want || (v.Action == forward.Send) != (want == stats.ReasonNone) {
						t.Errorf("packet %d: %+v (%v), want %v", i, v, v.Reason, want)
					}
				}
			})
		}
	}
}

// A backend that is gone takes none of its known flows' packets, and who has its
// slot afterwards neither.
func TestKnownFlowMoves(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<10, p.snapshot())
	s := to(vipDSR4)
	makeKnown(t, r, s)
	was := r.slot(packettest.Frame(ackOf(s)), 0)
	for _, change := range []func(){
		func() { p.backends[was].state = snapshot.Removed },
		func() { p.backends[was] = member{snapshot.Keeps, 100, 2} },
	} {
		change()
		r.Adopt(p.snapshot())
		for range 3 {
			if is := r.slot(packettest.Frame(ackOf(s)), 0); is == was || is == snapshot.None {
				t.Errorf("the flow was on slot %d, is on %d", was, is)
			}
		}
	}
}

// Whoever owns a flow under NAT that keeps the client's address may change with the
// workers that there are.
func TestKnownFlowIsGivenToItsKeeper(t *testing.T) {
	space := nat.NewSpace()
	r := newWorker(t, 1<<10, 0, space)
	r.Adopt(natWorld(space))
	var known []packettest.Spec
	for port := range uint16(16) {
		s := to(vipKeep4)
		s.Src = netip.AddrPortFrom(client4.Addr(), 2000+port)
		makeKnown(t, r, s)
		known = append(known, s)
	}
	r.SetPeers([]uint16{0, 1})
	passed := 0
	for _, s := range known {
		if _, v := r.one(packettest.Frame(ackOf(s)), 0); v.Action == forward.Taken {
			passed++
		}
	}
	if passed == 0 || passed == len(known) || passed != len(r.passed) {
		t.Errorf("%d of %d flows' packets are the other worker's, which was given %d", passed, len(known), len(r.passed))
	}
}
