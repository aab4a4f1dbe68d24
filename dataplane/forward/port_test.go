package forward_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// portWorld is the NAT world with several SNAT addresses of IPv4.
func portWorld(space *nat.Space, addresses int, lo, hi uint16) *snapshot.Snapshot {
	spec := natSpec(space, lo, hi)
	spec.SNAT = nil
	for i := range addresses {
		spec.SNAT = append(spec.SNAT, snatOf(space, benchAddr(false, uint16(0x100+i)), lo, hi))
	}
	return must(snapshot.New(spec))
}

// from is a packet of client n.
func from(n int, s packettest.Spec) packettest.Spec {
	s.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), 999)
	return s
}

// opened gives the worker the first packet of a flow and returns what the backend
// sees of it; ok is false if there was no port.
func (b *rig) opened(t *testing.T, s packettest.Spec, now flow.Tick) (seen wire, ok bool) {
	t.Helper()
	drops := b.counters.Drops[stats.PortsExhausted]
	frame, v := b.one(packettest.Frame(s), now)
	if v.Action != forward.Send {
		if v.Reason != stats.PortsExhausted || b.counters.Drops[stats.PortsExhausted] != drops+1 {
			t.Fatalf("%v: %v", s.Src, v.Reason)
		}
		return wire{}, false
	}
	return read(t, frame.Bytes()).wire, true
}

// answered gives the worker a packet of the backend to what it sees as a client.
func (b *rig) answered(t *testing.T, seen wire, flags uint8, now flow.Tick) {
	t.Helper()
	frames, verdicts := batch(packettest.Frame(packettest.Spec{
		SrcMAC: otherMAC, DstMAC: eth1MAC, Src: seen.dst, Dst: seen.src, Proto: seen.proto, TCPFlags: flags,
	}))
	b.Process(1, now, frames, verdicts)
	if verdicts[0].Action != forward.Send {
		t.Fatalf("answer to %v: %v", seen.src, verdicts[0].Reason)
	}
}

// However many addresses there are, a flow costs 128 tries at most; and when a
// flood has all ports, only the first flow in a tick costs more than 8.
func TestTriesWhenPortsAreGone(t *testing.T) {
	const perAddress, perTick = 8 * nat.BlockPorts, 64
	for _, addresses := range []int{1, 2, 4, 16} {
		ports := addresses * perAddress
		b := newRigIn(t, 1<<16, func(s *nat.Space) *snapshot.Snapshot {
			return portWorld(s, addresses, 1024, 1024+perAddress-1)
		})
		c := &b.counters
		most, scarce := 0, false
		for n := range 4 * ports {
			if n%perTick == 0 {
				scarce = false
			}
			before := c.NATTakenOver
			if _, v := b.one(packettest.Frame(from(n, to(vipNAT44))), flow.Tick(n/perTick)); v.Action != forward.Send {
				t.Fatalf("%d addresses: flow %d: %v", addresses, n, v.Reason)
			}
			if before == 0 && c.NATTakenOver == 1 && b.NATUse().Flows < ports*3/4 {
				t.Errorf("%d addresses: a flow is taken over with %d of %d ports in use", addresses, b.NATUse().Flows, ports)
			}
			if scarce && c.NATTakenOver > before && b.Tried() > nat.Patience {
				t.Fatalf("%d addresses: %d tries, although another flow of this tick has found nothing", addresses, b.Tried())
			}
			most, scarce = max(most, b.Tried()), scarce || c.NATTakenOver > before
		}
		if most != nat.MaxCandidates || c.NATTakenOver < uint64(2*ports) {
			t.Errorf("%d addresses: %d tries at most, want %d; %d taken over", addresses, most, nat.MaxCandidates, c.NATTakenOver)
		}
	}
}

// A client's flows have one address while it has ports, then another one; nobody
// loses his port meanwhile, and of few ports all are found.
func TestNextAddress(t *testing.T) {
	for _, row := range []struct{ addresses, ports, flows int }{
		{1, 20, 20}, {2, 20, 40}, {3, 20, 60}, {5, 20, 100},
		{2, 512, 800}, {4, 512, 1600}, // all of one address are more than are tried
	} {
		b := newRigIn(t, 1<<14, func(s *nat.Space) *snapshot.Snapshot {
			return portWorld(s, row.addresses, 2048, uint16(2048+row.ports-1))
		})
		used := map[netip.Addr]bool{}
		for n := range row.flows {
			s := to(vipNAT44)
			s.Src = netip.AddrPortFrom(client4.Addr(), uint16(5000+n))
			seen, ok := b.opened(t, s, 1)
			if !ok || b.counters.NATTakenOver != 0 {
				t.Fatalf("%+v, flow %d: got a port: %v; %d taken over", row, n, ok, b.counters.NATTakenOver)
			}
			used[seen.src.Addr()] = true
			if few := row.ports <= 20 || n < row.ports/2; few && len(used) > n/row.ports+1 {
				t.Fatalf("%+v: the first %d flows have %d addresses", row, n+1, len(used))
			}
			if n%2 == 0 {
				b.one(packettest.Frame(ack(s, "")), 1)
			}
		}
		if row.flows < row.addresses*row.ports {
			continue
		}
		for n := range row.flows / 2 {
			if _, ok := b.opened(t, from(n, to(vipNAT44)), flow.Tick(2+n)); !ok {
				t.Errorf("%+v: %d untrusted flows had ports, and only %d could be taken over", row, row.flows/2, n)
			}
			b.one(packettest.Frame(ack(from(n, to(vipNAT44)), "")), flow.Tick(2+n))
		}
		if _, ok := b.opened(t, from(5000, to(vipNAT44)), 5000); ok || b.Tried() != row.flows {
			t.Errorf("%+v: one flow too many got a port: %v, tried %d", row, ok, b.Tried())
		}
	}
}

// Of several who may lose their port it is one whose flow is over, and of those
// the one that was over first: the backend may hold on to the end of a connection
// for a while, and refuse what looks like the same one.
func TestWhoLosesThePort(t *testing.T) {
	const fin, rst = packet.TCPFin | packet.TCPAck, packet.TCPRst
	opening := func(*rig, packettest.Spec, wire, flow.Tick) {}
	trusted := func(b *rig, s packettest.Spec, _ wire, now flow.Tick) { b.one(packettest.Frame(ack(s, "")), now) }
	finished := func(b *rig, s packettest.Spec, seen wire, now flow.Tick) {
		b.one(packettest.Frame(flags(ack(s, ""), fin)), now)
		b.answered(t, seen, fin, now)
	}
	reset := func(b *rig, s packettest.Spec, _ wire, now flow.Tick) { b.one(packettest.Frame(flags(s, rst)), now) }
	type change func(*rig, packettest.Spec, wire, flow.Tick)
	for _, row := range []struct {
		name  string
		flows []change // one per second
		want  int
	}{
		{"openings", []change{opening, opening, opening, opening}, 0},
		{"finished", []change{finished, finished, finished, finished}, 0},
		{"in use", []change{trusted, trusted, opening, opening}, 2},
		{"an old opening", []change{opening, trusted, finished, finished}, 2},
		{"a reset", []change{opening, reset, finished, trusted}, 1},
		{"only the last", []change{trusted, trusted, trusted, finished}, 3},
		{"nobody", []change{trusted, trusted, trusted, trusted}, -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newRigIn(t, 64, func(s *nat.Space) *snapshot.Snapshot { return portWorld(s, 1, 2000, 2003) })
			var all []wire
			now := flow.Tick(0)
			for n, change := range row.flows {
				now += flow.TicksPerSecond
				seen, ok := b.opened(t, from(n, to(vipNAT44)), now)
				if !ok {
					t.Fatal("no port")
				}
				change(b, from(n, to(vipNAT44)), seen, now)
				all = append(all, seen)
			}
			seen, ok := b.opened(t, from(100, to(vipNAT44)), now)
			if got := slices.Index(all, seen); ok != (row.want >= 0) || ok && got != row.want {
				t.Errorf("flow %d lost its port, want %d", got, row.want)
			}
		})
	}
}

// A flood that comes to one worker leaves the others ports, if there are as many
// blocks as workers. If not, who has none refuses, and goes on when there is one.
func TestFloodAtAnotherWorker(t *testing.T) {
	for _, row := range []struct{ workers, blocks int }{{2, 8}, {4, 4}, {3, 2}} {
		t.Run(fmt.Sprintf("%d workers, %d blocks", row.workers, row.blocks), func(t *testing.T) {
			space := nat.NewSpace()
			snap := portWorld(space, 1, 1024, uint16(1024+row.blocks*nat.BlockPorts-1))
			var all []*rig
			for n := range row.workers {
				w := newWorker(t, 1<<12, uint16(n), space)
				w.Adopt(snap)
				all = append(all, w)
			}
			for n := range 2 * row.blocks * nat.BlockPorts {
				if _, ok := all[0].opened(t, from(n, to(vipNAT44)), 1); !ok {
					t.Fatalf("flow %d of the flood is refused", n)
				}
			}
			if got, want := all[0].Blocks(), max(1, row.blocks-row.workers+1); got != want {
				t.Errorf("the worker of the flood has %d blocks, want %d", got, want)
			}
			for n, w := range all[1:] {
				for k := range 2 * nat.BlockPorts {
					_, ok := w.opened(t, from(1000+k, to(vipNAT44)), 2)
					if want := n+1 < row.blocks; ok != want || (w.Blocks() == 1) != want {
						t.Fatalf("worker %d: flow %d has a port: %v, want %v; %d blocks", n+1, k, ok, want, w.Blocks())
					}
				}
			}
			all[0].Sweep(later(), all[0].table.Sets())
			space.ReleaseAll(0)
			if _, ok := all[len(all)-1].opened(t, from(1, to(vipNAT44)), 3); !ok {
				t.Error("no port although there is a free block")
			}
		})
	}
}

// A flood by UDP that backends answer keeps nobody out, and takes nothing from
// who is idle.
func TestAnsweredFlood(t *testing.T) {
	t.Run("ports", func(t *testing.T) {
		b := newRigIn(t, 64, func(s *nat.Space) *snapshot.Snapshot { return portWorld(s, 1, 2000, 2003) })
		for n := range 4 {
			seen, _ := b.opened(t, from(n, udpTo(vipNAT44)), 16)
			b.answered(t, seen, 0, 16)
			b.answered(t, seen, 0, 16)
		}
		for n := range 4 {
			s := from(100+n, udpTo(vipNAT44))
			if _, ok := b.opened(t, s, 16); !ok {
				t.Fatalf("client %d: no port", n)
			}
			b.one(packettest.Frame(s), 16)
		}
		if _, ok := b.opened(t, from(200, udpTo(vipNAT44)), 16); ok {
			t.Error("a client that sends more than one packet has lost its port")
		}
	})
	t.Run("entries", func(t *testing.T) {
		const idle, flood = 100, 8000
		b := newRigIn(t, 1024, func(s *nat.Space) *snapshot.Snapshot { return portWorld(s, 1, 1024, 65535) })
		tcp := func(n int) packettest.Spec { return from(n, to(vipPort44)) }
		for n := range idle {
			b.opened(t, tcp(n), 16)
			b.one(packettest.Frame(ack(tcp(n), "")), 16)
		}
		kept := b.table.Len()
		now := flow.Tick(16 + 61*flow.TicksPerSecond)
		for n := range flood {
			seen, ok := b.opened(t, from(1000+n, udpTo(vipNAT44)), now)
			if !ok {
				t.Fatalf("flow %d of the flood is refused", n)
			}
			b.answered(t, seen, 0, now)
		}
		if c := &b.counters; kept != idle || c.FlowsEvicted != 0 || c.FlowsUntrustedEvicted == 0 {
			t.Errorf("of %d idle connections %d were evicted for a flood, and %d of the flood itself", kept, c.FlowsEvicted, c.FlowsUntrustedEvicted)
		}
		for n := range idle {
			if _, v := b.one(packettest.Frame(ack(tcp(n), "x")), now); v.Action != forward.Send {
				t.Errorf("connection %d: %v", n, v.Reason)
			}
		}
	})
}
