package forward_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// many is a spec of services under NAT with so many backends in all, that only
// differ in their addresses.
func many(services, backends int) snapshot.Spec {
	spec := snapshot.Spec{Interfaces: interfaces()}
	rw := must(rewrite.NAT(rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(1), MTU: 1500}, false))
	for n := range services {
		spec.Services = append(spec.Services, snapshot.Service{ID: uint32(n), Mode: snapshot.NAT, Empty: stats.NoBackend})
		vip := packet.Addr16(netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)}))
		spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: vip, Proto: packet.ProtoTCP, Lo: 80, Hi: 80, Service: uint32(n)})
	}
	for n := range backends {
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: rw, State: snapshot.Active, Generation: 1, Service: uint32(n % services), Addr: manyAddr(n),
		})
	}
	return spec
}

func manyAddr(n int) [16]byte {
	return packet.Addr16(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}))
}

// following is the snapshot of a spec that follows another one.
func following(before *snapshot.Snapshot, spec snapshot.Spec, changed ...uint32) *snapshot.Snapshot {
	spec.Before, spec.Slots = before, len(spec.Backends)
	for _, slot := range changed {
		spec.Placed = append(spec.Placed, snapshot.Placed{Slot: slot, Backend: spec.Backends[slot]})
	}
	spec.Backends = nil
	return must(snapshot.New(spec))
}

// A worker that has missed snapshots ends as one that walks all slots each time:
// the same counts are kept, and the same backends remembered.
func TestAdoptAfterMissedSnapshots(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		misses := 1 + rng.IntN(40) // of each that is adopted
		spec := many(3, 20)
		chain := must(snapshot.New(spec))
		one := newWorker(t, 64, 0, nat.NewSpace())
		all := newWorker(t, 64, 0, nat.NewSpace())
		one.Adopt(chain)
		all.Adopt(must(snapshot.New(spec)))
		for n := range 300 {
			var changed []uint32
			for range rng.IntN(3) {
				changed = append(changed, uint32(rng.IntN(len(spec.Backends))))
			}
			if rng.IntN(10) == 0 {
				changed = append(changed, uint32(len(spec.Backends)))
				spec.Backends = append(spec.Backends, snapshot.Backend{})
			}
			for _, slot := range changed {
				b := &spec.Backends[slot]
				b.State = snapshot.BackendState(rng.IntN(3))
				if rng.IntN(2) == 0 {
					b.Generation++
					b.Addr = manyAddr(rng.IntN(1000))
				}
			}
			chain = following(chain, spec, changed...)
			if rng.IntN(misses) != 0 {
				continue
			}
			one.Adopt(chain)
			all.Adopt(must(snapshot.New(spec)))
			if !slices.Equal(one.counters.Backends, all.counters.Backends) {
				t.Fatalf("seed %d, snapshot %d: counts\n%v\nwith a walk over all slots\n%v", seed, n, one.counters.Backends, all.counters.Backends)
			}
			if !maps.Equal(one.Retired(), all.Retired()) {
				t.Fatalf("seed %d, snapshot %d: remembered\n%v\nwith a walk over all slots\n%v", seed, n, one.Retired(), all.Retired())
			}
			for slot := range one.counters.Backends {
				count := uint64(rng.Uint32())
				one.counters.Backends[slot].NewFlows, all.counters.Backends[slot].NewFlows = count, count
			}
		}
		if len(one.Retired()) == 0 {
			t.Fatal("no backend was taken away")
		}
	}
}

// What a backend was sent is counted until its slot is another's.
func TestSentIsOfTheSlotsUser(t *testing.T) {
	spec := worldSpec()
	slot := backendOf(&spec, vipDSR4)
	w := newWorker(t, 64, 0, nat.NewSpace())
	send := func(want uint64) {
		t.Helper()
		w.Adopt(must(snapshot.New(spec)))
		w.all(0, packettest.Frame(to(vipDSR4)), 0)
		if got := w.report().Sent[spec.Services[slot.Service].Members[0]].Packets; got != want {
			t.Errorf("%d packets were sent, want %d", got, want)
		}
	}
	send(1)
	slot.State = snapshot.Keeps
	send(2)
	slot.State, slot.Generation = snapshot.Active, 2
	send(1)
}

// A backend that was taken away is forgotten when no flow of it can be left.
func TestRetiredBackendsAreForgotten(t *testing.T) {
	spec := many(1, 3)
	chain := must(snapshot.New(spec))
	w := newWorker(t, 64, 0, nat.NewSpace())
	adopt := func(now time.Duration, slot uint32) {
		w.Sweep(flow.TickAt(now), 1)
		spec.Backends[slot].Generation++
		chain = following(chain, spec, slot)
		w.Adopt(chain)
	}
	adopt(0, 0)
	adopt(time.Second, 1) // away goes generation 1 of slot 1
	adopt(time.Hour, 1)
	longest := flow.DefaultTimeouts().TCPEstablished
	adopt(longest+30*time.Minute, 2)
	got := w.Retired()
	want := map[[2]uint32][16]byte{{1, 2}: manyAddr(1), {2, 1}: manyAddr(2)}
	if !maps.Equal(got, want) {
		t.Errorf("remembered %v, want %v", got, want)
	}
}

// BenchmarkAdopt is how long a worker is away for a new snapshot of 1,000 services
// with 100 backends each.
func BenchmarkAdopt(b *testing.B) {
	spec := many(1000, 100_000)
	first := must(snapshot.New(spec))
	for _, bc := range []struct {
		name    string
		hands   bool
		changes int
	}{
		{"down", false, 1},
		{"hands=1", true, 1},
		{"hands=100", true, 100},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var changed []uint32
			for n := range bc.changes {
				slot := uint32(n * 977 % 100_000)
				changed = append(changed, slot)
				if spec.Backends[slot].State = snapshot.Removed; bc.hands {
					spec.Backends[slot].Generation++
				}
			}
			second := following(first, spec, changed...)
			w := newWorker(b, 64, 0, nat.NewSpace())
			w.Adopt(first)
			var longest time.Duration
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				w.Adopt(first) // all slots: it does not follow
				b.StartTimer()
				start := time.Now()
				w.Adopt(second)
				longest = max(longest, time.Since(start))
			}
			b.ReportMetric(float64(longest.Nanoseconds())/1000, "max-µs")
		})
	}
	b.Run("all", func(b *testing.B) {
		w := newWorker(b, 64, 0, nat.NewSpace())
		other := must(snapshot.New(many(1000, 100_000)))
		for n := 0; b.Loop(); n++ {
			w.Adopt([]*snapshot.Snapshot{first, other}[n%2])
		}
	})
}
