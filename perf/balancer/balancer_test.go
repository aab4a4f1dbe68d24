package balancer

import (
	"net/netip"
	"testing"

	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/snapshot"
	"weir/dataplane/steer"
	"weir/perf/world"
)

// A flow that is known may stay where it was when all backends are drained, and
// every one that is not goes elsewhere: so a flow that was lost shows.
func TestDrained(t *testing.T) {
	at := engine.InterfaceStatus{Name: "loop", MAC: packet.MAC{2, 0, 0, 0, 0, 2}, MTU: 1500}
	for _, mode := range Modes() {
		t.Run(string(mode), func(t *testing.T) {
			opt := &Options{Mode: mode, SNAT: 4}
			space := nat.NewSpace()
			var picks [2]map[uint32]bool
			for i, state := range []states{firstHalf, secondHalf} {
				snap, err := compile(opt, uint64(i+1), state, at, space)
				if err != nil {
					t.Fatal(err)
				}
				vip := world.VIP4.As16()
				service := snap.VIP(&vip).Service(packet.ProtoTCP, 9)
				if service == snapshot.None {
					t.Fatal("no service")
				}
				picks[i] = make(map[uint32]bool)
				for port := range uint16(1000) {
					slot := snap.Services[service].Pick(flow.HashStable(&packet.Tuple{SrcPort: port}))
					if snap.Backend(slot).State != snapshot.Active {
						t.Fatalf("a new flow goes to backend %d, which is %v", slot, snap.Backend(slot).State)
					}
					picks[i][slot] = true
				}
				for slot := range uint32(half) {
					if state := snap.Backend(slot).State; i == 1 && state != snapshot.Keeps {
						t.Errorf("drained backend %d is %v", slot, state)
					}
				}
			}
			if len(picks[0]) != half || len(picks[1]) != half {
				t.Errorf("flows go to %v before and to %v after, want %d backends each", picks[0], picks[1], half)
			}
			for slot := range picks[0] {
				if slot >= half || picks[1][slot] {
					t.Errorf("backend %d gets new flows when it should not", slot)
				}
			}
		})
	}
}

// Each turn has another backend out, which gets no new flow, as all others do.
func TestTurn(t *testing.T) {
	for _, mode := range Modes() {
		b := &Balancer{opt: Options{Mode: mode, SNAT: 4}}
		p := &noted{space: nat.NewSpace()}
		b.plane = p
		for turn := range 2 * world.Backends {
			if err := b.Turn(); err != nil {
				t.Fatal(err)
			}
			snap := p.applied
			if snap.Generation != uint64(turn+1) || b.Snapshots() != turn+1 {
				t.Errorf("%s, turn %d: generation %d, %d snapshots", mode, turn, snap.Generation, b.Snapshots())
			}
			vip := world.VIP4.As16()
			svc := &snap.Services[snap.VIP(&vip).Service(packet.ProtoTCP, world.Port)]
			picked := make(map[uint32]bool)
			for port := range uint16(1000) {
				picked[svc.Pick(flow.HashStable(&packet.Tuple{SrcPort: port}))] = true
			}
			out := uint32(turn % world.Backends)
			if picked[out] || len(picked) != world.Backends-1 || snap.Backend(out).State != snapshot.Removed {
				t.Errorf("%s, turn %d: flows go to %v, and backend %d is %v", mode, turn, picked, out, snap.Backend(out).State)
			}
		}
	}
}

// noted is a plane that keeps what it is given.
type noted struct {
	plane
	space   *nat.Space
	applied *snapshot.Snapshot
}

func (n *noted) Apply(s *snapshot.Snapshot, _ steer.Set) error { n.applied = s; return nil }
func (n *noted) NATSpace() *nat.Space                          { return n.space }
func (n *noted) Interfaces() []engine.InterfaceStatus {
	return []engine.InterfaceStatus{{Name: "loop", MAC: packet.MAC{2, 0, 0, 0, 0, 2}, MTU: 1500}}
}

func TestLost(t *testing.T) {
	client := func(last byte) packet.Tuple {
		return packet.Tuple{Src: netip.AddrFrom4([4]byte{198, 18, 0, last}).As16()}
	}
	before := map[packet.Tuple]place{client(1): {0, 1}, client(2): {1, 1}, client(3): {2, 1}, client(4): {3, 1}}
	for name, test := range map[string]struct {
		now  map[packet.Tuple]place
		want Loss
	}{
		"none":            {before, Loss{}},
		"all":             {nil, Loss{Gone: 4}},
		"others came":     {map[packet.Tuple]place{client(1): {0, 1}, client(2): {1, 1}, client(3): {2, 1}, client(4): {3, 1}, client(5): {4, 1}}, Loss{}},
		"one went":        {map[packet.Tuple]place{client(1): {0, 1}, client(2): {1, 1}, client(4): {3, 1}}, Loss{Gone: 1}},
		"another backend": {map[packet.Tuple]place{client(1): {4, 1}, client(2): {1, 1}, client(3): {2, 1}, client(4): {3, 1}}, Loss{Moved: 1}},
		"its successor":   {map[packet.Tuple]place{client(1): {0, 2}, client(2): {1, 1}, client(3): {2, 1}}, Loss{Gone: 1, Moved: 1}},
	} {
		if got := lost(before, test.now); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestNoSuchMode(t *testing.T) {
	if _, err := Open(Options{Mode: "bridge"}); err == nil {
		t.Error("accepted")
	}
}
