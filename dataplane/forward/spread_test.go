package forward_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane/acl"
	"weir/dataplane/flow"
	"weir/dataplane/forward"
	"weir/dataplane/limit"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// node is a weir among several on one link that have the same VIP and the same
// backends.
type node struct {
	*rig
	number int
}

// nodes makes as many as there are lists: which other nodes each believes that
// there are.
func nodes(t *testing.T, believes ...[]int) []*node {
	return nodesThat(t, func(*snapshot.Spread) {}, believes...)
}

func nodesThat(t *testing.T, change func(*snapshot.Spread), believes ...[]int) []*node {
	t.Helper()
	var all []*node
	for number, others := range believes {
		spec := snapshot.Spec{Interfaces: []snapshot.Interface{{Name: "eth0", MAC: nodeMAC(number), MTU: 1500}}}
		svc := snapshot.Service{}
		for slot := range uint32(5) {
			svc.Members = append(svc.Members, slot)
			link := rewrite.Link{Src: nodeMAC(number), Dst: backendMAC(slot), MTU: 1500}
			spec.Backends = append(spec.Backends, snapshot.Backend{
				Rewrite: must(rewrite.DSR(link, false)), State: snapshot.Active, Generation: 1,
			})
		}
		for i := range tableSize {
			svc.Table = append(svc.Table, uint16(i%5))
		}
		spec.Services = []snapshot.Service{svc}
		claim(&spec, vipDSR4, 0)
		if len(others) > 0 {
			spread := spreadOver(vipDSR4, number, others)
			for i, n := range others {
				link := rewrite.Link{Src: nodeMAC(number), Dst: nodeMAC(n), MTU: 1500}
				spread.Members[i+1].Rewrite = must(rewrite.DSR(link, false))
			}
			change(&spread)
			spec.Spreads = []snapshot.Spread{spread}
		}
		all = append(all, &node{newRig(t, 1<<14, must(snapshot.New(spec))), number})
	}
	return all
}

// travel sends a client's frame to the first node, and on from node to node until
// it is at a backend. It returns which backend, and all nodes on the way.
func travel(t *testing.T, all []*node, first int, frame []byte) (backend packet.MAC, way []int) {
	t.Helper()
	for at := first; ; {
		way = append(way, at)
		f, v := all[at].one(toMAC(frame, nodeMAC(at)), 0)
		if v.Action != forward.Send {
			t.Fatalf("node %d, after %d: verdict %+v (%v)", at, way, v, v.Reason)
		}
		frame = f.Bytes()
		to := packet.MAC(frame)
		if to[3] != nodeMAC(0)[3] {
			return to, way
		}
		at = int(to[5])
	}
}

// Whichever node gets the packets, each flow is served by one node, the same one,
// and by the backend that any node would choose; shares are even.
func TestNodesAgree(t *testing.T) {
	for _, first := range []int{0, 2} {
		all := nodes(t, []int{1, 2}, []int{0, 2}, []int{0, 1})
		alone := nodes(t, nil)[0]
		served := make([]int, len(all))
		for n := range 3000 {
			backend, way := travel(t, all, first, clientFrame(n, packet.TCPSyn))
			again, wayAgain := travel(t, all, first, clientFrame(n, packet.TCPAck))
			if len(way) > 2 || !slices.Equal(way, wayAgain) || again != backend {
				t.Fatalf("client %d: by %v to %v, then by %v to %v", n, way, backend, wayAgain, again)
			}
			if f, _ := alone.one(toMAC(clientFrame(n, packet.TCPSyn), nodeMAC(0)), 0); packet.MAC(f.Bytes()) != backend {
				t.Fatalf("client %d: at %v, one node alone sends it to %v", n, backend, packet.MAC(f.Bytes()))
			}
			tuple := clientTuple(n)
			for _, other := range all {
				if last := way[len(way)-1]; memberIn(other, &tuple) != last {
					t.Fatalf("client %d is served by %d, and node %d takes it to be for %d", n, last, other.number, memberIn(other, &tuple))
				}
			}
			served[way[len(way)-1]]++
		}
		for number, n := range served {
			if n < 900 || n > 1100 {
				t.Errorf("node %d serves %d of 3000 flows", number, n)
			}
		}
		given := all[first].counters.Spread.Packets
		if want := uint64(2 * (3000 - served[first])); given != want {
			t.Errorf("node %d gave %d frames away, want %d", first, given, want)
		}
		if n := all[first].table.Len(); n != served[first] {
			t.Errorf("node %d remembers %d flows of %d that it serves", first, n, served[first])
		}
	}
}

// memberIn returns the number of the node that another one takes for the one to
// serve a flow.
func memberIn(n *node, t *packet.Tuple) int {
	var others []int
	for other := range 3 {
		if other != n.number {
			others = append(others, other)
		}
	}
	spread := spreadOver(vipDSR4, n.number, others)
	member := spread.Member(&snapshot.Service{}, t)
	for i := range others {
		if member == &spread.Members[i+1] {
			return others[i]
		}
	}
	return n.number
}

// Each node has flows of each backend: the choice of the one says nothing about
// that of the other. With the same table for both, it is most easily wrong.
func TestMemberSaysNothingAboutBackend(t *testing.T) {
	const each, flows = 5, 20_000
	var table []uint16
	for i := range tableSize {
		table = append(table, uint16(i%each))
	}
	for _, affinity := range []snapshot.Affinity{snapshot.AffinityFlow, snapshot.AffinitySource} {
		svc := snapshot.Service{Table: table, Members: []uint32{0, 1, 2, 3, 4}, Affinity: affinity, AffinityBits: 32}
		spread := snapshot.Spread{Table: table, Members: make([]snapshot.SpreadMember, each)}
		var count [each][each]int
		for n := range flows {
			tuple := clientTuple(n)
			member := spread.Member(&svc, &tuple)
			for i := range spread.Members {
				if member == &spread.Members[i] {
					count[i][svc.Choose(&tuple)]++
				}
			}
		}
		const want = flows / each / each
		for member, backends := range count {
			for backend, n := range backends {
				if n < want*8/10 || n > want*12/10 {
					t.Errorf("affinity %d: member %d has %d flows of backend %d, want about %d", affinity, member, n, backend, want)
				}
			}
		}
	}
}

// When a node leaves, its flows are shared out, and hardly any other moves.
func TestSpreadWhenANodeLeaves(t *testing.T) {
	before, after := newPool(2), newPool(2)
	before.nodes, after.nodes = []int{1, 2, 3}, []int{1, 3}
	moved, orphans := 0, map[int]int{}
	const flows = 10_000
	for n := range flows {
		tuple := clientTuple(n)
		was, is := nodeOf(before, &tuple), nodeOf(after, &tuple)
		switch {
		case was == 2:
			orphans[is]++
		case was != is:
			moved++
		}
	}
	if moved > flows/50 {
		t.Errorf("%d of %d flows of nodes that stay have moved", moved, flows)
	}
	for _, n := range []int{0, 1, 3} {
		if orphans[n] < flows/4/3/2 {
			t.Errorf("node %d got %d of the leaving node's flows", n, orphans[n])
		}
	}
}

// Nodes that do not agree on who there is cannot make a frame go round for ever,
// and none is lost: it is served where it has one hop left. Here each believes in
// the next one only, and that all flows are that one's.
func TestNodesThatDisagree(t *testing.T) {
	theOther := func(s *snapshot.Spread) { s.Table = []uint16{1} }
	all := nodesThat(t, theOther, []int{1}, []int{2}, []int{0})
	for n := range 10 {
		if _, way := travel(t, all, n%3, clientFrame(n, packet.TCPSyn)); len(way) != 64 {
			t.Errorf("client %d: by %d nodes, want 64, which is its TTL", n, len(way))
		}
	}
}

// All flows of a client's prefix stay together where that picks the backend.
func TestSpreadWithAffinitySource(t *testing.T) {
	p := newPool(3)
	p.affinity, p.nodes = snapshot.AffinitySource, []int{1, 2}
	r := newRig(t, 1<<10, p.snapshot())
	seen := map[uint32]bool{}
	for n := range 60 {
		first := r.slot(clientFrame(n, packet.TCPSyn), 0)
		seen[first] = true
		for port := range uint16(10) {
			s := with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Src = netip.AddrPortFrom(clientAddr(n).Addr(), 3000+port) })
			if got := r.slot(packettest.Frame(s), 0); got != first {
				t.Fatalf("client %d: %#x, then %#x", n, first, got)
			}
		}
	}
	if !seen[otherNode|1] || !seen[otherNode|2] || len(seen) != 5 {
		t.Errorf("60 clients went to %v", seen)
	}
}

// What is known before a VIP is spread stays, and so does what was given by a
// node that is none any more.
func TestSpreadLeavesKnownFlows(t *testing.T) {
	p := newPool(5)
	r := newRig(t, 1<<14, p.snapshot())
	before := settle(t, r, p)
	p.nodes = []int{1, 2}
	r.Adopt(p.snapshot())
	for n, slot := range before {
		if got := r.slot(clientFrame(n, packet.TCPAck), 1); got != slot {
			t.Fatalf("client %d was on slot %d, is on %#x", n, slot, got)
		}
	}
	if given := r.slot(fromMAC(clientFrame(clients, packet.TCPSyn), nodeMAC(2)), 1); given&otherNode != 0 {
		t.Fatalf("what node 2 gave was given to %#x", given)
	}
	p.nodes = []int{1}
	r.Adopt(p.snapshot())
	if got := r.slot(clientFrame(clients, packet.TCPAck), 1); got&otherNode != 0 {
		t.Errorf("a flow that is known here was given to %#x", got)
	}
	checkGauges(t, r, 1)
}

// The rate of packets and the access list hold where packets come in; the rate of
// new flows where they are served.
func TestSpreadAndLimits(t *testing.T) {
	three := limit.Rate{PerSecond: 1, Burst: 3}
	for name, test := range map[string]struct {
		limits snapshot.Limits
		acl    *acl.List
		want   stats.Reason
	}{
		"packets":   {limits: snapshot.Limits{Packets: three}, want: stats.ServiceLimit},
		"new flows": {limits: snapshot.Limits{NewFlows: three}, want: stats.ReasonNone},
		"access":    {acl: acl.New(nil, []netip.Prefix{netip.MustParsePrefix("198.18.0.0/15")}), want: stats.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			spec := snapshot.Spec{
				Interfaces: interfaces(), Services: []snapshot.Service{{Empty: stats.NoBackend, Limits: test.limits, ACL: test.acl}},
				Spreads: []snapshot.Spread{spreadOver(vipDSR4, 0, []int{1})},
			}
			spec.Spreads[0].Table = []uint16{1}
			claim(&spec, vipDSR4, 0)
			r := newRig(t, 64, must(snapshot.New(spec)))
			var last forward.Verdict
			for n := range 10 {
				_, last = r.one(clientFrame(n, packet.TCPSyn), 0)
			}
			if last.Reason != test.want {
				t.Errorf("the tenth flow's verdict is %+v (%v), want %v", last, last.Reason, test.want)
			}
			if given := r.counters.Spread.Packets; test.want == stats.ReasonNone && given != 10 || test.acl != nil && given != 0 {
				t.Errorf("%d frames were given away", given)
			}
		})
	}
}

// A fragment of a flow that another worker has is that worker's, and not another
// node's; and an ICMP error too.
func TestOtherWorkersAreAskedBeforeOtherNodes(t *testing.T) {
	for seed := range uint64(10) {
		m := natMachine(t, 3, seed, snatPort, snatPort)
		flow := of(memberEth0, udpTo(vipAll4))
		owner := m.any()
		m.put(owner, 0, byMember(packettest.Frame(flow)))
		m.settle()
		for _, f := range append(pieces(flow), toClientFailed(errorKinds()[0], flow, 0)) {
			m.put(m.any(), 0, f)
		}
		for _, s := range m.settle() {
			if to := packet.MAC(s.frame); to == nodeMAC(memberEth0) {
				t.Fatalf("seed %d: %x went to another node", seed, s.frame)
			}
		}
		if sum := m.spread(); sum != 0 {
			t.Fatalf("seed %d: %d frames were given away", seed, sum)
		}
		for _, f := range pieces(of(memberEth1, udpTo(vipAll4))) {
			m.put(m.any(), 0, f)
		}
		if sent := m.settle(); len(sent) != 3 || m.spread() != 3 {
			t.Fatalf("seed %d: 3 fragments of another node's flow became %d, %d given away", seed, len(sent), m.spread())
		}
		m.check(t)
	}
}

func (m *machine) spread() (sum uint64) {
	for _, w := range m.workers {
		sum += w.counters.Spread.Packets
	}
	return sum
}

// BenchmarkSpread gives packets to other nodes, of a flow each that nobody knows.
func BenchmarkSpread(b *testing.B) {
	for _, m := range benchModes()[:2] {
		for _, affinity := range []snapshot.Affinity{snapshot.AffinityFlow, snapshot.AffinitySource} {
			spec := benchSpec(m, 1)
			spec.Services[0].Affinity, spec.Services[0].AffinityBits = affinity, 64
			spread := spreadOver(benchVIP(m.v6, 0), 0, []int{1, 2, 3})
			for i := range spread.Table {
				spread.Table[i] = 1 + uint16(i%3) // and none to this one
			}
			spec.Spreads = []snapshot.Spread{spread}
			r := newRig(b, 1<<16, must(snapshot.New(spec)))
			s := newStream(benchVIP(m.v6, 0), 1<<24, 1).zeroSum()
			b.Run(fmt.Sprintf("%s/affinity=%d", m.name, affinity), func(b *testing.B) { run(b, r, s, stats.ReasonNone) })
			if r.table.Len() != 0 {
				b.Fatal("a flow was remembered")
			}
		}
	}
}

// What becomes of connections is counted for the backend that has them.
func TestConnectionsAreCounted(t *testing.T) {
	p := newPool(2)
	r := newRig(t, 1<<10, p.snapshot())
	want := make([]stats.Backend, 2)
	send := func(n int, flags ...uint8) *stats.Backend {
		for _, f := range flags {
			r.slot(clientFrame(n, f), 0)
		}
		return &want[maglevSlot(p, n)]
	}
	const syn, ack, fin, rst = packet.TCPSyn, packet.TCPAck, packet.TCPFin, packet.TCPRst
	send(0, syn, ack, ack, ack|packet.TCPPsh).Established++
	send(1, syn, syn, syn).Retries += 2
	b := send(2, syn, syn, ack, syn, ack)
	b.Established++
	b.Retries++
	send(3, syn, fin|ack).Established++ // the acknowledgement was lost
	send(4, syn, rst)
	send(5, ack, ack)
	send(6, syn, ack, fin|ack, syn, ack).Established += 2 // the next connection on the same tuple
	for _, n := range []int{0, 1, 2, 3, 4, 6, 6} {
		want[maglevSlot(p, n)].Opened++
	}
	r.one(packettest.Frame(udpTo(vipDSR4)), 0)
	for slot := range want {
		got := &r.counters.Backends[slot]
		if got.Opened != want[slot].Opened || got.Established != want[slot].Established ||
			got.Retries != want[slot].Retries || got.Resets != 0 {
			t.Errorf("slot %d: %+v, want %+v", slot, *got, want[slot])
		}
	}
	// What is left of the flows of a slot's old user is not the new user's.
	send(7, syn)
	before := r.counters.Backends[maglevSlot(p, 7)].Generation
	for i := range p.backends {
		p.backends[i].generation = before + 1
	}
	r.Adopt(p.snapshot())
	send(7, ack)
	for slot := range want {
		if got := r.counters.Backends[slot]; got.Established != 0 || got.Opened != 0 {
			t.Errorf("slot %d has begun anew: %+v", slot, got)
		}
	}
}

// Under NAT, a backend that resets connections shows, and each only once.
func TestResetsAreCounted(t *testing.T) {
	for _, v := range natVariants() {
		r := newRigIn(t, 64, natWorld)
		syn, answer := to(v.vip), answerTo(to(v.vip))
		r.all(0, packettest.Frame(syn), 0)
		slot := 0
		for i := range r.counters.Backends {
			if r.counters.Backends[i].Opened == 1 {
				slot = i
			}
		}
		ingress := natBackendOf(v.vip).link.Egress
		refused := packettest.Frame(flags(answer, packet.TCPRst|packet.TCPAck))
		r.all(ingress, refused, 0)
		r.all(ingress, refused, 0)
		b := &r.counters.Backends[slot]
		if b.Opened != 1 || b.Established != 0 || b.Resets != 1 {
			t.Errorf("%s: refused: %+v", v.name, *b)
		}
		r.all(0, packettest.Frame(syn), 0)
		r.all(ingress, packettest.Frame(answer), 0)
		r.all(0, packettest.Frame(ack(syn, "")), 0)
		r.all(ingress, refused, flow.Tick(1))
		if b.Opened != 2 || b.Established != 1 || b.Resets != 2 {
			t.Errorf("%s: established and reset: %+v", v.name, *b)
		}
	}
}
