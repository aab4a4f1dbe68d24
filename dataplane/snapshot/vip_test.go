package snapshot_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

var (
	vip4 = packet.Addr16(netip.MustParseAddr("203.0.113.10"))
	vip6 = packet.Addr16(netip.MustParseAddr("2001:db8:1::10"))
)

const tcp, udp = packet.ProtoTCP, packet.ProtoUDP

// services returns n services called s0, s1 and so on.
func services(n int) []snapshot.Service {
	s := make([]snapshot.Service, n)
	for i := range s {
		s[i].Name = fmt.Sprintf("s%d", i)
	}
	return s
}

func TestServiceOfPort(t *testing.T) {
	s, err := snapshot.New(snapshot.Spec{
		Services: services(5),
		VIPs: []snapshot.VIPSpec{
			// In no order, next to each other, and up to both ends.
			{Addr: vip4, Proto: tcp, Lo: 443, Hi: 443, Service: 1},
			{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80, Service: 0},
			{Addr: vip4, Proto: tcp, Lo: 444, Hi: 500, Service: 2},
			{Addr: vip4, Proto: udp, Lo: 0, Hi: 80, Service: 3},
			{Addr: vip4, Proto: udp, Lo: 65535, Hi: 65535, Service: 4},
			{Addr: vip6, Proto: tcp, Lo: 0, Hi: 65535, Service: 4},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr  [16]byte
		proto uint8
		port  uint16
		want  uint32
	}{
		{vip4, tcp, 80, 0}, {vip4, tcp, 79, snapshot.None}, {vip4, tcp, 81, snapshot.None},
		{vip4, tcp, 0, snapshot.None}, {vip4, tcp, 65535, snapshot.None},
		{vip4, tcp, 442, snapshot.None}, {vip4, tcp, 443, 1},
		{vip4, tcp, 444, 2}, {vip4, tcp, 500, 2}, {vip4, tcp, 501, snapshot.None},
		{vip4, udp, 0, 3}, {vip4, udp, 80, 3}, {vip4, udp, 81, snapshot.None},
		{vip4, udp, 65534, snapshot.None}, {vip4, udp, 65535, 4},
		{vip6, tcp, 0, 4}, {vip6, tcp, 65535, 4}, {vip6, udp, 80, snapshot.None},
	} {
		vip := s.VIP(&test.addr)
		if vip == nil {
			t.Fatalf("%s is no VIP", packet.NetipAddr(test.addr))
		}
		if got := vip.Service(test.proto, test.port); got != test.want {
			t.Errorf("%s protocol %d port %d: service %d, want %d",
				packet.NetipAddr(test.addr), test.proto, test.port, got, test.want)
		}
	}
	for _, no := range []string{"203.0.113.11", "::", "0.0.0.0", "2001:db8:1::11", "ff02::1", "255.255.255.255"} {
		if addr := packet.Addr16(netip.MustParseAddr(no)); s.VIP(&addr) != nil {
			t.Errorf("%s is a VIP", no)
		}
	}
}

func TestNoVIPs(t *testing.T) {
	s, err := snapshot.New(snapshot.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range [][16]byte{{}, vip4, vip6} {
		if s.VIP(&addr) != nil {
			t.Errorf("%s is a VIP of an empty snapshot", packet.NetipAddr(addr))
		}
	}
}

func TestSpecErrors(t *testing.T) {
	v := func(proto uint8, lo, hi uint16, service uint32) snapshot.VIPSpec {
		return snapshot.VIPSpec{Addr: vip4, Proto: proto, Lo: lo, Hi: hi, Service: service}
	}
	for name, test := range map[string]struct {
		spec snapshot.Spec
		want string // "" for none
	}{
		"touching":  {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 1, 2, 0), v(tcp, 3, 4, 1)}}, ""},
		"protocols": {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 80, 80, 0), v(udp, 80, 80, 1)}}, ""},
		"same":      {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 80, 80, 0), v(tcp, 80, 80, 1)}}, "s0 and s1 both claim 203.0.113.10 protocol 6 port 80"},
		"edge":      {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(udp, 5, 9, 1), v(udp, 1, 5, 0)}}, "s0 and s1 both claim 203.0.113.10 protocol 17 port 5"},
		"inside":    {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 7, 7, 1), v(tcp, 0, 65535, 0)}}, "s0 and s1 both claim 203.0.113.10 protocol 6 port 7"},
		"protocol":  {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(packet.ProtoICMPv4, 0, 0, 0)}}, "protocol 1 is neither"},
		"service":   {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 1, 1, 2)}}, "no service 2"},
		"none":      {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 1, 1, snapshot.None)}}, "no service 4294967295"},
		"backwards": {snapshot.Spec{VIPs: []snapshot.VIPSpec{v(tcp, 2, 1, 0)}}, "port range 2-1"},
		"member": {snapshot.Spec{
			Services: []snapshot.Service{{Name: "web", Members: []uint32{0, 1}}},
			Backends: make([]snapshot.Backend, 1),
		}, "service web: there is no backend slot 1"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.spec.Services == nil {
				test.spec.Services = services(2)
			}
			_, err := snapshot.New(test.spec)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("error %v, want none", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// The lookup is compared with a map from every claimed port to its service.
func TestLookupAgreesWithMap(t *testing.T) {
	type key struct {
		addr  [16]byte
		proto uint8
		port  uint16
	}
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		oracle := map[key]uint32{}
		known := map[[16]byte]bool{}
		spec := snapshot.Spec{Services: services(1 << 12)}
		for i := range 1 + rng.IntN(1<<(rng.IntN(10)+1)) {
			addr := randomVIP(rng, int(seed))
			proto := []uint8{tcp, udp}[rng.IntN(2)]
			lo := uint16(rng.Uint32())
			hi := uint16(min(65535, int(lo)+rng.IntN(20)))
			taken := false
			for p := int(lo); p <= int(hi); p++ {
				_, t := oracle[key{addr, proto, uint16(p)}]
				taken = taken || t
			}
			if taken {
				continue
			}
			known[addr] = true
			for p := int(lo); p <= int(hi); p++ {
				oracle[key{addr, proto, uint16(p)}] = uint32(i)
			}
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: addr, Proto: proto, Lo: lo, Hi: hi, Service: uint32(i)})
		}
		s, err := snapshot.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		check := func(k key) {
			t.Helper()
			vip := s.VIP(&k.addr)
			if (vip != nil) != known[k.addr] {
				t.Fatalf("seed %d: %v: VIP %t, want %t", seed, k.addr, vip != nil, known[k.addr])
			}
			if vip == nil {
				return
			}
			want, ok := oracle[k]
			if !ok {
				want = snapshot.None
			}
			if got := vip.Service(k.proto, k.port); got != want {
				t.Fatalf("seed %d: %+v: service %d, want %d", seed, k, got, want)
			}
		}
		for k := range oracle {
			for _, d := range []int{-1, 0, 1} {
				check(key{k.addr, k.proto, k.port + uint16(d)})
				check(key{k.addr, tcp + udp - k.proto, k.port + uint16(d)})
			}
		}
		for range 1000 {
			check(key{randomVIP(rng, int(seed)), tcp, uint16(rng.Uint32())})
		}
	}
}

// randomVIP draws from few addresses, dense or sparse, so that tables get runs.
func randomVIP(rng *rand.Rand, kind int) (a [16]byte) {
	switch kind % 3 {
	case 0:
		return packet.Mapped([4]byte{203, 0, 113, byte(rng.Uint32())})
	case 1:
		a = vip6
		a[15] = byte(rng.Uint32())
	default:
		binary.BigEndian.PutUint64(a[:], rng.Uint64()&0xf)
		binary.BigEndian.PutUint64(a[8:], rng.Uint64()&0xf<<60)
	}
	return a
}

func TestPick(t *testing.T) {
	s := snapshot.Service{Table: []uint16{2, 0, 1, 0, 2}, Members: []uint32{7, 3, 900}}
	for hash, want := range map[uint64]uint32{
		0: 900, 1: 7, 2: 3, 3: 7, 4: 900, 5: 900, 6: 7, ^uint64(0): 900, // 2^64-1 is a multiple of 5
	} {
		if got := s.Pick(hash); got != want {
			t.Errorf("Pick(%d) = %d, want %d", hash, got, want)
		}
	}
	empty := snapshot.Service{Members: []uint32{1}, Empty: stats.NoBackend}
	if got := empty.Pick(5); got != snapshot.None {
		t.Errorf("Pick of an empty table = %d, want None", got)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	s, err := snapshot.New(snapshot.Spec{
		Services: services(1),
		VIPs:     []snapshot.VIPSpec{{Addr: vip4, Proto: tcp, Lo: 80, Hi: 80}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		if s.VIP(&vip4).Service(tcp, 80) != 0 || s.VIP(&vip6) != nil {
			t.Fatal("wrong answer")
		}
	}); n != 0 {
		t.Errorf("%v allocations per look-up", n)
	}
}
