package worker

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// unstarted returns a worker of a table with so many entries, which has been there for
// some time.
func unstarted(t *testing.T, entries int, since time.Duration) (*Worker, *flow.Table) {
	t.Helper()
	table, err := flow.New(entries, flow.DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	w := New(Config{Flows: table, Space: nat.NewSpace(), Queue: &endless{}, Log: slog.New(slog.DiscardHandler)})
	w.start = time.Now().Add(-since)
	return w, table
}

// However long the worker was away, it sweeps little by little, and all of the table
// in the end.
func TestSweepsLittleByLittle(t *testing.T) {
	const flows = 4 * 8 * sweepSets
	w, table := unstarted(t, flows, 24*time.Hour)
	w.counters.Backends = make([]stats.Backend, 1)
	for n := range flows {
		tuple := packet.Tuple{SrcPort: uint16(n), Proto: packet.ProtoUDP}
		e, _, _ := table.Insert(table.Hash(&tuple), &tuple, flow.Segment{}, 0)
		if e != nil {
			e.Generation = 1 // of nobody
		}
	}
	left := table.Len()
	turns := 0
	for more := true; more; turns++ {
		more = w.sweep()
		if gone := left - table.Len(); gone > 8*sweepSets {
			t.Fatalf("turn %d: %d flows are gone, more than there are in %d sets", turns, gone, sweepSets)
		}
		left = table.Len()
	}
	if left != 0 || turns != table.Sets()/sweepSets {
		t.Errorf("%d flows are left after %d turns, want none after %d", left, turns, table.Sets()/sweepSets)
	}
}

// A turn that took long is a pause, and sleeping is none.
func TestCountsPauses(t *testing.T) {
	w, _ := unstarted(t, 8, time.Second)
	for _, took := range []time.Duration{pause / 2, 3 * pause, 2 * pause} {
		w.turned = time.Since(w.start) - took
		w.sweep()
	}
	if c := &w.counters; c.Pauses < 2 || c.Longest < 3*pause {
		t.Errorf("%d pauses, the longest of %v; want 2, and 3 ms", c.Pauses, c.Longest)
	}
}

// toSlot has a worker know of one backend, in this slot, and returns packets to it.
func toSlot(t *testing.T, w *Worker, slot uint32) []queue.Frame {
	t.Helper()
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	rw, err := rewrite.DSR(rewrite.Link{Dst: mac, MTU: 1500}, false)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort("203.0.113.10:53")
	snap, err := snapshot.New(snapshot.Spec{
		Interfaces: []snapshot.Interface{{MAC: mac, MTU: 1500}},
		Services:   []snapshot.Service{{Table: []uint16{0}, Members: []uint32{slot}, Empty: stats.NoBackend}},
		Slots:      int(slot) + 1,
		Placed:     []snapshot.Placed{{Slot: slot, Backend: snapshot.Backend{Rewrite: rw, State: snapshot.Active, Generation: 1}}},
		VIPs:       []snapshot.VIPSpec{{Addr: packet.Addr16(to.Addr()), Proto: packet.ProtoUDP, Lo: to.Port(), Hi: to.Port()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.forward.Adopt(snap)
	q := newEndless(func(int) []byte {
		return packettest.Frame(packettest.Spec{DstMAC: mac, Proto: packet.ProtoUDP, Src: netip.MustParseAddrPort("198.51.100.1:4000"), Dst: to})
	})
	frames := make([]queue.Frame, 3)
	if _, err := q.Receive(frames); err != nil {
		t.Fatal(err)
	}
	return frames
}

// All backends' counters come, in the caller's memory, however many there are.
func TestStatusOfManyBackends(t *testing.T) {
	const slots = 2*copySlots + 1
	w, _ := unstarted(t, 8, 0)
	const last = slots - 1
	in := toSlot(t, w, last)
	w.forward.Process(0, 0, in, make([]forward.Verdict, len(in)))
	for i := range w.counters.Backends {
		w.counters.Backends[i].NewFlows = uint64(i) + 1
	}
	asks := 0
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan bool)
	go func() {
		defer close(served)
		for ctx.Err() == nil {
			if w.serve() {
				asks++
			}
		}
	}()
	var s Status
	var memory *stats.Backend
	for round := range 2 {
		if err := w.StatusInto(ctx, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Counters.Backends) != slots {
			t.Fatalf("round %d: %d backends, want %d", round, len(s.Counters.Backends), slots)
		}
		for i := range s.Counters.Backends {
			sent := uint64(0)
			if i == last {
				sent = uint64(len(in))
			}
			if got := s.Counters.Backends[i].NewFlows; got != uint64(i)+1 || s.Counters.Sent[i].Packets != sent {
				t.Fatalf("round %d: backend %d has %d, and was sent %d, want %d", round, i, got, s.Counters.Sent[i].Packets, sent)
			}
		}
		if &s.Counters.Backends[0] == &w.counters.Backends[0] {
			t.Fatal("the counters are the worker's own")
		}
		if round > 0 && memory != &s.Counters.Backends[0] {
			t.Error("the memory was not used again")
		}
		memory = &s.Counters.Backends[0]
	}
	cancel()
	<-served
	if asks != 2*4 {
		t.Errorf("the worker was asked %d times, want 8: for itself, and for three parts, twice", asks)
	}
}
