package snapshot_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weir/dataplane/limit"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
)

// generations is a spec of backends with these generations, which have nothing else.
func generations(all ...uint32) snapshot.Spec {
	var spec snapshot.Spec
	for _, g := range all {
		spec.Backends = append(spec.Backends, snapshot.Backend{Generation: g, Service: snapshot.None})
	}
	return spec
}

// next is the snapshot that follows one.
func next(t *testing.T, before *snapshot.Snapshot, spec snapshot.Spec, changed ...uint32) *snapshot.Snapshot {
	t.Helper()
	spec.Before, spec.Slots = before, len(spec.Backends)
	for _, slot := range changed {
		spec.Placed = append(spec.Placed, snapshot.Placed{Slot: slot, Backend: spec.Backends[slot]})
	}
	if before != nil {
		spec.Backends = nil
	}
	s, err := snapshot.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChanges(t *testing.T) {
	a := next(t, nil, generations(1, 1, 1))
	health := next(t, a, generations(1, 1, 1), 0, 1)
	b := next(t, health, generations(1, 2, 1), 0, 1)
	grown := next(t, b, generations(1, 2, 1, 1), 3)
	c := next(t, grown, generations(2, 3, 1, 1), 0, 1)
	other := next(t, a, generations(1, 2, 1), 1) // follows as well, by another way
	anew := next(t, nil, generations(2, 3, 1, 1))
	for _, test := range []struct {
		name        string
		since, from *snapshot.Snapshot
		want        []uint32
		all         bool
	}{
		{"nothing before", nil, a, nil, true},
		{"the same", a, a, nil, false},
		{"no hands", a, health, nil, false},
		{"one", health, b, []uint32{1}, false},
		{"one, with one between", a, b, []uint32{1}, false},
		{"a new slot", b, grown, []uint32{3}, false},
		{"several", a, c, []uint32{0, 1, 3}, false},
		{"backwards", b, a, nil, true},
		{"another way", b, other, nil, true},
		{"another way, further on", other, c, nil, true},
		{"built anew", c, anew, nil, true},
	} {
		slots, all := test.from.Changes(test.since)
		slices.Sort(slots)
		if slots = slices.Compact(slots); !slices.Equal(slots, test.want) || all != test.all {
			t.Errorf("%s: slots %v, all %t", test.name, slots, all)
		}
	}
}

// What is too old is not known any more, and never forgotten in silence.
func TestChangesOfLongAgo(t *testing.T) {
	const slots = 100
	now := make([]uint32, slots)
	all := []*snapshot.Snapshot{next(t, nil, generations(now...))}
	for range 100 {
		n := rand.N(slots)
		now[n]++
		all = append(all, next(t, all[len(all)-1], generations(now...), uint32(n)))
	}
	last, known := all[len(all)-1], 0
	for _, since := range all {
		changed, unknown := last.Changes(since)
		if unknown {
			continue
		}
		known++
		for n := range uint32(since.Slots()) {
			if since.Backend(n).Generation != now[n] && !slices.Contains(changed, uint32(n)) {
				t.Fatalf("slot %d is missing", n)
			}
		}
	}
	if known < 10 || known == len(all) {
		t.Errorf("changes are known since %d of %d", known, len(all))
	}
}

// What is shared with the snapshot before is as if it had been built anew.
func TestFollowingAgreesWithNew(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 3))
		spec := snapshot.Spec{Services: followed(), SNAT: []snapshot.SNAT{snat("10.0.0.240", 0)}}
		for i := range spec.Services {
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: numbered(203, i/2), Proto: tcp, Lo: uint16(80 + 10*(i%2)), Hi: uint16(81 + 10*(i%2) + i%3), Service: uint32(i)})
		}
		for range 250 { // and more than a page in the end
			spec.Backends = append(spec.Backends, randomBackend(rng))
		}
		var before *snapshot.Snapshot
		for n := range 40 {
			spec.Before, spec.Placed, spec.Services = before, nil, slices.Clone(spec.Services)
			place := func(slot int, b snapshot.Backend) {
				spec.Backends[slot] = b
				spec.Placed = append(spec.Placed, snapshot.Placed{Slot: uint32(slot), Backend: b})
			}
			for range rng.IntN(3) {
				place(rng.IntN(len(spec.Backends)), randomBackend(rng))
			}
			switch rng.IntN(6) {
			case 0:
				spec.Backends = append(spec.Backends, snapshot.Backend{})
				place(len(spec.Backends)-1, randomBackend(rng))
			case 1:
				spec.VIPs = slices.Clone(spec.VIPs)
				v := &spec.VIPs[rng.IntN(len(spec.VIPs))]
				v.Lo, v.Hi = v.Lo^128, v.Hi^128
			case 2:
				spec.Services[rng.IntN(len(spec.Services))].ID = uint32(rng.IntN(3))
			case 3:
				spec.Services[rng.IntN(len(spec.Services))].Limits.SourcePackets = limit.Rate{PerSecond: uint32(rng.IntN(2))}
			}
			spec.Slots = len(spec.Backends)
			spec.Policies = []snapshot.VIPPolicy{{Addr: numbered(203, rng.IntN(3)), Mute: true}}
			follows := spec
			if before != nil {
				follows.Backends = nil
			}
			got, err := snapshot.New(follows)
			if err != nil {
				t.Fatal(err)
			}
			anew := spec
			anew.Before, anew.Placed = nil, nil
			want, err := snapshot.New(anew)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := told(got), told(want); a != b {
				t.Fatalf("seed %d, snapshot %d:\n%s\nanew:\n%s", seed, n, a, b)
			}
			before = got
		}
	}
}

func followed() []snapshot.Service {
	all := services(6)
	for i := range all {
		all[i].ID = uint32(i / 2)
		all[i].Mode = []snapshot.Mode{snapshot.Direct, snapshot.NATKeep, snapshot.NAT}[i%3]
	}
	return all
}

func numbered(first byte, n int) [16]byte {
	return packet.Addr16(netip.AddrFrom4([4]byte{first, 0, 0, byte(n)}))
}

// randomBackend is one of few, so that they meet.
func randomBackend(rng *rand.Rand) snapshot.Backend {
	b := snapshot.Backend{
		State: snapshot.BackendState(rng.IntN(3)), Service: uint32(rng.IntN(6)), Generation: uint32(rng.IntN(3)),
		Addr: numbered(10, rng.IntN(6)), Port: uint16(rng.IntN(2) * 8080),
	}
	link := rewrite.Link{Dst: packet.MAC{2}, MTU: 1500}
	if b.State != snapshot.Removed && rng.IntN(2) == 0 {
		b.Rewrite, _ = rewrite.IPIP(link, false, rewrite.Tunnel{
			Source: packet.NetipAddr(numbered(11, rng.IntN(2))), Destination: packet.NetipAddr(b.Addr),
		})
	}
	return b
}

// told is what a snapshot says of all backends, addresses and ports that there are.
func told(s *snapshot.Snapshot) string {
	var b strings.Builder
	fmt.Fprintln(&b, s.NAT(), *s.Doors())
	for slot := range uint32(s.Slots()) {
		fmt.Fprintln(&b, "slot", slot, *s.Backend(slot))
	}
	for n := range 6 {
		vip, addr := numbered(203, n), numbered(10, n)
		if v := s.VIP(&vip); v != nil {
			fmt.Fprintln(&b, "VIP", n, v.Policy)
			for port := range uint16(300) {
				if of := v.Service(tcp, port); of != snapshot.None {
					fmt.Fprintln(&b, port, of)
				}
			}
		}
		for _, ports := range [][2]uint16{{0, 300}, {8000, 8100}} {
			for port := ports[0]; port < ports[1]; port++ {
				if s.IsAnswer(&addr, tcp, port) {
					fmt.Fprintln(&b, "answer", n, port)
				}
			}
		}
		for from := range 2 {
			src := numbered(11, from)
			fmt.Fprintln(&b, "tunnel", s.IsTunnel(&src, &addr))
		}
	}
	return b.String()
}
