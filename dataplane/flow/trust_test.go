package flow

import (
	"math"
	"testing"

	"weir/dataplane/packet"
)

// insertTrusted adds flow n, seen now, as one that has shown a second packet.
func insertTrusted(t testing.TB, table *Table, n int, now Tick) {
	k := tupleN(n, packet.ProtoTCP)
	hash := table.Hash(&k)
	e, _, _ := table.Insert(hash, &k, Segment{syn, 1000}, now)
	if e == nil || table.Lookup(hash, &k, Segment{ack, 1001}, now) == nil {
		t.Fatalf("flow %d was not inserted", n)
	}
}

func TestTrust(t *testing.T) {
	const (
		tcp = packet.ProtoTCP
		udp = packet.ProtoUDP
		mib = 1 << 20
		top = math.MaxUint32
	)
	for _, test := range []struct {
		name     string
		proto    uint8
		segments []Segment
		want     bool
	}{
		{"SYN", tcp, []Segment{{syn, 7}}, false},
		{"handshake", tcp, []Segment{{syn, 7}, {ack, 8}}, true},
		{"handshake across zero", tcp, []Segment{{syn, top}, {ack, 0}}, true},
		{"data at once", tcp, []Segment{{syn, 7}, {ack | psh, 8}}, true},
		{"fast open", tcp, []Segment{{syn | psh, 7}, {ack, 1448}}, true},
		{"furthest", tcp, []Segment{{syn, 7}, {ack, 8 + 65535}}, true},
		{"too far", tcp, []Segment{{syn, 7}, {ack, 8 + 65536}}, false},
		{"the SYN's own number", tcp, []Segment{{syn, 7}, {ack, 7}}, false},
		{"from a flood of ACKs", tcp, []Segment{{syn, 7}, {ack, 1 << 31}}, false},
		{"finished at once", tcp, []Segment{{syn, 7}, {finAck, 8}}, true},
		{"SYN again", tcp, []Segment{{syn, 7}, {syn, 8}, {syn, 9}}, false},
		{"reset", tcp, []Segment{{syn, 7}, {rstAck, 8}}, false},
		{"reset without ACK", tcp, []Segment{{syn, 7}, {rst, 8}}, false},
		{"SYN-ACK", tcp, []Segment{{syn, 7}, {synAck, 8}}, false},
		{"no flags", tcp, []Segment{{syn, 7}, {0, 8}}, false},
		{"SYN of another attempt", tcp, []Segment{{syn, 7}, {syn, 1 << 30}, {ack, 1<<30 + 1}}, true},
		{"first attempt after a second", tcp, []Segment{{syn, 7}, {syn, 1 << 30}, {ack, 8}}, false},
		{"middle, once", tcp, []Segment{{ack, 7}}, false},
		{"middle", tcp, []Segment{{ack, 7}, {ack, 1455}}, true},
		{"middle, the same again", tcp, []Segment{{ack, 7}, {ack, 7}}, true},
		{"middle, furthest", tcp, []Segment{{ack, 7}, {ack, 7 + mib}}, true},
		{"middle, too far", tcp, []Segment{{ack, 7}, {ack, 8 + mib}}, false},
		{"middle, an old one", tcp, []Segment{{ack, 7}, {ack, 7 + top - mib + 1}}, true},
		{"middle, too old", tcp, []Segment{{ack, 7}, {ack, 7 + top - mib}}, false},
		{"middle, first one sent again", tcp, []Segment{{ack, 7}, {ack, 16 * mib}, {ack, 16*mib + 1448}}, true},
		{"UDP, once", udp, []Segment{{}}, false},
		{"UDP", udp, []Segment{{}, {}}, true},
		{"GRE", 47, []Segment{{}, {}}, true},
	} {
		table := newTable(t, 8)
		k := tupleN(1, test.proto)
		hash := table.Hash(&k)
		e, _, _ := table.Insert(hash, &k, test.segments[0], 0)
		number := table.Number(e)
		for _, s := range test.segments[1:] {
			if table.Lookup(hash, &k, s, 0) == nil {
				t.Fatalf("%s: lost", test.name)
			}
		}
		if _, untrusted := table.Reusable(number, 0); untrusted == test.want {
			t.Errorf("%s: trusted %v, want %v", test.name, !untrusted, test.want)
		}
		// Once trusted, always: whatever else is sent.
		for _, f := range []uint8{ack, syn, finAck, rst, ack} {
			table.Lookup(hash, &k, Segment{f, 1 << 31}, 0)
		}
		if _, untrusted := table.Reusable(number, 0); test.want && untrusted {
			t.Errorf("%s: no longer trusted", test.name)
		}
	}
}

// The order in which flows go, one kind after the other, and the one quiet for
// longest first.
func TestEvictionOrder(t *testing.T) {
	table := newTable(t, 8)
	add := func(n int, s Segment, now Tick) {
		k := tupleN(n, packet.ProtoTCP)
		table.Insert(table.Hash(&k), &k, s, now)
	}
	syn60 := TickAt(DefaultTimeouts().TCPSYN)
	insertTrusted(t, table, 0, 2)
	insertTrusted(t, table, 1, 1)
	add(2, seg(ack), 5)        // untrusted
	add(3, seg(ack), 4)        // untrusted, older
	add(4, seg(syn), 3)        // too old by now
	add(5, seg(rst), syn60)    // closed
	add(6, seg(rst), syn60-10) // closed, older
	insertTrusted(t, table, 7, syn60)
	now := 4 + syn60
	for i, want := range []struct {
		n   int
		why Eviction
	}{
		{4, EvictedEnded}, {6, EvictedEnded}, {5, EvictedEnded},
		{3, EvictedUntrusted}, {2, EvictedUntrusted},
		{1, EvictedOldest}, {0, EvictedOldest},
	} {
		k := tupleN(100+i, packet.ProtoTCP)
		_, evicted, why := table.Insert(table.Hash(&k), &k, Segment{syn, 1000}, now)
		if why != want.why || evicted.Tuple != tupleN(want.n, packet.ProtoTCP) {
			t.Fatalf("insert %d evicted %v (%d), want flow %d (%d)", i, evicted.Tuple, why, want.n, want.why)
		}
		table.Lookup(table.Hash(&k), &k, Segment{ack, 1001}, now)
	}
	k := tupleN(200, packet.ProtoTCP)
	hash := table.Hash(&k)
	last := syn60 + quiet // flow 7 is quiet for just as long as it may be
	if e, evicted, why := table.Insert(hash, &k, seg(syn), last); e != nil || why != EvictedNone || evicted != nil {
		t.Errorf("evicted %v (%d), want no room", evicted.Tuple, why)
	}
	if table.Lookup(hash, &k, seg(syn), last) != nil || table.Len() != 8 {
		t.Errorf("%d flows", table.Len())
	}
	if _, evicted, why := table.Insert(hash, &k, seg(syn), last+1); why != EvictedOldest || evicted.Tuple != tupleN(7, packet.ProtoTCP) {
		t.Errorf("evicted %v (%d), want flow 7", evicted.Tuple, why)
	}
}

// Flows in use outlive a flood twenty times the size of the table, of SYNs,
// datagrams or ACKs, answered or not.
func TestFloodLeavesTrusted(t *testing.T) {
	for name, flood := range map[string]struct {
		proto    uint8
		seg      Segment
		answered bool
	}{
		"SYN":           {packet.ProtoTCP, Segment{syn, 7}, false},
		"SYN, answered": {packet.ProtoTCP, Segment{syn, 7}, true},
		"ACK":           {packet.ProtoTCP, Segment{ack, 7}, false},
		"UDP":           {packet.ProtoUDP, Segment{}, false},
		"UDP, answered": {packet.ProtoUDP, Segment{}, true},
	} {
		const kept, perTick = 500, 400
		table := newTable(t, 4096)
		table.keys = stableKeys()
		for n := range kept {
			insertTrusted(t, table, n, 0)
		}
		refused := 0
		for n := range 20 * table.Cap() {
			now := Tick(n / perTick)
			k := tupleN(100_000+n, flood.proto)
			e, _, why := table.Insert(table.Hash(&k), &k, flood.seg, now)
			if why == EvictedOldest {
				t.Fatalf("%s: a trusted flow was evicted", name)
			}
			if e == nil {
				refused++
			} else if flood.answered {
				table.Answered(table.Number(e), seg(synAck), now)
			}
			if n%(30*TicksPerSecond*perTick) != 0 {
				continue
			}
			for n := range kept { // each sends every half minute
				k := tupleN(n, packet.ProtoTCP)
				if table.Lookup(table.Hash(&k), &k, Segment{ack, 5000}, now) == nil {
					t.Fatalf("%s: flow %d is gone at tick %d", name, n, now)
				}
			}
		}
		if refused != 0 {
			t.Errorf("%s: %d refused, though no set can be full of trusted flows", name, refused)
		}
	}
}
