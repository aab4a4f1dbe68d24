package snapshot_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
)

func addr16(s string) [16]byte { return packet.Addr16(netip.MustParseAddr(s)) }

func snat(addr string, slot uint16) snapshot.SNAT {
	return snapshot.SNAT{Addr: addr16(addr), Range: nat.Range{Slot: slot, Lo: 1024, Hi: 65535}}
}

// keepSpec is a spec of one service that leaves the clients' addresses.
func keepSpec(backends ...snapshot.Backend) snapshot.Spec {
	return snapshot.Spec{
		Services: []snapshot.Service{{Name: "keep", Mode: snapshot.NATKeep}, {Name: "other", ID: 1}},
		Backends: backends,
		VIPs: []snapshot.VIPSpec{
			{Addr: vip4, Proto: tcp, Lo: 80, Hi: 82},
			{Addr: vip4, Proto: udp, Lo: 53, Hi: 53},
			{Addr: vip4, Proto: tcp, Lo: 443, Hi: 443, Service: 1},
		},
	}
}

func TestIsAnswer(t *testing.T) {
	s, err := snapshot.New(keepSpec(
		snapshot.Backend{State: snapshot.Active, Addr: addr16("10.0.0.1")},
		snapshot.Backend{State: snapshot.Keeps, Addr: addr16("10.0.0.2"), Port: 8080},
		snapshot.Backend{State: snapshot.Removed, Addr: addr16("10.0.0.3")},
		snapshot.Backend{State: snapshot.Active, Addr: addr16("10.0.0.4"), Service: 1},
	))
	if err != nil {
		t.Fatal(err)
	}
	if !s.HasAnswers() {
		t.Error("there can be no answers")
	}
	for _, test := range []struct {
		addr  string
		proto uint8
		port  uint16
		want  bool
	}{
		{"10.0.0.1", tcp, 80, true}, {"10.0.0.1", tcp, 82, true}, {"10.0.0.1", udp, 53, true},
		{"10.0.0.1", tcp, 79, false}, {"10.0.0.1", tcp, 83, false}, {"10.0.0.1", udp, 80, false},
		{"10.0.0.1", tcp, 443, false}, {"10.0.0.1", tcp, 8080, false},
		{"10.0.0.2", tcp, 8080, true}, {"10.0.0.2", udp, 8080, true}, {"10.0.0.2", tcp, 80, false},
		{"10.0.0.3", tcp, 80, false}, {"10.0.0.4", tcp, 443, false}, {"10.0.0.5", tcp, 80, false},
		{"::10.0.0.1", tcp, 80, false},
	} {
		a := addr16(test.addr)
		if got := s.IsAnswer(&a, test.proto, test.port); got != test.want {
			t.Errorf("%s port %d protocol %d: %t", test.addr, test.port, test.proto, got)
		}
	}
}

func TestNoAnswersWithoutKeep(t *testing.T) {
	spec := keepSpec(snapshot.Backend{State: snapshot.Active, Addr: addr16("10.0.0.1")})
	spec.Services[0].Mode = snapshot.NAT
	s, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	if a := addr16("10.0.0.1"); s.HasAnswers() || s.IsAnswer(&a, tcp, 80) {
		t.Error("answers to a client's own address, where no backend knows it")
	}
}

func TestSNAT(t *testing.T) {
	s, err := snapshot.New(snapshot.Spec{
		Services: services(1),
		VIPs:     []snapshot.VIPSpec{{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80}},
		SNAT:     []snapshot.SNAT{snat("10.0.0.240", 0), snat("fd00::f0", 5), snat("10.0.0.241", 2)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for slot, want := range map[uint16]bool{0: true, 1: false, 2: true, 3: false, 4: false, 5: true, 6: false, 65535: false} {
		if got := s.SNATInUse(slot, 65535); got != want || s.SNATInUse(slot, 1024) != want {
			t.Errorf("slot %d in use: %t", slot, got)
		}
		if s.SNATInUse(slot, 1023) || s.SNATInUse(slot, 0) {
			t.Errorf("slot %d: a port outside the range is in use", slot)
		}
	}
	b4, b6 := addr16("10.1.0.1"), addr16("fd01::1")
	if got := s.SNAT(&b4); len(got) != 2 || got[0].Addr != addr16("10.0.0.240") || got[1].Addr != addr16("10.0.0.241") {
		t.Errorf("for an IPv4 backend: %+v", got)
	}
	if got := s.SNAT(&b6); len(got) != 1 || got[0].Addr != addr16("fd00::f0") {
		t.Errorf("for an IPv6 backend: %+v", got)
	}
	for addr, slot := range map[string]uint16{"10.0.0.240": 0, "10.0.0.241": 2, "fd00::f0": 5} {
		a := addr16(addr)
		vip := s.VIP(&a)
		if vip == nil || vip.SNAT == nil || vip.SNAT.Range.Slot != slot || vip.Service(tcp, 80) != snapshot.None {
			t.Errorf("%s: %+v", addr, vip)
		}
	}
	if vip := s.VIP(&vip4); vip == nil || vip.SNAT != nil || vip.Service(tcp, 80) != 0 {
		t.Errorf("the VIP: %+v", vip)
	}
}

func TestSNATErrors(t *testing.T) {
	for name, test := range map[string]struct {
		snat []snapshot.SNAT
		want string
	}{
		"twice": {[]snapshot.SNAT{snat("10.0.0.240", 0), snat("10.0.0.240", 1)}, "10.0.0.240 is given twice"},
		"a VIP": {[]snapshot.SNAT{snat("203.0.113.10", 0)}, "203.0.113.10 is given twice as a SNAT address, or is a VIP too"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := snapshot.New(snapshot.Spec{
				Services: services(1), SNAT: test.snat,
				VIPs: []snapshot.VIPSpec{{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80}},
			})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestPolicies(t *testing.T) {
	s, err := snapshot.New(snapshot.Spec{
		Services: services(1),
		VIPs:     []snapshot.VIPSpec{{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80}, {Addr: vip6, Proto: tcp, Lo: 80, Hi: 80}},
		Policies: []snapshot.VIPPolicy{
			{Addr: vip4, Mute: true, Reject: snapshot.RejectReset},
			{Addr: addr16("192.0.2.9"), Mute: true}, // is no VIP
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := s.VIP(&vip4).Policy; !p.Mute || p.Reject != snapshot.RejectReset {
		t.Errorf("policy %+v", p)
	}
	if p := s.VIP(&vip6).Policy; p.Mute || p.Reject != snapshot.RejectSilently {
		t.Errorf("a VIP without a policy has %+v", p)
	}
}

func TestTunnels(t *testing.T) {
	link := rewrite.Link{Dst: packet.MAC{2}, MTU: 1500}
	var spec snapshot.Spec
	for _, tunnel := range []rewrite.Tunnel{
		{Source: netip.MustParseAddr("10.0.0.2"), Destination: netip.MustParseAddr("10.0.1.1")},
		{Source: netip.MustParseAddr("10.7.0.0"), Destination: netip.MustParseAddr("10.0.1.2"), Spread: true},
		{Source: netip.MustParseAddr("fd00::2"), Destination: netip.MustParseAddr("fd00::1:1")},
		{Source: netip.MustParseAddr("fd00:7::"), Destination: netip.MustParseAddr("fd00::1:2"), Spread: true},
	} {
		rw, err := rewrite.IPIP(link, false, tunnel)
		if err != nil {
			t.Fatal(err)
		}
		spec.Backends = append(spec.Backends, snapshot.Backend{Rewrite: rw})
	}
	direct, err := rewrite.DSR(link, false)
	if err != nil {
		t.Fatal(err)
	}
	spec.Backends = append(spec.Backends, snapshot.Backend{Rewrite: direct})
	s, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	none, err := snapshot.New(snapshot.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if !s.HasTunnels() || none.HasTunnels() {
		t.Errorf("tunnels: %t and %t", s.HasTunnels(), none.HasTunnels())
	}
	for _, test := range []struct {
		src, dst string
		want     bool
	}{
		{"10.0.0.2", "10.0.1.1", true}, {"10.0.0.3", "10.0.1.1", false}, {"10.0.0.2", "10.0.1.2", false},
		{"10.7.255.1", "10.0.1.2", true}, {"10.8.0.1", "10.0.1.2", false}, {"10.0.0.2", "10.0.1.9", false},
		{"fd00::2", "fd00::1:1", true}, {"fd00::3", "fd00::1:1", false},
		{"fd00:7::1234:5678", "fd00::1:2", true}, {"fd00:7::1:0:0", "fd00::1:2", false},
		{"0.0.0.0", "0.0.0.0", false}, {"::", "::", false}, {"10.0.0.2", "fd00::1:1", false},
	} {
		src, dst := addr16(test.src), addr16(test.dst)
		if s.IsTunnel(&src, &dst) != test.want || none.IsTunnel(&src, &dst) {
			t.Errorf("%s > %s: want %t", test.src, test.dst, test.want)
		}
	}
}

// SNAT addresses are found among VIPs, whatever the table's collisions.
func TestSNATAgreesWithMap(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 2))
		spec := snapshot.Spec{Services: services(1)}
		oracle := map[[16]byte]int{} // the SNAT address's slot, or -1 for a VIP
		for i := range 1 + rng.IntN(300) {
			a := randomVIP(rng, int(seed))
			if _, ok := oracle[a]; ok {
				continue
			}
			oracle[a] = -1
			if rng.IntN(2) == 0 {
				oracle[a] = i
				spec.SNAT = append(spec.SNAT, snapshot.SNAT{Addr: a, Range: nat.Range{Slot: uint16(i)}})
				continue
			}
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: a, Proto: tcp, Lo: 80, Hi: 80})
		}
		s, err := snapshot.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		for a, slot := range oracle {
			vip := s.VIP(&a)
			if vip == nil || (vip.SNAT == nil) != (slot < 0) || slot >= 0 && int(vip.SNAT.Range.Slot) != slot {
				t.Fatalf("seed %d: %v is %+v, want slot %d", seed, packet.NetipAddr(a), vip, slot)
			}
		}
	}
}
